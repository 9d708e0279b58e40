"""Questions to the log itself: how an endpoint was, and why a request went where it went.

Answers are computed from the entity's own events, so they hold for any position in the past and do
not depend on what the tables keep.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import msgspec
from msgspec.structs import asdict, replace

from engine.decisions.decider import Conflict, Invalid, NotFound
from engine.routing import (
    KeyNotUsed,
    MalformedReceipt,
    Table,
    compile_policy,
    endpoint_salt,
    explain_key,
    explain_receipt,
    read_receipt,
)
from events import EntityId, EventLog, MalformedEvent, Position, Recorded
from events.catalogue.endpoints import EVENTS, EndpointCreated
from handlers.http.views import ExplainedEvent, Explanation
from handlers.routing import Routing
from projections import results
from projections.tables import endpoints as table
from projections.tables import rollouts
from projections.working import WorkingSet

At: TypeAlias = Position | datetime
ENDPOINTS_KNOWN_MAX: Final = 10_000
_SHOWN = frozenset(results.Endpoint.__struct_fields__)


class NoSuchEndpoint(NotFound):
    """The endpoint does not exist, or did not exist then."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(f"there is no endpoint {endpoint!r} at that moment")


class NoSuchRollout(NotFound):
    """The endpoint never had such a rollout, or not yet then."""

    def __init__(self, rollout_id: str) -> None:
        super().__init__(f"there is no rollout {rollout_id[:80]!r} of this endpoint")


class Questions:
    """Answers from the log. Methods raise NoSuchEndpoint and LogError."""

    def __init__(
        self,
        *,
        log: EventLog,
        routing: Routing,
        receipt_secret: bytes,
        now: Callable[[], datetime],
    ) -> None:
        self._log = log
        self._routing = routing
        self._secret = receipt_secret
        self._now = now
        self._known: OrderedDict[EntityId, table.EndpointRow] = OrderedDict()
        """Endpoints as they were last seen, least recently asked for first."""

    async def endpoint_at(
        self, tenant: str, *, endpoint: str, at: At | None = None
    ) -> results.Endpoint:
        """The endpoint as it was; `at` None is now.

        What was read before is not read again, unless the question is about a time or about
        something before it.
        """
        entity = EntityId(tenant, "endpoint", endpoint)
        known = self._known.get(entity)
        if known is not None and not _is_from(known, at):
            known = None
        if known is None:
            row = _folded(None, await self._read(tenant, endpoint, at))
        else:
            row = _folded(known, await self._read_on(entity, at, after=known.position))
        if row is None:
            raise NoSuchEndpoint(endpoint)
        self._remember(entity, row)
        return _shown(row)

    async def rollout_at(
        self, tenant: str, *, endpoint: str, rollout_id: str, at: At | None = None
    ) -> results.Rollout:
        """One of the endpoint's rollouts as it was. Raises NoSuchRollout too."""
        rows = WorkingSet()
        for recorded in await self.history(tenant, endpoint=endpoint, at=at):
            rollouts.PROJECTION.fold(rows, recorded)
        row = rows[rollouts.ROLLOUTS].get((tenant, endpoint, rollout_id))
        if row is None:
            raise NoSuchRollout(rollout_id)
        return msgspec.convert(row, results.Rollout, from_attributes=True)

    async def endpoints_at(
        self, tenant: str, *, at: At, after: str, limit: int
    ) -> Sequence[results.Endpoint]:
        """Those that existed then, by name, after a name."""
        names = sorted(name for owner, name in self._routing.routes if owner == tenant)
        found: list[results.Endpoint] = []
        for name in names:
            if name > after and len(found) < limit:
                history = await self._read(tenant, name, at)
                row = _folded(None, history)
                if row is not None:
                    found.append(_shown(row))
        return found

    async def explain_key(
        self,
        tenant: str,
        *,
        endpoint: str,
        key: str,
        attributes: Mapping[str, str],
        at: At | None,
    ) -> Explanation:
        """What a request with this key got, or gets now. Raises KeyDoesNotDecide too."""
        history = await self.history(tenant, endpoint=endpoint, at=at)
        made, compiled = _table(history)
        moment = at if isinstance(at, datetime) else _moment(history, at, self._now)
        try:
            decision = explain_key(compiled, key, int(moment.timestamp() * 1_000), attributes)
        except KeyNotUsed as error:
            raise KeyDoesNotDecide(str(error)) from error
        return _explanation(endpoint, decision, made)

    async def explain_receipt(self, tenant: str, *, receipt: str) -> Explanation:
        """Recompute the decision a receipt tells of; a forged one is explained as not valid.

        Raises ReceiptInvalid for a text that says nothing, NoSuchEndpoint.
        """
        try:
            said, genuine = read_receipt(receipt, self._secret)
        except MalformedReceipt as error:
            raise ReceiptInvalid(error.reason) from error
        if said.tenant != tenant:
            raise NoSuchEndpoint(said.endpoint[:80])
        history = await self.history(tenant, endpoint=said.endpoint, at=said.position)
        made, compiled = _table(history)
        explained = explain_receipt(compiled, said)
        valid = genuine and explained.valid
        found = _explanation(said.endpoint, explained.decision, made, valid=valid)
        chosen = explained.decision.version
        if not valid or explained.answered_by == chosen:
            return found
        return replace(found, version=explained.answered_by, instead_of=chosen)

    async def history(self, tenant: str, *, endpoint: str, at: At | None) -> list[Recorded]:
        """The endpoint's events up to a moment, oldest first."""
        found = await self._read(tenant, endpoint, at)
        if not found:
            raise NoSuchEndpoint(endpoint)
        return found

    def _remember(self, entity: EntityId, row: table.EndpointRow) -> None:
        known = self._known.pop(entity, row)
        self._known[entity] = max(known, row, key=lambda each: each.position)
        while len(self._known) > ENDPOINTS_KNOWN_MAX:
            self._known.popitem(last=False)

    async def _read(self, tenant: str, endpoint: str, at: At | None) -> list[Recorded]:
        """In the order of the log, up to the first event that came later: clocks of two processes
        may differ, and a history without its middle means nothing."""
        return await self._read_on(EntityId(tenant, "endpoint", endpoint), at, after=0)

    async def _read_on(self, entity: EntityId, at: At | None, *, after: Position) -> list[Recorded]:
        found: list[Recorded] = []
        async with aclosing(self._log.read(entity, after=after)) as history:
            async for recorded in history:
                if not _by(recorded, at):
                    break
                found.append(recorded)
        _check(found, after=after)
        return found


class KeyDoesNotDecide(Conflict):
    """The policy then was not sticky: no key decided where a request went."""


class ReceiptInvalid(Invalid):
    """A text that is no receipt of this system."""

    def __init__(self, reason: str) -> None:
        super().__init__({"receipt": reason})


def _folded(
    before: table.EndpointRow | None, events: Sequence[Recorded]
) -> table.EndpointRow | None:
    """The endpoint after further events, by the fold that also makes the table."""
    if not events:
        return before
    rows = WorkingSet()
    if before is not None:
        rows[table.ENDPOINTS].put(before)
    for recorded in events:
        table.PROJECTION.fold(rows, recorded)
    entity = events[-1].entity
    return rows[table.ENDPOINTS].get((entity.tenant, entity.id))


def _shown(row: table.EndpointRow) -> results.Endpoint:
    shown: dict[str, Any] = {name: v for name, v in asdict(row).items() if name in _SHOWN}
    shown["alerts"] = list(row.alerts)
    return results.Endpoint(**shown)


def _check(history: Sequence[Recorded], *, after: Position) -> None:
    """Raises MalformedEvent for what can be no endpoint's history after a position."""
    for index, recorded in enumerate(history):
        event = recorded.event
        first = index == 0 and not after
        if type(event) not in EVENTS or (first and not isinstance(event, EndpointCreated)):
            reason = f"{event.type} cannot follow what came before it"
            raise MalformedEvent(recorded.position, recorded.entity.subject, reason)


def _is_from(row: table.EndpointRow, at: At | None) -> bool:
    """Whether the row says nothing that was not so yet. Clocks differ, so no row answers for a
    time."""
    return at is None or (not isinstance(at, datetime) and row.position <= at)


def _by(recorded: Recorded, at: At | None) -> bool:
    if at is None:
        return True
    return recorded.time <= at if isinstance(at, datetime) else recorded.position <= at


def _moment(
    history: Sequence[Recorded], at: Position | None, now: Callable[[], datetime]
) -> datetime:
    """A position is the moment of the last event up to it; None is now."""
    return now() if at is None else history[-1].time.astimezone(UTC)


def _table(history: Sequence[Recorded]) -> tuple[Recorded, Table]:
    """The event that set the policy in force, and the policy as a table."""
    made = next(r for r in reversed(history) if getattr(r.event, "policy", None) is not None)
    salt = endpoint_salt(made.entity.tenant, made.entity.id)
    return made, compile_policy(made.event.policy, salt=salt, position=made.position)  # type: ignore[attr-defined]


def _explanation(
    endpoint: str, decision: Any, made: Recorded, *, valid: bool | None = None
) -> Explanation:
    return Explanation(
        endpoint=endpoint,
        version=decision.version,
        bucket=decision.bucket,
        rule=decision.rule,
        position=decision.position,
        event=ExplainedEvent(
            id=str(made.id), type=made.event.type, time=made.time, actor=made.actor
        ),
        valid=valid,
    )
