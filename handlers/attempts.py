"""One request's way to an answer: decide, ask, fall back, try again.

Guarantees: a request that nobody has begun is tried again until its deadline, each time by the
policy of that moment; when the chosen version fails before it has begun to answer, the policy's
fallbacks are asked in their order, each until it has failed. What failed counts against the version
that failed, once per request, whoever answers in the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from engine.routing import Decision, decide_route, fallbacks, routing_key
from events.catalogue.nodes import VersionRef
from handlers.executions import (
    UNEXPECTED,
    Chunk,
    EndpointUnknown,
    Execution,
    InferenceFailed,
    NodeDied,
    NotServed,
    RequestRefused,
    RequestTimedOut,
)
from handlers.routes import Route, ref_of
from handlers.routing import Routing
from handlers.traffic.passages import Passage
from handlers.traffic.windows import Windows

RETRY_SECONDS: Final = 0.02
NOT_SERVED_SECONDS: Final = 5.0
"""How long a request waits for some node to serve its version."""
LAST_MOMENT_SECONDS: Final = 0.001
"""What is left, at least, to whoever is still asked: no time at all would be nonsense to some."""
NODE_DEATHS_MAX: Final = 2
"""A request that so many nodes have died over may be what they die of: it is not asked again."""

Answer = TypeVar("Answer")
Ask: TypeAlias = Callable[[VersionRef, Execution], Awaitable[Answer]]
"""Raises InferenceFailed."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request, as the client made it."""

    tenant: str
    endpoint: str
    key: str | None
    attributes: Mapping[str, str]
    request_id: str
    inputs: Any
    parameters: dict[str, Any]
    began: float
    """By the performance counter."""
    deadline_s: float


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A stream whose first chunk has arrived."""

    first: Chunk
    rest: AsyncGenerator[Chunk, None]

    @property
    def runtime_ms(self) -> float:
        return self.first.runtime_ms


class Routed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a request goes."""

    route: Route
    decision: Decision
    now_ms: int
    key: int | None
    """The bucket of the request's key, if it has one that counts."""


class Served(msgspec.Struct, Generic[Answer], frozen=True, kw_only=True):
    """A request that a version answers; its passage is open."""

    routed: Routed
    passage: Passage
    """At the version that answers: the chosen one, or a fallback."""
    answer: Answer
    execution_ms: float
    """Of the attempt that succeeded."""
    attempts: int


class _Way:
    """How far one request has come."""

    __slots__ = ("attempts", "deaths", "failures", "given_up", "waits_since")

    def __init__(self, began: float) -> None:
        self.attempts = 0
        self.deaths = 0
        """Of nodes that had it."""
        self.waits_since = began
        """Until then some node had it, if one ever did."""
        self.given_up: set[str] = set()
        """Fallbacks that were served, and failed or refused the request."""
        self.failures: list[tuple[Passage, InferenceFailed]] = []
        """Of this round: the chosen version's, then the fallbacks'. Their passages are open."""

    @property
    def failure(self) -> InferenceFailed:
        """The chosen version's, which says most."""
        return self.failures[0][1]

    def failed(self, passage: Passage, failure: InferenceFailed) -> None:
        if self.failures and not isinstance(failure, NotServed):
            self.given_up.add(passage.version)
        if isinstance(failure, NodeDied):
            self.deaths += 1
            self.waits_since = time.perf_counter()
        self.failures.append((passage, failure))

    def again(self) -> Passage | None:
        """Leave the failures of the round before. Returns the chosen version's passage, open."""
        if not self.failures:
            return None
        (chosen, _), *others = self.failures
        for passage, failure in others:
            if isinstance(failure, NotServed):
                passage.left()
            else:
                passage.failed(code=failure.code)
        self.failures = []
        return chosen

    def end(self) -> None:
        """What has failed, has failed for good."""
        for passage, failure in self.failures:
            passage.failed(code=failure.code)


class Attempts:
    """Finds each request its answer."""

    def __init__(
        self,
        *,
        routing: Routing,
        windows: Windows,
        clock: Callable[[], float],
    ) -> None:
        self._routing = routing
        self._windows = windows
        self._clock = clock

    async def serve(self, asked: Asked, ask: Ask[Answer]) -> Served[Answer]:
        """Raises InferenceFailed: the chosen version's; then every passage is ended."""
        way = _Way(asked.began)
        try:
            while True:
                served = await self._round(asked, way, ask)
                if served is not None:
                    return served
                ends = min(asked.began + asked.deadline_s, way.waits_since + NOT_SERVED_SECONDS)
                is_retried = isinstance(way.failure, NotServed) and way.deaths < NODE_DEATHS_MAX
                if not (is_retried and await _time_is_left(ends)):
                    raise way.failure
        finally:
            way.end()

    async def _round(self, asked: Asked, way: _Way, ask: Ask[Answer]) -> Served[Answer] | None:
        """Ask the version that is chosen now, then its fallbacks; None when all have failed."""
        routed = self._decide(asked)
        route, decision = routed.route, routed.decision
        passage = self._windows.begin(route, decision, key=routed.key, after=way.again())
        served = await self._ask(asked, routed, passage, way, ask)
        if served is None and route.table.fallback:
            for version in fallbacks(route.table, decision):
                if version in way.given_up:
                    continue
                if time.perf_counter() - asked.began >= asked.deadline_s:
                    break  # whoever is asked now could only be late
                served = await self._ask(asked, routed, passage.fall_back(version), way, ask)
                if served is not None:
                    break
        return served

    async def _ask(
        self, asked: Asked, routed: Routed, passage: Passage, way: _Way, ask: Ask[Answer]
    ) -> Served[Answer] | None:
        """One attempt; None when it failed in a way that leaves others a chance."""
        way.attempts += 1
        began = time.perf_counter()
        execution = Execution(
            inputs=asked.inputs,
            parameters=asked.parameters,
            timeout_s=max(asked.deadline_s - (began - asked.began), LAST_MOMENT_SECONDS),
            request_id=asked.request_id,
        )
        try:
            answer = await ask(ref_of(routed.route, passage.version), execution)
        except RequestRefused as failure:  # which says nothing about the version
            failure.version = passage.version
            passage.left()
            if not way.failures:
                raise
            way.given_up.add(passage.version)
            return None
        except RequestTimedOut as failure:  # nor does this, and nobody waits any more
            failure.version = passage.version
            passage.left()
            if way.failures:
                raise way.failure from None
            raise
        except InferenceFailed as failure:
            failure.version = passage.version
            way.failed(passage, failure)
            return None
        except Exception:
            passage.failed(code=UNEXPECTED)
            raise
        except BaseException:  # nobody waits for the answer any more
            passage.left()
            raise
        return Served(
            routed=routed,
            passage=passage,
            answer=answer,
            execution_ms=(time.perf_counter() - began) * 1_000,
            attempts=way.attempts,
        )

    def _decide(self, asked: Asked) -> Routed:
        """By the table of this moment: a retry goes where the traffic goes by then."""
        route = self._routing.routes.get((asked.tenant, asked.endpoint))
        if route is None:
            raise EndpointUnknown(f"no endpoint {asked.endpoint!r}")
        now_ms = int(self._clock() * 1_000)
        key = routing_key(route.table, asked.key, asked.request_id)
        decision = decide_route(route.table, key, now_ms, asked.attributes)
        return Routed(
            route=route,
            decision=decision,
            now_ms=now_ms,
            key=None if key is asked.request_id else decision.bucket,
        )


async def _time_is_left(ends: float) -> bool:
    """Whether there is, after a pause; without one if there would be none."""
    if time.perf_counter() + RETRY_SECONDS < ends:
        await asyncio.sleep(RETRY_SECONDS)
        return time.perf_counter() < ends
    return False
