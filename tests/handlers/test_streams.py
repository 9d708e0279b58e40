"""Streams through the gateway: begun, read, broken, left; and what is counted of each."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from engine.routing import open_receipt
from events.catalogue.endpoints import Policy, Shadow
from handlers import attempts as module
from handlers.executions import DeadlineExceeded, RequestTimedOut, VersionFailed
from tests.handlers.asking import SECRET, FakeExecutor, Rig, says, told
from tests.handlers.world import World, eventually, opened

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def piece(text: str, finish_reason: str | None = None):
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish_reason}]}


async def a_story():
    yield piece("Once")
    yield piece(" upon", "stop")
    yield {"choices": [], "usage": USAGE}


WHOLE = {"choices": [{"index": 0, "text": "Once upon", "finish_reason": "stop"}], "usage": USAGE}


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    async with opened() as found:
        await found.register("1.0.0", "2.0.0")
        await found.create("1.0.0")
        yield found


@asynccontextmanager
async def telling(world: World, streamed):
    executor = FakeExecutor()
    executor.streams["1.0.0"] = streamed
    rig = Rig(world, executor)
    async with rig.stream() as stream:
        yield rig, executor, stream


async def test_a_stream_tells_its_version_and_proof_and_counts_once_it_is_over(world: World):
    async with telling(world, a_story) as (rig, executor, stream):
        assert (stream.version, stream.attempts, stream.request_id) == ("1.0.0", 1, "r1")
        assert open_receipt(stream.receipt, SECRET).version == "1.0.0"
        assert rig.under_way() == {"1.0.0": 1}
        chunks = [chunk async for chunk in stream.chunks]
        assert chunks == [piece("Once"), piece(" upon", "stop"), {"choices": [], "usage": USAGE}]
    [window] = await rig.next_second()
    assert (window.versions["1.0.0"].requests, window.versions["1.0.0"].tokens) == (1, 5)
    assert executor.closed == ["1.0.0"]


async def test_a_stream_tells_which_chunks_have_others_behind_them_but_never_of_the_first(
    world: World,
):
    async def some_together():
        yield told(piece("a"), is_followed=True)
        yield told(piece("b"), is_followed=True)
        yield told(piece("c"))

    async with telling(world, some_together) as (_, _, stream):
        assert [stream.chunks.is_followed async for _ in stream.chunks] == [False, True, False]


async def test_a_stream_is_entered_only_when_its_first_chunk_is_there(world: World):
    let = asyncio.Event()

    async def slow():
        await let.wait()
        yield piece("late")

    executor = FakeExecutor()
    executor.streams["1.0.0"] = slow
    rig = Rig(world, executor)
    entering = asyncio.create_task(rig.stream().__aenter__())
    await eventually(lambda: rig.under_way() == {"1.0.0": 1})
    assert not entering.done()
    let.set()
    assert (await entering).version == "1.0.0"


async def test_a_stream_nobody_serves_is_tried_until_somebody_does(world: World):
    executor = FakeExecutor()
    rig = Rig(world, executor)
    entering = asyncio.create_task(rig.stream().__aenter__())
    await eventually(lambda: len(executor.asked) >= 3)
    executor.streams["1.0.0"] = a_story
    stream = await entering
    assert stream.attempts == len(executor.asked)


async def test_a_stream_that_breaks_is_a_failure_and_nothing_is_repeated(world: World):
    async def breaks():
        yield piece("Once")
        raise VersionFailed("out of ink")

    async with telling(world, breaks) as (rig, executor, stream):
        assert await anext(stream.chunks) == piece("Once")
        with pytest.raises(VersionFailed) as failed:
            await anext(stream.chunks)
        assert [chunk async for chunk in stream.chunks] == []
        assert failed.value.version == "1.0.0"
    assert executor.asked == ["1.0.0"]
    assert await rig.outcomes() == [("1.0.0", "runtime_failed")]


async def test_a_stream_that_is_empty_is_a_failure(world: World):
    async def nothing():
        return
        yield

    rig = Rig(world, executor := FakeExecutor())
    executor.streams["1.0.0"] = nothing
    with pytest.raises(VersionFailed, match="empty"):
        async with rig.stream():
            pass
    assert await rig.outcomes() == [("1.0.0", "runtime_failed")]


@pytest.mark.parametrize("read", [0, 1], ids=["before its first chunk", "after its first chunk"])
async def test_a_client_that_leaves_ends_the_work_and_counts_as_nothing(world: World, read: int):
    async with telling(world, a_story) as (rig, executor, stream):
        for _ in range(read):
            await anext(stream.chunks)
    assert executor.closed == ["1.0.0"]
    assert rig.under_way() == {}
    assert await rig.outcomes() == []


async def test_a_client_that_leaves_while_it_waits_ends_the_work(world: World):
    asked = asyncio.Event()

    async def hangs():
        yield piece("Once")
        asked.set()
        await asyncio.Event().wait()

    executor = FakeExecutor()
    executor.streams["1.0.0"] = hangs
    rig = Rig(world, executor)

    async def read() -> None:
        async with rig.stream() as stream:
            async for _ in stream.chunks:
                pass

    reading = asyncio.create_task(read())
    await asked.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert executor.closed == ["1.0.0"]
    assert rig.under_way() == {}


async def test_a_stream_ends_on_the_version_that_began_it(world: World):
    async with telling(world, a_story) as (_, executor, stream):
        first = await anext(stream.chunks)
        await world.move("2.0.0", "s1")
        rest = [chunk async for chunk in stream.chunks]
        assert [first, *rest][:2] == [piece("Once"), piece(" upon", "stop")]
        assert (stream.version, executor.asked) == ("1.0.0", ["1.0.0"])


async def test_a_stream_that_stalls_has_failed_at_its_deadline(world: World):
    async def stalls():
        yield piece("Once")
        raise DeadlineExceeded("nothing came")

    async with telling(world, stalls) as (rig, _, stream):
        with pytest.raises(DeadlineExceeded):
            async for _chunk in stream.chunks:
                pass
    assert await rig.outcomes() == [("1.0.0", "timeout")]


async def test_a_stream_whose_request_allows_no_more_time_is_no_failure_of_its_version(
    world: World,
):
    async def is_cut_off():
        yield piece("Once")
        raise RequestTimedOut("over")

    async with telling(world, is_cut_off) as (rig, executor, stream):
        with pytest.raises(RequestTimedOut) as failed:
            async for _chunk in stream.chunks:
                pass
    assert failed.value.version == "1.0.0"
    assert await rig.outcomes() == []
    assert (rig.under_way(), executor.closed) == ({}, ["1.0.0"])


async def test_a_shadow_is_compared_with_the_whole_answer_of_a_stream(world: World):
    await world.set_policy(Policy(split={"1.0.0": 1.0}, shadow=(Shadow(version="2.0.0"),)))
    executor = FakeExecutor(**{"2.0.0": says(WHOLE)})
    executor.streams["1.0.0"] = a_story
    rig = Rig(world, executor)
    async with rig.stream() as stream:
        async for _chunk in stream.chunks:
            assert rig.gateway.shadows.under_way == 0
    await eventually(lambda: executor.asked == ["1.0.0", "2.0.0"])
    await eventually(lambda: rig.gateway.shadows.under_way == 0)
    [window] = await rig.next_second()
    assert (window.shadows["2.0.0"].compared, window.shadows["2.0.0"].agreed) == (1, 1)
