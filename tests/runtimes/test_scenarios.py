"""Several versions at once on one node, in real processes: M06 and M09 without their network."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil
import pytest

from engine.runtimes import (
    LoadFailed,
    NotResident,
    Residency,
    RuntimeFailed,
    RuntimeSettings,
    UnloadReason,
    create_runtime,
)
from events.catalogue.models import VersionRegistered
from events.catalogue.nodes import VersionRef
from tests.runtimes.conftest import MakeVersion

MB = 2**20
SOURCE = """
    import os

    class Model:
        def __init__(self):
            self.kept = b"1" * ({mb} * 2**20)
        def predict(self, inputs, parameters):
            if inputs == "die":
                os._exit(1)
            return ["{name}", inputs, os.getpid()]

    def make(directory):
        return Model()
"""


def ref(name: str) -> VersionRef:
    return VersionRef("acme", "chat", name)


class Node:
    def __init__(self, settings: RuntimeSettings, budget_mb: int) -> None:
        self.pinned: set[VersionRef] = set()
        self.told: asyncio.Queue[tuple[str, UnloadReason]] = asyncio.Queue()
        self.residency = Residency(
            budget_bytes=budget_mb * MB,
            create=lambda registered: create_runtime(registered, settings),
            pinned=lambda: self.pinned,
        )
        self.residency.on_unloaded = self._on_unloaded

    async def _on_unloaded(self, ref: VersionRef, reason: UnloadReason) -> None:
        self.told.put_nowait((ref.version, reason))

    async def load(self, registered: VersionRegistered) -> int:
        loaded = await self.residency.ensure(ref(registered.version), registered)
        assert loaded.load_ms > 0
        return loaded.memory_bytes

    async def infer(self, name: str, inputs: Any) -> Any:
        async with self.residency.lease(ref(name)) as runtime:
            return await runtime.infer(inputs, {})


@pytest.fixture
def version(python_version: MakeVersion) -> MakeVersion:
    """A python version that keeps so many MB and answers as itself."""

    def make(name: str, mb: int) -> VersionRegistered:
        registered = python_version(SOURCE.format(mb=mb, name=name), name=name)
        return VersionRegistered(
            version=name, runtime="python", config=registered.config, artifact=registered.artifact
        )

    return make


async def test_m06_versions_answer_as_themselves_and_one_leaves_the_others_alone(
    settings: RuntimeSettings, version: MakeVersion
) -> None:
    node = Node(settings, budget_mb=1_000)
    names = ["a", "b", "c"]
    sizes = await asyncio.gather(*(node.load(version(name, 20)) for name in names))
    assert node.residency.used_bytes == sum(sizes)
    asked = [(name, i) for i in range(100) for name in names]
    answers = await asyncio.gather(*(node.infer(name, i) for name, i in asked))
    assert [(name, i) for name, i, _ in answers] == asked
    pids = {name: pid for name, _, pid in answers}
    assert len(set(pids.values())) == 3

    await node.residency.unload(ref("b"), reason="requested")
    assert not psutil.pid_exists(pids["b"])
    with pytest.raises(NotResident):
        await node.infer("b", 0)
    assert await node.infer("a", 1) == ["a", 1, pids["a"]]
    assert await node.infer("c", 1) == ["c", 1, pids["c"]]
    assert node.residency.used_bytes == sizes[0] + sizes[2]
    await node.residency.close()


async def test_m06_a_crash_of_one_version_leaves_the_others_alone(
    settings: RuntimeSettings, version: MakeVersion
) -> None:
    node = Node(settings, budget_mb=1_000)
    for name in ("a", "b"):
        await node.load(version(name, 1))
    with pytest.raises(RuntimeFailed):
        await node.infer("a", "die")
    assert await node.told.get() == ("a", "crashed")
    assert (await node.infer("b", 1))[0] == "b"
    assert list(node.residency.resident) == [ref("b")]
    await node.residency.close()


@pytest.mark.slow
async def test_m09_memory_is_measured_limited_evicted_and_freed(
    settings: RuntimeSettings, version: MakeVersion
) -> None:
    node = Node(settings, budget_mb=300)
    first = await node.load(version("a", 80))
    assert 80 * MB < first < 110 * MB
    await node.load(version("b", 80))
    pids = {name: (await node.infer(name, 0))[2] for name in ("a", "b")}
    node.pinned = {ref("a")}

    await node.load(version("c", 120))
    assert await node.told.get() == ("b", "evicted")
    assert not psutil.pid_exists(pids["b"])
    assert (await node.infer("a", 0))[2] == pids["a"]

    node.pinned = {ref("a"), ref("c")}
    before = dict(node.residency.resident)
    with pytest.raises(LoadFailed) as caught:
        await node.load(version("d", 120))
    assert caught.value.reason == "memory"
    assert node.residency.resident.keys() == before.keys()
    assert node.residency.used_bytes <= node.residency.budget_bytes

    await node.residency.close()
    assert node.residency.used_bytes == 0
    assert not psutil.pid_exists(pids["a"])


@pytest.mark.slow
async def test_m09_growth_after_loading_is_found_by_measuring_again(
    settings: RuntimeSettings, python_version: MakeVersion
) -> None:
    source = """
        kept = []
        def make(directory):
            return lambda inputs, parameters: kept.append(b"1" * (inputs * 2**20))
    """
    node = Node(settings, budget_mb=250)
    for name in ("a", "b"):
        registered = python_version(source, name=name)
        await node.residency.ensure(ref(name), registered)
    await node.infer("b", 230)
    await node.residency.settle()
    assert await node.told.get() == ("a", "evicted")
    assert list(node.residency.resident) == [ref("b")]
    assert node.residency.used_bytes > 230 * MB
    await node.residency.close()
