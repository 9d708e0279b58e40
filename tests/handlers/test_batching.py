"""Statistics of schedulers: asked of versions, of nodes, over the bus, and by who scrapes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry, generate_latest

from engine.batching import Statistics
from engine.runtimes import RuntimeFailed
from events import LogUnavailable
from events.jetstream import JetStream
from handlers import batching, worker
from handlers.batching import Batchings, NodeSilent, NodeUnknown, batching_subject
from handlers.batching_metrics import BatchingMetrics
from handlers.worker import NodeWorker
from tests.batching.fakes import World as Scheduled
from tests.handlers.nodes import FakeRuntime, Stage, a_worker, joined
from tests.handlers.world import World, eventually, ref, running, turns


class BatchingRuntime(FakeRuntime):
    """A version with a scheduler."""

    def __init__(self, stage: Stage, version: str) -> None:
        super().__init__(stage, version)
        self.scheduled = Scheduled(batch_max=2)
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.error: Exception | None = None

    async def statistics(self) -> Statistics:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return self.scheduled.scheduler.statistics()

    def work(self) -> None:
        """Three requests of four tokens, two at a time, a second for each step."""
        for index in range(3):
            self.scheduled.submit([index + 1], 4)
        self.scheduled.run()


@pytest.fixture
def batches(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> dict[str, BatchingRuntime]:
    """Versions below 3.0.0 compute in batches; those that were loaded."""
    made: dict[str, BatchingRuntime] = {}

    def create(registered: Any, settings: Any) -> FakeRuntime:
        if registered.version == "3.0.0":
            return stage.create(registered, settings)
        made[registered.version] = BatchingRuntime(stage, registered.version)
        return made[registered.version]

    monkeypatch.setattr(worker, "create_runtime", create)
    return made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "STATISTICS_SECONDS", 0.02)


@asynccontextmanager
async def a_node(world: World) -> AsyncIterator[NodeWorker]:
    """Which holds all three versions."""
    made = a_worker(world)
    async with running(made.run()):
        await joined(world)
        for version in ("1.0.0", "2.0.0", "3.0.0"):
            await made._loader.load(ref(version))
        yield made


@pytest_asyncio.fixture
async def standing(staged: World, batches: dict[str, BatchingRuntime]) -> AsyncIterator[NodeWorker]:
    async with a_node(staged) as made:
        yield made


# ---- of one node


async def test_versions_that_compute_in_batches_tell_and_others_are_not_asked(
    standing: NodeWorker, batches: dict[str, BatchingRuntime]
):
    batches["2.0.0"].work()
    told = await standing.batching()
    assert [each.version for each in told.versions] == [ref("1.0.0"), ref("2.0.0")]
    assert [each.statistics.requests_ended for each in told.versions] == [{}, {"length": 3}]
    assert told.unanswered == ()


async def test_a_version_that_hangs_or_fails_keeps_no_other_from_telling(
    standing: NodeWorker, batches: dict[str, BatchingRuntime], impatient: None
):
    batches["1.0.0"].answers.clear()
    told = await standing.batching()
    assert [each.version for each in told.versions] == [ref("2.0.0")]
    assert told.unanswered == (ref("1.0.0"),)
    batches["1.0.0"].answers.set()
    batches["2.0.0"].error = RuntimeFailed("its process has ended")
    told = await standing.batching()
    assert [each.version for each in told.versions] == [ref("1.0.0")]
    assert told.unanswered == (ref("2.0.0"),)


async def test_asking_is_no_use_of_a_version_which_goes_when_it_would_have_gone(
    standing: NodeWorker,
):
    before = list(standing._residency.resident)
    await standing.batching()
    assert list(standing._residency.resident) == before


async def test_a_version_on_its_way_out_still_tells_of_what_it_finishes(
    standing: NodeWorker, batches: dict[str, BatchingRuntime]
):
    async with standing._residency.lease(ref("1.0.0")):
        leaving = asyncio.create_task(standing._residency.unload(ref("1.0.0"), "requested"))
        await eventually(lambda: ref("1.0.0") not in standing._residency.resident)
        told = await standing.batching()
        assert ref("1.0.0") in [each.version for each in told.versions]
    await leaving
    assert [each.version for each in (await standing.batching()).versions] == [ref("2.0.0")]


# ---- over the bus


async def test_any_gateway_can_ask_any_node_over_a_real_bus(
    staged: World, batches: dict[str, BatchingRuntime], nats_url: str
):
    async with (
        JetStream.connect(nats_url, lease_ttl_s=5.0) as near,
        JetStream.connect(nats_url, lease_ttl_s=5.0) as remote,
    ):
        staged.bus = near.bus  # type: ignore[assignment]
        asker = Batchings(routing=staged.routing, bus=remote.bus, here=None)
        async with a_node(staged) as standing:
            batches["1.0.0"].work()
            assert await asker.of("n1") == await standing.batching()
            assert (await asker.of("n1")).versions[0].statistics.generation_tokens == 12
        with pytest.raises(NodeSilent):
            await asker.of("n1")


async def test_the_own_node_is_asked_without_the_bus(staged: World, standing: NodeWorker):
    asker = Batchings(routing=staged.routing, bus=staged.bus, here=standing)
    staged.bus.away = True
    told = await asker.of("n1")
    staged.bus.away = False
    assert len(told.versions) == 2
    assert batching_subject("n1") not in staged.bus.requests


async def test_a_node_that_never_joined_is_unknown_and_one_that_left_or_is_cut_off_is_silent(
    staged: World,
):
    asker = Batchings(routing=staged.routing, bus=staged.bus, here=None)
    with pytest.raises(NodeUnknown) as unknown:
        await asker.of("n1")
    assert unknown.value.code == "not_found"
    async with running(a_worker(staged).run()):
        await staged.until(lambda: "n1" in staged.routing.nodes)
        await asker.of("n1")
        staged.bus.away = True
        with pytest.raises(NodeSilent) as silent:
            await asker.of("n1")
        staged.bus.away = False
    assert silent.value.code == "unavailable"
    assert isinstance(silent.value.__cause__, LogUnavailable)
    with pytest.raises(NodeSilent):
        await asker.of("n1")


# ---- for who scrapes


def samples(metrics: BatchingMetrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {sample: float(value) for sample, value in pairs}


ONE = 'model="fraud",tenant="acme",version="1.0.0"'


async def test_each_version_is_told_with_its_labels(
    standing: NodeWorker, batches: dict[str, BatchingRuntime]
):
    metrics = BatchingMetrics(standing)
    batches["1.0.0"].work()
    batches["1.0.0"].scheduled.submit([9], 4)
    await metrics.refresh()
    told = samples(metrics)
    expected = {
        f"switchback_num_requests_waiting{{{ONE}}}": 1,
        f"switchback_num_requests_running{{{ONE}}}": 0,
        f"switchback_batch_size_max{{{ONE}}}": 2,
        f"switchback_batch_max{{{ONE}}}": 2,
        f"switchback_generation_tokens_total{{{ONE}}}": 12,
        f"switchback_batching_steps_total{{{ONE}}}": 8,
        f"switchback_batching_step_requests_total{{{ONE}}}": 12,
        'switchback_requests_ended_total{model="fraud",reason="length",tenant="acme",'
        'version="1.0.0"}': 3,
        f"switchback_batching_request_seconds_count{{{ONE}}}": 3,
        f"switchback_batching_request_seconds_sum{{{ONE}}}": 4 + 4 + 8,
        "switchback_batching_unanswered_total": 0,
    }
    assert {name: told[name] for name in expected} == expected
    slowest = f'switchback_batching_request_seconds{{model="fraud",quantile="0.5",{ONE[14:]}}}'
    assert told[slowest] == pytest.approx(4, rel=0.02)
    others = {name for name in told if "version=" not in name}
    assert others == {"switchback_batching_unanswered_total"}


async def test_a_version_that_does_not_answer_is_left_out_and_counted(
    standing: NodeWorker, batches: dict[str, BatchingRuntime], impatient: None
):
    metrics = BatchingMetrics(standing)
    batches["1.0.0"].answers.clear()
    for _ in range(2):
        await metrics.refresh()
    told = samples(metrics)
    assert not any('version="1.0.0"' in name for name in told)
    assert any('version="2.0.0"' in name for name in told)
    assert told["switchback_batching_unanswered_total"] == 2


async def test_scrapes_at_the_same_time_ask_once_and_one_that_gives_up_spoils_no_other(
    standing: NodeWorker, batches: dict[str, BatchingRuntime]
):
    metrics = BatchingMetrics(standing)
    batches["1.0.0"].answers.clear()
    scrapes = [asyncio.create_task(metrics.refresh()) for _ in range(3)]
    await turns()
    scrapes[0].cancel()
    await turns()
    batches["1.0.0"].answers.set()
    await asyncio.gather(*scrapes[1:])
    assert scrapes[0].cancelled()
    assert batches["1.0.0"].asked == 1
    assert f"switchback_batch_max{{{ONE}}}" in samples(metrics)


async def test_a_version_that_was_unloaded_is_not_told_any_more(
    standing: NodeWorker, batches: dict[str, BatchingRuntime]
):
    metrics = BatchingMetrics(standing)
    await metrics.refresh()
    assert any('version="1.0.0"' in name for name in samples(metrics))
    await standing._residency.unload(ref("1.0.0"), "requested")
    await metrics.refresh()
    assert not any('version="1.0.0"' in name for name in samples(metrics))


async def test_without_a_node_there_is_nothing_to_tell():
    metrics = BatchingMetrics(None)
    await metrics.refresh()
    assert samples(metrics) == {"switchback_batching_unanswered_total": 0}
