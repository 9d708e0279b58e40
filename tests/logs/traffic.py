"""Histories with traffic: requests that are made up, and a rollout that is judged by them.

Everything between is the real thing: decisions, routing, evidence, the rule of the steps. Only the
machinery around them is not: gateways close their windows, the log shows them a little later and
in any order, and whoever watches looks at each, in a second that passes in no time. The same seed
gives the same history.
"""

from __future__ import annotations

import heapq
import io
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final, TypeAlias
from uuid import uuid5

import msgspec
from ddsketch import DDSketch

from engine.analysis.evidence import Evidence, Judgement
from engine.analysis.stepping import Abort, Advance, Hold, next_action, settled_at
from engine.decisions import endpoint
from engine.decisions.endpoint_state import Rollout
from events import UNCHECKED, EntityId, Metadata
from events.catalogue.endpoints import Verdict
from events.catalogue.traffic import CheckWindow, Units, VersionWindow, WindowObserved
from events.memory import MemoryLog
from events.recordings import export_recording
from handlers.routes import Route
from handlers.traffic.tallies import RELATIVE_ACCURACY, latency_sketch
from tests.logs.recorder import NAMESPACE, STEP, Recorder

TRAFFIC: Final = EntityId("acme", "traffic", "score")
LATENCIES_MS: Final = (4.0, 5.0, 6.0, 9.0, 15.0)
SHOWN_SECONDS: Final = (0.02, 0.3)
"""How long after its second a window is on the log."""
ACTED_SECONDS: Final = 0.003

Deed: TypeAlias = Callable[["TrafficRecorder"], Awaitable[None]]


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What the traffic is like."""

    requests_per_s: int = 40
    failing: Mapping[str, float] = {}
    """Version -> the share of its requests that fail."""
    bad: Mapping[str, float] = {}
    """Version -> the share of its answers that the rollout's check, if it has one, finds bad."""
    latency: Mapping[str, float] = {}
    """Version -> how many times slower it is."""
    leaning: float = 1.0
    """How many times its share the candidate really gets."""
    gateways: tuple[str, ...] = ("gateway-1",)
    lag_s: float = 0.02
    """How much later than whoever watches a gateway hears of a policy."""
    deeds: Sequence[tuple[float, Deed]] = ()
    """Second -> what somebody does then, if the rollout is live."""


class TrafficRecorder(Recorder):
    """A recorder whose endpoint is used."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._traffic = MemoryLog()
        self._clock: datetime | None = None
        self.random = Random(name)

    @property
    def now(self) -> datetime:
        return self._clock or super().now

    async def lines(self) -> bytes:
        file = io.BytesIO()
        await export_recording(self._log, self._traffic, file)
        return file.getvalue()

    @property
    def route(self) -> Route:
        return self._routing.routes["acme", "score"]

    async def serve(self, scene: Scene, *, seconds: int) -> None:
        """So many seconds of traffic; the live rollout goes on by itself."""
        last = self.now if self._clock else self.now - STEP
        begin = last.replace(microsecond=0) + timedelta(seconds=1)
        play = _Play(self, scene, begin)
        for second in range(seconds):
            play.plan_second(second)
        await play.run()

    async def give_up(self, rollout_id: str, *verdicts: Verdict) -> None:
        """The analysis says to roll back what is inconclusive."""
        command = endpoint.AbortRollout(
            rollout_id=rollout_id, reason="inconclusive", verdicts=verdicts
        )
        await self.endpoint(command, actor="reaction:rollouts")

    async def try_endpoint(self, command: endpoint.Command) -> None:
        """A command of somebody who does not look first: it may change nothing."""
        state = self.route.state
        if endpoint.DECIDER.decide(state, command):
            await self.endpoint(command)

    async def at(self, time: datetime, deed: Awaitable[None]) -> None:
        """Do something at a time."""
        self._clock = time
        await deed

    async def show(self, window: WindowObserved) -> None:
        """Append a window to the traffic."""
        count = await self._traffic.position()
        metadata = Metadata(
            command_id=uuid5(NAMESPACE, f"{self._name}/window/{count}"),
            time=window.start,
            actor=f"gateway:{window.gateway}",
        )
        await self._traffic.append(TRAFFIC, [window], expected=UNCHECKED, metadata=metadata)


class _Play:
    """A scene as it is played: a heap of what comes next, by time."""

    def __init__(self, recorder: TrafficRecorder, scene: Scene, begin: datetime) -> None:
        self._recorder = recorder
        self._scene = scene
        self._begin = begin
        self._random = recorder.random
        self._numbers = itertools.count()
        self._coming: list[tuple[float, int, Callable[[float], Awaitable[None]]]] = []
        self._tallies: dict[tuple[str, int], dict[str, _Tally]] = {}
        """Gateway and policy -> version -> what it did in this second."""
        self._watch = _Watch(recorder)
        self._routes = [(-1.0, recorder.route)]
        """When each route came to be."""
        for at, deed in scene.deeds:
            self._plan(at, lambda now, deed=deed: self._do(now, deed))
        self._arm()

    def plan_second(self, second: int) -> None:
        count = self._scene.requests_per_s
        for number in range(count):
            self._plan(second + (number + 0.5) / count, self._request)
        self._plan(second + 0.999999, self._close)

    async def run(self) -> None:
        while self._coming:
            at, _, come = heapq.heappop(self._coming)
            await come(at)

    def _plan(self, at: float, come: Callable[[float], Awaitable[None]]) -> None:
        heapq.heappush(self._coming, (at, next(self._numbers), come))

    def _time(self, at: float) -> datetime:
        return self._begin + timedelta(seconds=round(at, 6))

    def _route_at(self, at: float) -> Route:
        """As gateways know it."""
        return next(r for since, r in reversed(self._routes) if since <= at - self._scene.lag_s)

    async def _request(self, at: float) -> None:
        route = self._route_at(at)
        gateway = self._random.choice(self._scene.gateways)
        version = self._version(route)
        tallies = self._tallies.setdefault((gateway, route.table.position), {})
        failed = self._random.random() < self._scene.failing.get(version, 0.0)
        slower = self._scene.latency.get(version, 1.0)
        latency_ms = self._random.choice(LATENCIES_MS) * slower
        rollout = route.state.rollout
        limit_ms = rollout.analysis.max_latency_ms if rollout is not None else None
        tally = tallies.setdefault(version, _Tally())
        tally.add(latency_ms, failed=failed, limit_ms=limit_ms)
        if not failed and rollout is not None and rollout.analysis.check is not None:
            tally.check(bad=self._random.random() < self._scene.bad.get(version, 0.0))

    def _version(self, route: Route) -> str:
        split = route.state.policy.split
        drawn = self._random.random() * sum(split.values())
        rollout = route.state.rollout
        if rollout is not None:
            weight = split.get(rollout.candidate, 0.0) * self._scene.leaning
            return rollout.candidate if drawn < weight else rollout.baseline
        return next(v for v, sum_ in _cumulated(split) if drawn < sum_)

    async def _close(self, at: float) -> None:
        tallies, self._tallies = self._tallies, {}
        start = self._time(int(at))
        for (gateway, policy), versions in sorted(tallies.items()):
            window = WindowObserved(
                gateway=gateway,
                start=start,
                versions={name: tally.window() for name, tally in sorted(versions.items())},
                policy=policy,
            )
            shown = int(at) + 1 + self._random.uniform(*SHOWN_SECONDS)
            self._plan(shown, lambda now, window=window: self._show(now, window))

    async def _show(self, at: float, window: WindowObserved) -> None:
        await self._recorder.show(window)
        self._watch.observe(window)
        await self._look(at, late=False)

    async def _end_hold(self, at: float) -> None:
        await self._look(at, late=True)

    async def _look(self, at: float, *, late: bool) -> None:
        time = self._time(at + ACTED_SECONDS)
        if await self._watch.look(time, late=late):
            self._changed(at)

    async def _do(self, at: float, deed: Deed) -> None:
        if self._recorder.route.state.rollout is not None:
            await self._recorder.at(self._time(at), deed(self._recorder))
            self._watch.catch_up()
            self._changed(at)

    def _changed(self, at: float) -> None:
        self._routes.append((at + ACTED_SECONDS, self._recorder.route))
        self._arm()

    def _arm(self) -> None:
        rollout = self._recorder.route.state.rollout
        if rollout is not None and rollout.held is None:
            due = settled_at(rollout.hold_until) - self._begin
            self._plan(due.total_seconds() + 0.01, self._end_hold)


class _Tally:
    def __init__(self) -> None:
        self.requests = self.failed = self.slow = self.checked = self.bad = 0
        self.sketch = DDSketch(RELATIVE_ACCURACY)

    def add(self, latency_ms: float, *, failed: bool, limit_ms: float | None) -> None:
        self.requests += 1
        if failed:
            self.failed += 1
            return
        self.sketch.add(latency_ms)
        self.slow += limit_ms is not None and latency_ms > limit_ms

    def check(self, *, bad: bool) -> None:
        self.checked += 1
        self.bad += bad

    def window(self) -> VersionWindow:
        checks = CheckWindow(
            checked=self.checked, bad=self.bad, keys=self.checked, bad_keys=self.bad
        )
        return VersionWindow(
            requests=self.requests,
            errors={"runtime_failed": self.failed} if self.failed else {},
            latency=latency_sketch(self.sketch),
            units=Units(seen=self.requests, errors=self.failed, slow=self.slow, bad=self.bad),
            checks=checks if self.checked else None,
        )


class _Watch:
    """Who looks at the rollout, and acts."""

    def __init__(self, recorder: TrafficRecorder) -> None:
        self._recorder = recorder
        self._rollout_id = ""
        self._evidence: Evidence
        self._windows: list[WindowObserved] = []
        self.catch_up()

    def catch_up(self) -> None:
        """Enter the step that is in force."""
        route = self._recorder.route
        rollout = route.state.rollout
        if rollout is None:
            return
        if rollout.rollout_id != self._rollout_id:
            self._rollout_id = rollout.rollout_id
            self._evidence = Evidence(
                baseline=rollout.baseline, candidate=rollout.candidate, analysis=rollout.analysis
            )
        share = rollout.steps[rollout.step].weight / 100.0
        self._evidence.enter(step=rollout.step, policy=route.table.position, share=share)

    def observe(self, window: WindowObserved) -> None:
        if self._recorder.route.state.rollout is not None:
            self._evidence.observe(window)

    async def look(self, time: datetime, *, late: bool) -> bool:
        """Whether anything was done. `late`: because a hold is over, not because of a window."""
        rollout = self._recorder.route.state.rollout
        if rollout is None:
            return False
        now = max(time, settled_at(rollout.hold_until)) if late else time
        if late and time < settled_at(rollout.hold_until):
            return False  # the timer of another step
        judgement = self._evidence.judge(rollout.steps[rollout.step])
        action = next_action(
            judgement.outcome,
            step=rollout.step,
            steps=rollout.steps,
            hold_over=now >= rollout.hold_until,
            held=rollout.held,
            analysis=rollout.analysis,
        )
        if judgement.outcome == "inconclusive" and now < settled_at(rollout.hold_until):
            return False
        deed = self._deed(rollout, judgement, action)
        if deed is not None:
            await self._recorder.at(time, deed)
            self.catch_up()
        return deed is not None

    def _deed(self, rollout: Rollout, judgement: Judgement, action: Any) -> Awaitable[None] | None:
        record, id_, verdicts = self._recorder, rollout.rollout_id, judgement.verdicts
        match action:
            case Advance(reason=reason):
                return record.advance(id_, rollout.step, *verdicts, reason=reason)
            case Hold():
                return record.hold(id_, rollout.step, *verdicts)
            case Abort(reason="failed"):
                failed = [each for each in verdicts if each.outcome == "fail"]
                detail = "; ".join(f"{each.metric}: {each.detail}" for each in failed)
                return record.fail(id_, *verdicts, detail=detail)
            case Abort():
                return record.give_up(id_, *verdicts)
        return None


def _cumulated(split: Mapping[str, float]) -> list[tuple[str, float]]:
    return list(zip(split, itertools.accumulate(split.values()), strict=True))
