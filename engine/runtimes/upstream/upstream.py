"""A version that runs elsewhere, behind any OpenAI-compatible URL.

Guarantees:

- At most `in_flight_max` calls at a time; one more is refused at once with Overloaded.
- A request is repeated only before the first byte of an answer, at most `attempts_max` times in
  all; what a caller got a part of is never computed again.
- Every call ends: by its answer or one of `errors`, within `timeout_s`.
- A caller that is cancelled, or leaves a stream, closes the upstream's connection at once.
- The key is read at each call, and is in no error, repr or statistic.

Not guaranteed: that an upstream which lost its connection before it answered had not computed the
request, so that a repeated one may be billed twice; that clients of one version on several gateways
share its cap and its breaker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from random import Random
from types import TracebackType
from typing import TypeVar

import msgspec

from engine.runtimes.documents import Usage
from engine.runtimes.upstream.answers import Answer, whole_usage
from engine.runtimes.upstream.attempt import Attempts
from engine.runtimes.upstream.breaker import BREAKER_LIMITS, Breaker, BreakerLimits, Permit, State
from engine.runtimes.upstream.calls import Call
from engine.runtimes.upstream.config import UpstreamConfig
from engine.runtimes.upstream.errors import (
    CircuitOpen,
    Closed,
    KeyUnavailable,
    Overloaded,
    UpstreamFailed,
)
from engine.runtimes.upstream.health import Health, probed, sick
from engine.runtimes.upstream.keys import Keys
from engine.runtimes.upstream.phases import Phases
from engine.runtimes.upstream.retrying import pause_before_retry
from engine.runtimes.upstream.stream import Stream
from engine.runtimes.upstream.wire import Wire

T = TypeVar("T")


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one upstream has done since it was made."""

    in_flight: int
    calls: int
    attempts: int
    """Requests sent, with the repeated ones."""
    failures: int
    """Calls that failed, with those that were not sent."""
    breaker: State


class Upstream:
    """One upstream of one gateway. To be made in the event loop that uses it."""

    def __init__(
        self,
        config: UpstreamConfig,
        *,
        keys: Keys,
        random: Random,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        breaker_limits: BreakerLimits = BREAKER_LIMITS,
    ) -> None:
        self._config = config
        self._keys = keys
        self._random = random
        self._sleep = sleep
        self._wire = Wire(config)
        self._attempts = Attempts(config, self._wire, now=now)
        self._breaker = Breaker(clock=clock, limits=breaker_limits)
        self._is_closed = False
        self._in_flight: set[Phases] = set()
        self._calls = self._sent = self._failures = 0

    async def __aenter__(self) -> Upstream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def statistics(self) -> Statistics:
        return Statistics(
            in_flight=len(self._in_flight),
            calls=self._calls,
            attempts=self._sent,
            failures=self._failures,
            breaker=self._breaker.state,
        )

    async def answer(self, call: Call) -> Answer:
        """The whole answer. Raises UpstreamFailed."""
        began = time.perf_counter()
        with self._place(call) as phases:
            key = self._key()

            async def attempt() -> tuple[bytes, Usage | None]:
                body = await self._attempts.whole(call, phases, key)
                return body, whole_usage(call.kind, body)

            (body, usage), attempts, _ = await self._repeated(attempt, phases)
            return Answer(
                body=body,
                usage=usage,
                attempts=attempts,
                upstream_s=time.perf_counter() - began,
            )

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[Stream]:
        """A stream whose first chunk has arrived; leaving the block closes it. Raises
        UpstreamFailed."""
        began = time.perf_counter()
        with self._place(call) as phases:
            key = self._key()
            arriving, attempts, permit = await self._repeated(
                lambda: self._attempts.streamed(call, phases, key), phases
            )
            first_chunk_s = time.perf_counter() - began
            stream = Stream(arriving, permit, attempts=attempts, first_chunk_s=first_chunk_s)
            try:
                yield stream
            finally:
                stream.close()

    async def probe(self) -> Health:
        """Ask whether it is there, past the cap and the breaker, which both stay as they are."""
        if self._is_closed:
            return sick("closed")
        try:
            return await probed(self._wire, self._key())
        except KeyUnavailable as failure:
            return sick(failure.detail)

    async def close(self) -> None:
        """Calls in flight fail with Closed. Does nothing the second time."""
        self._is_closed = True
        for phases in self._in_flight:
            phases.cut_off()
        await self._wire.close()

    def _key(self) -> str | None:
        """Raises KeyUnavailable."""
        variable = self._config.api_key_env
        return None if variable is None else self._keys.read(variable)

    @contextmanager
    def _place(self, call: Call) -> Iterator[Phases]:
        self._calls += 1
        try:
            if self._is_closed:
                raise Closed()
            if len(self._in_flight) >= self._config.in_flight_max:
                raise Overloaded(self._config.in_flight_max)
            phases = Phases(
                self._config,
                timeout_s=call.timeout_s,
                patience_s=call.patience_s,
                asked_s=call.asked_s,
            )
            self._in_flight.add(phases)
            try:
                yield phases
            finally:
                self._in_flight.discard(phases)
        except UpstreamFailed:
            self._failures += 1
            raise

    async def _repeated(
        self, attempt: Callable[[], Awaitable[T]], phases: Phases
    ) -> tuple[T, int, Permit]:
        """The first success, how many attempts it took, and the permit of the last."""
        attempts, failure = 0, None
        while True:
            permit = self._admitted(failure)
            attempts += 1
            try:
                return await self._permitted(attempt, permit), attempts, permit
            except UpstreamFailed as error:
                failure = error
            failure.attempts = attempts
            pause_s = pause_before_retry(
                failure,
                attempts=attempts,
                attempts_max=self._config.attempts_max,
                left_s=phases.left_s,
                random=self._random,
            )
            if pause_s is None:
                raise failure
            await self._sleep(pause_s)
            if self._is_closed:
                raise Closed()

    def _admitted(self, failure: UpstreamFailed | None) -> Permit:
        """Raises CircuitOpen, or the failure before it, which says more."""
        try:
            return self._breaker.admit()
        except CircuitOpen as refusal:
            final = failure or refusal
        raise final

    async def _permitted(self, attempt: Callable[[], Awaitable[T]], permit: Permit) -> T:
        try:
            self._sent += 1
            result = await attempt()
        except UpstreamFailed as failure:
            permit.settle(failure.verdict)
            raise
        except BaseException:
            permit.settle("unknown")
            raise
        permit.settle("answered")
        return result
