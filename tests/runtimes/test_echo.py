"""The runtime for rehearsals, and how runtimes are made from registrations."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.runtimes import (
    LoadFailed,
    Runtime,
    RuntimeFailed,
    RuntimeSettings,
    available_runtimes,
    create_runtime,
)
from events.catalogue.models import Artifact, VersionRegistered

SETTINGS = RuntimeSettings()


def echo(**config: Any) -> Runtime:
    registered = VersionRegistered(version="1.0.0", runtime="echo", config=config)
    return create_runtime(registered, SETTINGS)


async def fates(runtime: Runtime, count: int = 200) -> list[bool]:
    """For each request, whether it was answered."""
    answers = await asyncio.gather(
        *(runtime.infer(i, {}) for i in range(count)), return_exceptions=True
    )
    return [not isinstance(answer, RuntimeFailed) for answer in answers]


async def test_it_answers_with_its_answer_and_the_inputs() -> None:
    runtime = echo(answer={"label": "cat"}, latency_ms=1, jitter_ms=1)
    await runtime.load()
    await runtime.warm()
    outputs = await runtime.infer([1, 2], {})
    assert outputs == {"answer": {"label": "cat"}, "inputs": [1, 2]}


async def test_the_same_seed_has_the_same_fate() -> None:
    one, again, other = [await fates(echo(error_rate=0.5, seed=seed)) for seed in (1, 1, 2)]
    assert one == again != other
    assert 60 < sum(one) < 140


async def test_latency_settings_do_not_shift_the_failures() -> None:
    assert await fates(echo(error_rate=0.5)) == await fates(echo(error_rate=0.5, jitter_ms=1))


async def test_error_rates_of_zero_and_one_are_certain() -> None:
    assert all(await fates(echo()))
    assert not any(await fates(echo(error_rate=1)))


async def test_it_fails_to_load_when_told_to() -> None:
    with pytest.raises(LoadFailed, match="no such weights") as caught:
        await echo(load_error="no such weights", load_ms=1).load()
    assert caught.value.reason == "runtime"


async def test_it_can_be_slow_beyond_every_time_out() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(echo(load_ms=3_600_000).load(), 0.01)


async def test_its_ballast_is_its_memory_until_it_is_closed() -> None:
    runtime = echo(ballast_bytes=10_000_000)
    await runtime.load()
    assert 10_000_000 <= await runtime.memory_bytes() < 10_001_000
    await runtime.close()
    assert await runtime.memory_bytes() < 1_000


async def test_closing_fails_what_is_in_flight() -> None:
    runtime = echo(latency_ms=3_600_000)
    await runtime.load()
    waiting = asyncio.create_task(runtime.infer(1, {}))
    await asyncio.sleep(0)
    await runtime.close()
    with pytest.raises(RuntimeFailed, match="closed"):
        await waiting
    with pytest.raises(RuntimeFailed, match="closed"):
        await runtime.infer(1, {})


@pytest.mark.parametrize(
    "config",
    [
        {"latency_ms": -1},
        {"error_rate": 1.1},
        {"error_rate": "0.5"},
        {"ballast_bytes": 2**40},
        {"unknown": 1},
    ],
)
def test_a_config_out_of_bounds_does_not_load(config: dict[str, Any]) -> None:
    with pytest.raises(LoadFailed, match="config: ") as caught:
        echo(**config)
    assert caught.value.reason == "runtime"


# ---------------------------------------------------------------------------------- Registry

ARTIFACT = Artifact(uri="file:///srv/x", sha256="0" * 64, size_bytes=0)


def test_python_is_there_only_if_enabled() -> None:
    enabled = RuntimeSettings(python_enabled=True, artifact_roots=(Path("/srv"),))
    assert set(available_runtimes(SETTINGS)) == {"echo", "language-model", "upstream"}
    assert set(available_runtimes(enabled)) == {*available_runtimes(SETTINGS), "python"}


@pytest.mark.parametrize("runtime", ["python", "cobol"])
def test_a_runtime_that_is_not_available_does_not_load(runtime: Any) -> None:
    registered = VersionRegistered(version="1.0.0", runtime=runtime, artifact=ARTIFACT)
    with pytest.raises(LoadFailed, match="not available") as caught:
        create_runtime(registered, SETTINGS)
    assert caught.value.reason == "runtime"


@pytest.mark.parametrize(
    "factory", ["model", "model:", ":make", "model:make()", "a/b:c", "m:make\n"]
)
async def test_a_factory_must_be_a_module_and_a_callable(factory: str) -> None:
    registered = VersionRegistered(
        version="1.0.0", runtime="python", config={"factory": factory}, artifact=ARTIFACT
    )
    with pytest.raises(LoadFailed, match="config: "):
        create_runtime(registered, RuntimeSettings(python_enabled=True))


async def test_a_python_version_needs_an_artifact() -> None:
    registered = VersionRegistered(
        version="1.0.0", runtime="python", config={"factory": "model:make"}
    )
    with pytest.raises(LoadFailed) as caught:
        create_runtime(registered, RuntimeSettings(python_enabled=True))
    assert caught.value.reason == "artifact"
