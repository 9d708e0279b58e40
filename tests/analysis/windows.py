"""Windows of versions `1` and `2`, as gateways would have published them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from ddsketch import DDSketch

from engine.analysis import Evidence, Judgement
from events.catalogue.endpoints import Analysis, Step, Verdict
from events.catalogue.traffic import (
    CheckWindow,
    LatencySketch,
    ShadowWindow,
    Units,
    VersionWindow,
    WindowObserved,
)

START = datetime(2027, 6, 1, tzinfo=UTC)
STEP = Step(weight=10.0, hold_s=60.0)
NOTHING = VersionWindow(requests=0)


def sketch(latencies_ms: Iterable[float], accuracy: float = 0.01) -> LatencySketch:
    """What the library makes of these latencies."""
    made = DDSketch(accuracy)
    for latency_ms in latencies_ms:
        made.add(latency_ms)
    store = made._store
    bins = {index + store.offset: int(count) for index, count in enumerate(store.bins) if count}
    return LatencySketch(
        relative_accuracy=accuracy,
        bins=bins,
        zeros=int(made._zero_count),
        sum_ms=made.sum,
        min_ms=made._min,
        max_ms=made._max,
    )


def version(
    requests: int,
    failures: int = 0,
    *,
    code: str = "runtime_failed",
    keys: int | None = None,
    failing_keys: int | None = None,
    slow: int = 0,
    latency: LatencySketch | None = None,
) -> VersionWindow:
    """Requests without keys, unless said otherwise: each is a unit of its own."""
    failing = failures if failing_keys is None else failing_keys
    return VersionWindow(
        requests=requests,
        errors={code: failures} if failures else {},
        latency=latency,
        units=Units(
            seen=requests if keys is None else keys,
            errors=failing,
            timeouts=failing if code == "timeout" else 0,
            slow=slow,
        ),
    )


def window(
    one: VersionWindow = NOTHING,
    two: VersionWindow = NOTHING,
    *,
    policy: int = 1,
    gateway: str = "g1",
    shadow: ShadowWindow | None = None,
) -> WindowObserved:
    return WindowObserved(
        gateway=gateway,
        start=START,
        versions={"1": one, "2": two},
        policy=policy,
        shadows={"2": shadow} if shadow is not None else {},
    )


def evidence(analysis: Analysis | None = None, *, share: float = 0.1) -> Evidence:
    """Of a rollout from `1` to `2`, whose first step is in force by policy 1."""
    made = Evidence(baseline="1", candidate="2", analysis=analysis or Analysis())
    made.enter(step=0, policy=1, share=share)
    return made


def verdict(judgement: Judgement, metric: str) -> Verdict:
    return next(one for one in judgement.verdicts if one.metric == metric)


def checked(
    answers: int, bad: int = 0, *, failed: int = 0, bad_keys: int | None = None
) -> VersionWindow:
    """Answers that were checked, of requests without keys unless said otherwise."""
    bad_units = bad if bad_keys is None else bad_keys
    return VersionWindow(
        requests=answers + failed,
        units=Units(seen=answers + failed, bad=bad_units),
        checks=CheckWindow(
            checked=answers, bad=bad, failed=failed, keys=answers, bad_keys=bad_units
        ),
    )
