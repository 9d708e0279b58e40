"""Recorded rollouts for what-if: golden ones, random ones, and some written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hypothesis import strategies as st

from engine.decisions import endpoint
from engine.whatif import RecordedRollout, read_recording
from engine.whatif.record import Phase
from events import EntityId, Recorded
from events.catalogue.endpoints import Analysis, Policy, Step
from events.catalogue.traffic import Units, VersionWindow, WindowObserved
from events.recordings import decode_recording
from switchback.replaying import read_traffic_log
from tests.logs.judged import served
from tests.logs.record import DIRECTORY
from tests.logs.traffic import Deed, Scene, TrafficRecorder

GOLDEN: Final = (
    "judged-completed",
    "judged-held",
    "judged-patiently",
    "judged-rolled-back",
    "judged-sample-ratio",
)
BEGIN: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def golden(name: str) -> RecordedRollout:
    """The one rollout of a golden log."""
    (rollout,) = read_recording(read_traffic_log(DIRECTORY / f"{name}.jsonl")).rollouts
    return rollout


def recorded(
    name: str, scene: Scene, *steps: Step, analysis: Analysis, seconds: int = 40
) -> list[Recorded]:
    """The log of a rollout that was judged by made-up traffic. The same name, the same log."""

    async def lines() -> bytes:
        record = TrafficRecorder(name)
        await served(record)
        await record.start_rollout("canary-1", "2.0.0", *steps, analysis=analysis)
        await record.serve(scene, seconds=seconds)
        return await record.lines()

    return list(decode_recording(asyncio.run(lines()).splitlines(), name=name))


def the_rollout(log: Sequence[Recorded]) -> RecordedRollout:
    (rollout,) = read_recording(log).rollouts
    return rollout


# ------------------------------------------------------------------------------------- random ones


def _deed(command: Callable[[TrafficRecorder], Any]) -> Deed:
    async def deed(record: TrafficRecorder) -> None:
        await record.try_endpoint(command(record))

    return deed


_ROLLOUT: Final[dict[str, Any]] = {"rollout_id": "canary-1"}
DEEDS: Final = {
    "pause": _deed(lambda record: endpoint.PauseRollout(**_ROLLOUT, now=record.now)),
    "resume": _deed(lambda record: endpoint.ResumeRollout(**_ROLLOUT, now=record.now)),
    "promote": _deed(
        lambda record: endpoint.PromoteRollout(
            **_ROLLOUT, to="next", now=record.now, resident=record.resident
        )
    ),
    "promote fully": _deed(
        lambda record: endpoint.PromoteRollout(
            **_ROLLOUT, to="full", now=record.now, resident=record.resident
        )
    ),
    "abort": _deed(lambda record: endpoint.AbortRollout(**_ROLLOUT)),
    "roll back": _deed(lambda record: endpoint.RollBack(reason="complaints")),
}
"""What people do to rollouts; what cannot be done then is not done."""

weights = (
    st.lists(
        st.sampled_from([0.0, 1.0, 5.0, 10.0, 33.3, 50.0, 80.0, 100.0]),
        min_size=1,
        max_size=4,
        unique=True,
    )
    .map(sorted)
    .filter(lambda found: found[-1] > 0)
)


@st.composite
def step_lists(draw: st.DrawFn) -> tuple[Step, ...]:
    holds = st.sampled_from([0.0, 0.5, 3.0, 7.3, 15.0])
    samples = st.sampled_from([0, 0, 20, 100])
    return tuple(
        Step(weight=weight, hold_s=draw(holds), min_samples=draw(samples))
        for weight in draw(weights)
    )


analyses = st.builds(
    lambda metric, **said: Analysis(
        metric=metric, check="right" if metric == "quality" else None, **said
    ),
    metric=st.sampled_from(["error_rate", "timeout_rate", "latency", "quality"]),
    alpha=st.sampled_from([0.01, 0.05, 0.5]),
    margin=st.sampled_from([0.02, 0.2, 0.5]),
    max_error_rate=st.sampled_from([None, 0.1]),
    max_latency_ms=st.just(10.0),
    max_latency_ratio=st.sampled_from([None, 1.2]),
    on_inconclusive=st.sampled_from(["hold", "rollback", "promote"]),
)
deeds = st.lists(
    st.tuples(st.floats(0.0, 30.0, allow_subnormal=False), st.sampled_from(sorted(DEEDS))),
    max_size=4,
)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    rates = st.sampled_from([0.0, 0.05, 0.2, 1.0])
    return Scene(
        requests_per_s=draw(st.sampled_from([1, 5, 30])),
        failing={"1.0.0": draw(st.sampled_from([0.0, 0.05])), "2.0.0": draw(rates)},
        bad={"1.0.0": 0.2, "2.0.0": draw(st.sampled_from([0.2, 0.6]))},
        latency={"2.0.0": draw(st.sampled_from([1.0, 3.0]))},
        leaning=draw(st.sampled_from([1.0, 1.0, 3.0])),
        gateways=draw(st.sampled_from([("g-1",), ("g-1", "g-2")])),
        lag_s=draw(st.sampled_from([0.02, 0.4])),
        deeds=[(at, DEEDS[name]) for at, name in draw(deeds)],
    )


# ------------------------------------------------------------------------------------ hand-written


def second(number: int, *, policy: int = 1, **arms: tuple[int, int]) -> WindowObserved:
    """A second of the log: `base=(requests, failed), new=(requests, failed)`."""
    versions = {
        {"base": "1.0.0", "new": "2.0.0"}[name]: VersionWindow(
            requests=requests,
            errors={"runtime_failed": failed} if failed else {},
            units=Units(seen=requests, errors=failed),
        )
        for name, (requests, failed) in arms.items()
    }
    start = BEGIN + timedelta(seconds=number)
    return WindowObserved(gateway="g-1", start=start, versions=versions, policy=policy)


def written(
    windows: Sequence[WindowObserved],
    *,
    weight: float = 50.0,
    hold_s: float = 3_600.0,
    seconds: float,
    analysis: Analysis | None = None,
) -> RecordedRollout:
    """A rollout of one long step that is known for so many seconds, and did nothing in them."""
    step = Step(weight=weight, hold_s=hold_s)
    end = BEGIN + timedelta(seconds=seconds)
    return RecordedRollout(
        entity=EntityId("acme", "endpoint", "score"),
        rollout_id="canary-1",
        baseline="1.0.0",
        candidate="2.0.0",
        steps=(step,),
        analysis=analysis or Analysis(),
        policy=Policy(split={"1.0.0": 100.0 - weight, "2.0.0": weight}),
        started=BEGIN,
        hold_until=BEGIN + timedelta(seconds=hold_s),
        moves=(),
        phases=(Phase(policy=1, step=0, share=weight / 100.0, begin=BEGIN, end=end),),
        windows=tuple(windows),
        known_until=end,
        returned=False,
    )
