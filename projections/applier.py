"""Applying batches under a failure policy: finds the event that cannot be taken, and asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from events.errors import MalformedEvent
from events.event import Position, Recorded
from projections.apply import Applied, Skipped, Work, apply
from projections.builds import Build
from projections.errors import DatabaseRefused, FoldFailed
from projections.failures import Failure, FailurePolicy, ProjectionStopped, Retry, Skip, Stop
from projections.pool import Pool


class Applier:
    """Remembers what it was told to skip until the batch is committed."""

    def __init__(self, pool: Pool, *, policy: FailurePolicy, now: Callable[[], datetime]) -> None:
        self._pool = pool
        self._policy = policy
        self._now = now
        self._skips: dict[tuple[str, Position], Skipped] = {}
        self._attempts: dict[tuple[str | None, Position], int] = {}

    async def apply(self, builds: Sequence[Build], batch: Sequence[Recorded]) -> list[Applied]:
        """A batch to those builds that have not applied it, in one transaction if nothing is wrong.

        Raises ProjectionStopped, CheckpointMoved, and the errors of `Pool.transaction`.
        """
        try:
            return await self._commit(builds, batch)
        except FoldFailed as error:
            if error.position > batch[0].position:
                return await self._apply_parts(builds, batch, error.position)
            build = next(b for b in builds if b.projection.name == error.projection)
            await self._ask(build, error.position, error.subject, error.reason)
        except DatabaseRefused as error:
            if not error.about_data:
                raise
            if len(batch) > 1:
                return await self._apply_parts(builds, batch, batch[len(batch) // 2].position)
            if len(builds) > 1:
                return [done for build in builds for done in await self.apply([build], batch)]
            event = batch[0]
            await self._ask(builds[0], event.position, event.entity.subject, str(error))
        return await self.apply(builds, batch)

    async def pass_over(self, builds: Sequence[Build], error: MalformedEvent) -> list[Applied]:
        """What is on the log but is no event: nothing moves unless the policy says skip."""
        outcome = await self._decide(None, error.position, error.subject, error.reason)
        if outcome is None:
            return []
        works = [
            Work(
                build=build,
                events=(),
                target=error.position,
                skips=[self._skipped(build, error.position, error.subject, outcome.reason)],
            )
            for build in builds
            if build.position < error.position
        ]
        return await apply(self._pool, works)

    async def _commit(self, builds: Sequence[Build], batch: Sequence[Recorded]) -> list[Applied]:
        target = batch[-1].position
        works = [self._work(build, batch) for build in builds if build.position < target]
        applied = await apply(self._pool, works) if works else []
        for work in works:
            for skip in work.skips:
                self._skips.pop((skip.schema, skip.position), None)
        return applied

    async def _apply_parts(
        self, builds: Sequence[Build], batch: Sequence[Recorded], position: Position
    ) -> list[Applied]:
        """What is before the position first: it must not wait for what may never be applied."""
        before = [recorded for recorded in batch if recorded.position < position]
        first = await self.apply(builds, before)
        try:
            return first + await self.apply(moved(builds, first), batch[len(before) :])
        except ProjectionStopped as stopped:
            stopped.applied = (*first, *stopped.applied)
            raise

    def _work(self, build: Build, batch: Sequence[Recorded]) -> Work:
        events = batch
        if build.position >= batch[0].position:
            events = [recorded for recorded in batch if recorded.position > build.position]
        skips = [
            skip
            for (schema, position), skip in self._skips.items()
            if schema == build.schema and events[0].position <= position <= events[-1].position
        ]
        if skips:
            passed = {skip.position for skip in skips}
            events = [recorded for recorded in events if recorded.position not in passed]
        return Work(build=build, events=events, target=batch[-1].position, skips=skips)

    async def _ask(self, build: Build, position: Position, subject: str, reason: str) -> None:
        """Afterwards the batch is to be tried again, perhaps without the event."""
        outcome = await self._decide(build.projection.name, position, subject, reason)
        if outcome is not None:
            skip = self._skipped(build, position, subject, outcome.reason)
            self._skips[build.schema, position] = skip

    async def _decide(
        self, projection: str | None, position: Position, subject: str, reason: str
    ) -> Skip | None:
        """What to skip with, or None when the time has come to try again."""
        attempt = self._attempts.get((projection, position), 0) + 1
        self._attempts[projection, position] = attempt
        failure = Failure(
            projection=projection,
            position=position,
            subject=subject,
            reason=reason,
            attempt=attempt,
        )
        match self._policy(failure):
            case Stop():
                raise ProjectionStopped(failure)
            case Retry(after_s=after_s):
                await asyncio.sleep(after_s)
                return None
            case Skip() as skip:
                del self._attempts[projection, position]
                return skip

    def _skipped(self, build: Build, position: Position, subject: str, reason: str) -> Skipped:
        return Skipped(
            schema=build.schema,
            position=position,
            subject=subject,
            reason=reason,
            time=self._now(),
        )


def moved(builds: Sequence[Build], applied: Sequence[Applied]) -> list[Build]:
    """The builds where they are after that."""
    latest = {done.build.schema: done.build for done in applied}
    return [latest.get(build.schema, build) for build in builds]
