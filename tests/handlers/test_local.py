"""What is resident in this process, executed here and for others: the same either way."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from engine.runtimes import (
    RequestRefused,
    RequestTimedOut,
    Residency,
    RuntimeFailed,
    VersionOverloaded,
    VersionTimedOut,
    VersionUnavailable,
)
from events.catalogue.models import VersionRegistered
from events.errors import LogUnavailable
from handlers import executions
from handlers.executions import BusExecutor, DeadlineExceeded, Execution, NotServed
from handlers.local import LocalExecutor
from tests.handlers.fakes import FakeBus
from tests.handlers.world import eventually, ref

REF = ref("1.0.0")
WAYS = ["in this process", "over the bus"]


class Storyteller:
    """A runtime that tells its inputs, one after another, and raises those that are exceptions."""

    told = ended = 0

    async def load(self) -> None: ...

    async def warm(self) -> None: ...

    async def infer(self, inputs, parameters):
        return [chunk async for chunk in self.stream(SAID[inputs], parameters)]

    async def stream(self, inputs, parameters):
        said = SAID[inputs] if isinstance(inputs, str) else inputs
        try:
            for each in said:
                if isinstance(each, Exception):
                    raise each
                if each is HANGS:
                    await asyncio.Event().wait()
                self.told += 1
                yield each
        finally:
            self.ended += 1

    async def memory_bytes(self) -> int:
        return 1

    async def failed(self) -> str:
        return await asyncio.get_running_loop().create_future()

    async def close(self) -> None: ...


HANGS = object()
SAID: dict[str, list] = {"a story": ["Once", "upon"], "no end": ["Once", HANGS]}


@asynccontextmanager
async def told():
    """A storyteller that is resident, and both ways to it."""
    teller, bus = Storyteller(), FakeBus()
    residency = Residency(budget_bytes=10, create=lambda _: teller, pinned=lambda: ())
    await residency.ensure(REF, VersionRegistered(version="1.0.0", runtime="echo"))
    local = LocalExecutor(node_id="n1", residency=residency, bus=bus)
    served = await local.serve(REF)
    yield teller, dict(zip(WAYS, (local, BusExecutor(bus)), strict=True))
    await served.stop()
    assert (bus.services, bus.streams, bus.listeners) == ([], [], [])
    await residency.close()


def asking(what: str, *, timeout_s: float = 30.0) -> Execution:
    return Execution(inputs=what, parameters={}, timeout_s=timeout_s, request_id="r1")


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_comes_piece_by_piece(way: str):
    async with told() as (teller, ways):
        chunks = [chunk async for chunk in ways[way].stream(REF, asking("a story"))]
        assert [chunk.outputs for chunk in chunks] == ["Once", "upon"]
        assert 0 <= chunks[0].runtime_ms <= chunks[1].runtime_ms
        assert teller.ended == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_reader_that_leaves_ends_the_work(way: str):
    async with told() as (teller, ways):
        chunks = ways[way].stream(REF, asking("no end"))
        assert (await anext(chunks)).outputs == "Once"
        await chunks.aclose()
        await eventually(lambda: teller.ended == 1)


@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_that_leaves_ends_the_work_of_a_whole_answer_too(way: str):
    async with told() as (teller, ways):
        request = asyncio.create_task(ways[way].execute(REF, asking("no end")))
        await eventually(lambda: teller.told == 1)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await eventually(lambda: teller.ended == 1)


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_that_stalls_ends_at_its_limit(way: str):
    async with told() as (teller, ways):
        chunks = ways[way].stream(REF, asking("no end", timeout_s=0.01))
        assert (await anext(chunks)).outputs == "Once"
        with pytest.raises(DeadlineExceeded):
            await anext(chunks)
        await eventually(lambda: teller.ended == 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (RuntimeFailed("broke"), executions.VersionFailed("broke")),
        (
            RequestRefused("prompt", "is empty"),
            executions.RequestRefused("is empty", field="prompt"),
        ),
        (
            RequestRefused("prompt", "too long", openai_code="context_length_exceeded"),
            executions.RequestRefused(
                "too long", field="prompt", openai_code="context_length_exceeded"
            ),
        ),
        (
            VersionOverloaded("busy", retry_after_s=2.0),
            executions.VersionOverloaded("busy", retry_after_s=2.0),
        ),
        (VersionUnavailable("gone"), executions.VersionUnavailable("gone")),
        (
            VersionUnavailable("left alone", retry_after_s=12.5),
            executions.VersionUnavailable("left alone", retry_after_s=12.5),
        ),
        (RequestTimedOut("over"), executions.RequestTimedOut("over")),
        (VersionTimedOut("late"), DeadlineExceeded("late")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_runtime_fails_alike_whole_and_in_pieces(
    way: str, said: RuntimeFailed, expected, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(SAID, "breaks", [said])
    async with told() as (_, ways):
        with pytest.raises(type(expected)) as whole:
            await ways[way].execute(REF, asking("breaks"))
        with pytest.raises(type(expected)) as streamed:
            await anext(ways[way].stream(REF, asking("breaks")))
        for raised in (whole, streamed):
            assert str(raised.value) == str(expected)
            assert vars(raised.value) == vars(expected)


@pytest.mark.parametrize("way", WAYS)
async def test_a_version_that_is_not_here_is_not_served(way: str):
    async with told() as (_, ways):
        with pytest.raises(NotServed):
            await ways[way].execute(ref("2.0.0"), asking("a story"))
        with pytest.raises(NotServed):
            await anext(ways[way].stream(ref("2.0.0"), asking("a story")))


async def test_a_version_that_cannot_be_answered_for_in_every_way_is_not_in_any(
    monkeypatch: pytest.MonkeyPatch,
):
    bus = FakeBus()

    async def away(subject: str, handler: object):
        raise LogUnavailable("not connected")

    monkeypatch.setattr(bus, "listen", away)
    residency = Residency(budget_bytes=10, create=lambda _: Storyteller(), pinned=lambda: ())
    local = LocalExecutor(node_id="n1", residency=residency, bus=bus)
    with pytest.raises(LogUnavailable):
        await local.serve(REF)
    assert bus.services == bus.streams == []
