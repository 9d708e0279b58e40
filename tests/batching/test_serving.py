"""Start, stop, restart, and answers as streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.batching import (
    Batch,
    Chunk,
    Closed,
    Drawn,
    ExecutorLost,
    Limits,
    QueueFull,
    Request,
    Scheduler,
    Serving,
)
from tests.batching.fakes import Clock, FakeExecutor, spell


class Served:
    """A scheduler that is served, and its executor."""

    def __init__(self, executor: FakeExecutor | None = None, **limits: int) -> None:
        self.executor = executor or FakeExecutor(blocks=500)
        self.scheduler = Scheduler(self.executor, spell, limits=Limits(**limits), clock=Clock())
        self.serving = Serving(self.scheduler)

    async def answer(self, begin: int = 1, max_tokens: int = 5) -> list[Chunk]:
        with self.serving.answer(Request(prompt=[begin], max_tokens=max_tokens)) as chunks:
            return [chunk async for chunk in chunks]

    def begun(self, begin: int, max_tokens: int) -> asyncio.Task[list[Chunk]]:
        return asyncio.create_task(self.answer(begin, max_tokens))

    async def computing(self, steps: int) -> None:
        """Until so many steps more are under way."""
        reached = asyncio.Event()
        left = iter(range(steps - 1))
        self.executor.during = lambda _batch: next(left, None) is None and reached.set()
        await reached.wait()

    async def draining(self) -> asyncio.Task[None]:
        """A drain that has begun."""
        task = asyncio.create_task(self.serving.stop("drain"))
        await asyncio.sleep(0)
        assert not self.serving.accepting
        return task


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    await served.serving.start()
    yield served
    await served.serving.stop("abort")


async def test_requests_one_after_another_are_answered(served: Served) -> None:  # B02
    for begin in (1, 10, 20):
        assert [chunk.token for chunk in await served.answer(begin)] == [
            *range(begin + 1, begin + 6)
        ]


async def test_concurrent_streams_come_in_order_each_with_its_own_answer(  # B03, B21
    served: Served,
) -> None:
    answers = await asyncio.gather(*(served.answer(10 * i + 1, 9) for i in range(20)))
    for index, chunks in enumerate(answers):
        assert [chunk.token for chunk in chunks] == [*range(10 * index + 2, 10 * index + 11)]
        assert [chunk.ending for chunk in chunks] == [None] * 8 + ["length"]


async def test_who_leaves_a_stream_early_cancels_it_and_frees_its_blocks(served: Served) -> None:
    with served.serving.answer(Request(prompt=[1] * 9, max_tokens=400)) as chunks:
        async for chunk in chunks:
            assert chunk.token == 2
            break
        assert served.scheduler.statistics().kv_blocks_used == 3
    statistics = served.scheduler.statistics()
    assert (statistics.kv_blocks_used, statistics.requests_ended) == (0, {"cancelled": 1})


async def test_a_task_that_is_cancelled_cancels_its_request(served: Served) -> None:
    task = served.begun(1, 400)
    await served.computing(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not served.scheduler.busy


async def test_a_refusal_is_raised_at_once() -> None:
    served = Served(waiting_max=0)
    await served.serving.start()
    with pytest.raises(QueueFull), served.serving.answer(Request(prompt=[1], max_tokens=1)):
        pass
    await served.serving.stop("drain")


async def test_nothing_is_taken_in_before_start_and_after_stop() -> None:  # B20
    served = Served()
    with pytest.raises(Closed):
        await served.answer()
    await served.serving.start()
    assert served.serving.accepting
    await served.serving.stop("drain")
    with pytest.raises(Closed):
        await served.answer()


async def test_a_drain_finishes_what_is_in_flight_and_takes_nothing_in(served: Served) -> None:
    inside = served.begun(1, 50)
    await served.computing(2)
    stopping = await served.draining()
    with pytest.raises(Closed):
        await served.answer()
    await stopping
    assert len(await inside) == 50


async def test_an_abort_ends_what_is_in_flight(served: Served) -> None:
    inside = served.begun(1, 400)
    await served.computing(2)
    await served.serving.stop("abort")
    chunks = await inside
    assert chunks[-1].ending == "aborted"
    assert len(chunks) < 400
    assert not served.scheduler.busy


async def test_an_abort_cuts_a_drain_short(served: Served) -> None:
    inside = served.begun(1, 400)
    await served.computing(2)
    draining = await served.draining()
    await served.serving.stop("abort")
    await draining
    assert (await inside)[-1].ending == "aborted"


async def test_stopping_and_starting_twice_do_what_once_does(served: Served) -> None:
    await served.serving.start()
    await served.serving.start()
    assert len(await served.answer()) == 5
    assert served.scheduler.statistics().steps == 5
    await served.serving.stop("drain")
    await served.serving.stop("drain")
    await served.serving.stop("abort")


async def test_what_was_stopped_can_be_started_again(served: Served) -> None:
    for _ in range(3):
        assert len(await served.answer()) == 5
        await served.serving.stop("abort")
        await served.serving.start()


async def test_a_start_during_a_drain_waits_for_its_end(served: Served) -> None:
    inside = served.begun(1, 50)
    await served.computing(2)
    draining = await served.draining()
    await served.serving.start()
    assert len(await inside) == 50
    await draining
    assert len(await served.answer()) == 5


async def test_a_stop_that_never_started_returns() -> None:
    await Served().serving.stop("drain")
    await Served().serving.stop("abort")


class Mortal(FakeExecutor):
    def execute(self, batch: Batch) -> Drawn:
        if len(self.batches) == 3:
            raise ExecutorLost("killed")
        return super().execute(batch)


async def test_a_lost_executor_fails_streams_and_is_told_to_who_waits_for_it() -> None:
    served = Served(Mortal())
    await served.serving.start()
    chunks = await served.answer(1, 50)
    assert (chunks[-1].ending, chunks[-1].detail) == ("failed", "killed")
    assert await served.serving.failed() == "killed"
    with pytest.raises(Closed):
        await served.answer()
    await served.serving.stop("drain")
    with pytest.raises(Closed):
        await served.serving.start()


async def test_a_scheduler_that_breaks_leaves_no_stream_hanging() -> None:
    served = Served()
    await served.serving.start()

    def broken() -> list[Chunk]:
        raise RuntimeError("a fault of ours")

    inside = served.begun(1, 400)
    await served.computing(2)
    served.scheduler.step = broken  # type: ignore[method-assign]
    assert (await inside)[-1].ending == "failed"
    assert await served.serving.failed() == "the scheduler broke"
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await served.serving.stop("abort")
