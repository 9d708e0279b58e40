"""The recorded histories of rollouts that are judged by traffic, windows and all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from events.catalogue.endpoints import Analysis, Step
from tests.logs.recorder import begin
from tests.logs.traffic import Scene, TrafficRecorder

JudgedHistory: TypeAlias = Callable[[TrafficRecorder], Awaitable[None]]

STEPS: Final = (
    Step(weight=10.0, hold_s=15.0, min_samples=40),
    Step(weight=50.0, hold_s=12.0, min_samples=40),
    Step(weight=100.0, hold_s=10.0),
)
_LIGHT: Final = {"1.0.0": 0.01, "2.0.0": 0.01}


async def judged_completed(record: TrafficRecorder) -> None:
    """A candidate as good as the baseline takes every step; the traffic goes on for a while."""
    await served(record)
    await record.start_rollout("canary-1", "2.0.0", *STEPS, analysis=Analysis(margin=0.2))
    await record.serve(Scene(failing=_LIGHT), seconds=60)


async def judged_rolled_back(record: TrafficRecorder) -> None:
    """A candidate that fails one request in four is found out and rolled back."""
    await served(record)
    await record.start_rollout("canary-1", "2.0.0", *STEPS, analysis=Analysis(margin=0.2))
    await record.serve(Scene(failing={"1.0.0": 0.01, "2.0.0": 0.25}), seconds=45)


async def judged_held(record: TrafficRecorder) -> None:
    """Too few requests to know: the first step is held until the log ends."""
    await served(record)
    await record.start_rollout("canary-1", "2.0.0", *STEPS)
    await record.serve(Scene(requests_per_s=4, failing=_LIGHT), seconds=50)


async def judged_sample_ratio(record: TrafficRecorder) -> None:
    """The candidate gets three times its share: no verdict can be trusted, so nothing passes."""
    await served(record)
    await record.start_rollout("canary-1", "2.0.0", *STEPS, analysis=Analysis(margin=0.2))
    await record.serve(Scene(failing=_LIGHT, leaning=3.0), seconds=40)


async def judged_patiently(record: TrafficRecorder) -> None:
    """A patient policy finds a candidate that is a little worse, within its first, long step."""
    await served(record)
    steps = (Step(weight=10.0, hold_s=600.0, min_samples=2_000), *STEPS[1:])
    await record.start_rollout("canary-1", "2.0.0", *steps)
    scene = Scene(requests_per_s=30, failing={"1.0.0": 0.02, "2.0.0": 0.05})
    await record.serve(scene, seconds=110)


HISTORIES: Final[Mapping[str, JudgedHistory]] = {
    "judged-completed": judged_completed,
    "judged-rolled-back": judged_rolled_back,
    "judged-held": judged_held,
    "judged-sample-ratio": judged_sample_ratio,
    "judged-patiently": judged_patiently,
}
"""File name -> history."""


async def served(record: TrafficRecorder) -> None:
    """1.0.0 takes all traffic of the endpoint, and 2.0.0 is resident beside it."""
    await begin(record)
    await record.register("2.0.0")
    await record.load("node-1", "1.0.0", "2.0.0")
    await record.create("1.0.0")
