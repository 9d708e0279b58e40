"""Residency: one load for all who ask, leases, drains, eviction, and what cannot fit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from engine.runtimes import LoadFailed, NotResident, Residency, Runtime, UnloadReason
from events.catalogue.models import VersionRegistered
from events.catalogue.nodes import VersionRef

MB = 2**20


def ref(name: str) -> VersionRef:
    return VersionRef("acme", "chat", name)


class Scripted:
    """A runtime that loads when told to and measures as told to. Residency sees only the port; real
    runtimes stand under it in test_scenarios.py."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.may_load = asyncio.Event()
        self.load_error: LoadFailed | None = None
        self.crash: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.loads = 0
        self.closed = False
        self.gone = asyncio.Event()

    async def load(self) -> None:
        self.loads += 1
        await self.may_load.wait()
        if self.load_error is not None:
            raise self.load_error

    async def warm(self) -> None:
        pass

    async def infer(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        return inputs

    async def memory_bytes(self) -> int:
        return 0 if self.closed else self.size_bytes

    async def failed(self) -> str:
        return await asyncio.shield(self.crash)

    async def close(self) -> None:
        self.closed = True
        self.gone.set()


class Node:
    """A residency over scripted runtimes, and what it told."""

    def __init__(self, budget_mb: int, **options: Any) -> None:
        self.pinned: set[VersionRef] = set()
        self.runtimes: dict[str, Scripted] = {}
        self.told: list[tuple[str, UnloadReason]] = []
        self.created = asyncio.Event()
        self.gone = asyncio.Event()
        self.residency = Residency(
            budget_bytes=budget_mb * MB,
            create=self._create,
            pinned=lambda: self.pinned,
            **options,
        )
        self.residency.on_unloaded = self._on_unloaded
        self.ready = True
        self.sizes: dict[str, int] = {}

    def _create(self, registered: VersionRegistered) -> Runtime:
        size_mb = self.sizes.get(registered.version, (registered.memory_bytes or 0) // MB)
        runtime = self.runtimes[registered.version] = Scripted(size_mb * MB)
        if self.ready:
            runtime.may_load.set()
        self.created.set()
        return runtime

    async def _on_unloaded(self, ref: VersionRef, reason: UnloadReason) -> None:
        self.told.append((ref.version, reason))
        self.gone.set()

    async def load(self, name: str, declared_mb: int | None = None) -> int:
        memory_bytes = None if declared_mb is None else declared_mb * MB
        registered = VersionRegistered(version=name, runtime="echo", memory_bytes=memory_bytes)
        return (await self.residency.ensure(ref(name), registered)).memory_bytes // MB

    @property
    def resident(self) -> list[str]:
        return [ref.version for ref in self.residency.resident]


# -------------------------------------------------------------------------------------- Loading


async def test_a_loaded_version_takes_requests() -> None:
    node = Node(100)
    assert await node.load("a", 30) == 30
    async with node.residency.lease(ref("a")) as runtime:
        assert await runtime.infer(5, {}) == 5
    assert node.residency.resident == {ref("a"): 30 * MB}
    assert node.residency.used_bytes == 30 * MB


async def test_a_version_that_is_not_loaded_takes_none() -> None:
    node = Node(100)
    with pytest.raises(NotResident):
        async with node.residency.lease(ref("a")):
            pass


async def test_a_version_takes_no_request_before_it_is_ready() -> None:
    node = Node(100)
    node.ready = False
    loading = asyncio.create_task(node.load("a", 30))
    await asyncio.sleep(0)
    with pytest.raises(NotResident):
        async with node.residency.lease(ref("a")):
            pass
    loading.cancel()
    await node.residency.close()


async def test_everyone_who_asks_meanwhile_gets_the_same_load() -> None:
    node = Node(100)
    answers = await asyncio.gather(*(node.load("a", 30) for _ in range(10)))
    assert answers == [30] * 10
    assert node.runtimes["a"].loads == 1


async def test_a_caller_that_goes_away_leaves_the_load_to_the_others() -> None:
    node = Node(100)
    node.ready = False
    gone, stays = (asyncio.create_task(node.load("a", 30)) for _ in range(2))
    await node.created.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    node.runtimes["a"].may_load.set()
    assert await stays == 30


async def test_a_failed_load_is_told_to_all_and_leaves_nothing() -> None:
    node = Node(100)
    node.ready = False
    loads = [asyncio.create_task(node.load("a", 30)) for _ in range(3)]
    await node.created.wait()
    node.runtimes["a"].load_error = LoadFailed("digest", "differs")
    node.runtimes["a"].may_load.set()
    errors = await asyncio.gather(*loads, return_exceptions=True)
    assert [error.reason for error in errors if isinstance(error, LoadFailed)] == ["digest"] * 3
    assert node.runtimes["a"].closed
    assert node.residency.used_bytes == 0
    node.ready = True
    assert await node.load("a", 100) == 100


async def test_a_version_that_never_becomes_ready_times_out() -> None:
    node = Node(100, load_seconds=0.01)
    node.ready = False
    with pytest.raises(LoadFailed) as caught:
        await node.load("a", 30)
    assert caught.value.reason == "timeout"
    assert node.runtimes["a"].closed


async def test_unloading_ends_a_load_under_way() -> None:
    node = Node(100)
    node.ready = False
    loading = asyncio.create_task(node.load("a", 30))
    await node.created.wait()
    await node.residency.unload(ref("a"), reason="requested")
    with pytest.raises(LoadFailed, match="before it was ready"):
        await loading
    assert node.runtimes["a"].closed
    assert node.told == []


# ------------------------------------------------------------------------------------ Unloading


async def test_unloading_waits_for_requests_and_takes_no_new_one() -> None:
    node = Node(100)
    await node.load("a", 30)
    async with node.residency.lease(ref("a")):
        unloading = asyncio.create_task(node.residency.unload(ref("a"), reason="retired"))
        await node.gone.wait()
        with pytest.raises(NotResident):
            async with node.residency.lease(ref("a")):
                pass
        assert not node.runtimes["a"].closed
        assert node.residency.used_bytes == 30 * MB
    await unloading
    assert node.runtimes["a"].closed
    assert node.residency.used_bytes == 0
    assert node.told == [("a", "retired")]


async def test_requests_that_do_not_end_are_cut_off() -> None:
    node = Node(100, drain_seconds=0.01)
    await node.load("a", 30)
    async with node.residency.lease(ref("a")):
        await node.residency.unload(ref("a"), reason="retired")
        assert node.runtimes["a"].closed


async def test_unloading_what_is_not_here_does_nothing() -> None:
    node = Node(100)
    await node.residency.unload(ref("a"), reason="retired")
    assert node.told == []


async def test_loading_again_waits_for_the_unload() -> None:
    node = Node(100)
    await node.load("a", 80)
    old = node.runtimes["a"]
    async with node.residency.lease(ref("a")):
        unloading = asyncio.create_task(node.residency.unload(ref("a"), reason="requested"))
        await node.gone.wait()
        loading = asyncio.create_task(node.load("a", 80))
        await asyncio.sleep(0)
        assert node.runtimes["a"] is old
    await asyncio.gather(unloading, loading)
    assert old.closed
    assert node.resident == ["a"]


async def test_a_crash_is_told_and_leaves_nothing() -> None:
    node = Node(100)
    await node.load("a", 30)
    node.runtimes["a"].crash.set_result("signal 11")
    await node.gone.wait()
    assert node.told == [("a", "crashed")]
    assert node.resident == []
    assert await node.load("a", 30) == 30


async def test_who_cannot_be_told_does_not_keep_the_version() -> None:
    node = Node(100)
    await node.load("a", 80)

    async def fail(_ref: VersionRef, _reason: UnloadReason) -> None:
        raise ConnectionError("the log is away")

    node.residency.on_unloaded = fail
    assert await node.load("b", 80) == 80
    assert node.resident == ["b"]


async def test_closing_unloads_everything_without_telling() -> None:
    node = Node(100)
    await node.load("a", 30)
    await node.load("b", 30)
    await node.residency.close()
    assert node.residency.used_bytes == 0
    assert all(runtime.closed for runtime in node.runtimes.values())
    assert node.told == []


# ------------------------------------------------------------------------------------- Eviction


async def test_the_least_recently_used_goes_first() -> None:
    node = Node(100)
    for name in ("a", "b", "c"):
        await node.load(name, 30)
    async with node.residency.lease(ref("a")):
        pass
    await node.load("b", 30)
    assert node.resident == ["c", "a", "b"]
    await node.load("d", 40)
    assert node.told == [("c", "evicted")]
    assert node.resident == ["a", "b", "d"]


async def test_pinned_and_leased_versions_stay() -> None:
    node = Node(100)
    for name in ("a", "b", "c"):
        await node.load(name, 30)
    node.pinned = {ref("a")}
    async with node.residency.lease(ref("b")):
        await node.load("d", 30)
        assert node.told == [("c", "evicted")]
        with pytest.raises(LoadFailed) as caught:
            await node.load("e", 60)
        assert caught.value.reason == "memory"
        assert "a" in node.resident
        assert "b" in node.resident


async def test_what_can_never_fit_is_refused_and_evicts_nothing() -> None:
    node = Node(100)
    await node.load("a", 30)
    with pytest.raises(LoadFailed) as caught:
        await node.load("b", 101)
    assert caught.value.reason == "memory"
    assert node.resident == ["a"]
    assert "b" not in node.runtimes


async def test_room_is_made_before_loading_by_the_declared_size() -> None:
    node = Node(100)
    await node.load("a", 60)
    node.ready = False
    node.created.clear()
    loading = asyncio.create_task(node.load("b", 60))
    await node.created.wait()
    assert node.runtimes["a"].closed
    node.runtimes["b"].may_load.set()
    assert await loading == 60


async def test_room_is_made_after_loading_by_the_measured_size() -> None:
    node = Node(100)
    await node.load("a", 60)
    node.sizes["b"] = 60
    assert await node.load("b", 10) == 60
    assert node.told == [("a", "evicted")]


async def test_a_newcomer_larger_than_there_is_room_for_is_unloaded_itself() -> None:
    node = Node(100)
    await node.load("a", 60)
    node.pinned = {ref("a"), ref("b")}
    node.sizes["b"] = 60
    with pytest.raises(LoadFailed) as caught:
        await node.load("b")
    assert caught.value.reason == "memory"
    assert node.runtimes["b"].closed
    assert node.resident == ["a"]
    assert node.told == []


async def test_loads_at_the_same_time_reserve_their_room() -> None:
    node = Node(100)
    node.ready = False
    first = asyncio.create_task(node.load("a", 60))
    await node.created.wait()
    with pytest.raises(LoadFailed) as caught:
        await node.load("b", 60)
    assert caught.value.reason == "memory"
    node.runtimes["a"].may_load.set()
    assert await first == 60
    assert node.resident == ["a"]


async def test_a_load_waits_for_versions_on_their_way_out() -> None:
    node = Node(100)
    await node.load("a", 80)
    async with node.residency.lease(ref("a")):
        unloading = asyncio.create_task(node.residency.unload(ref("a"), reason="requested"))
        await node.gone.wait()
        loading = asyncio.create_task(node.load("b", 80))
        for _ in range(20):  # more turns of the loop than a load that does not wait would need
            await asyncio.sleep(0)
        assert "b" not in node.runtimes
    assert await loading == 80
    await unloading


async def test_settling_evicts_for_versions_that_have_grown() -> None:
    node = Node(100)
    for name in ("a", "b", "c"):
        await node.load(name, 30)
    node.runtimes["c"].size_bytes = 60 * MB
    await node.residency.settle()
    assert node.resident == ["b", "c"]
    assert node.residency.used_bytes == 90 * MB
