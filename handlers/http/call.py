"""One authenticated request, as handlers see it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, TypeVar, cast
from uuid import UUID, uuid4, uuid5

import msgspec
from litestar import Request, Response
from litestar.exceptions import InternalServerException

from events import Metadata, Position
from handlers.http.bodies import check_integers, check_members, check_storable, decode
from handlers.http.front import FRONT, Front
from handlers.http.ports import Operations, Principal
from handlers.http.problems import invalid
from handlers.spending import Spending
from projections import StalePosition
from projections.queries import Queries

T = TypeVar("T")

POSITION_HEADER: Final = "Switchback-Position"
_COMMANDS: Final = UUID("3b0a6f0e-6f3c-5d0b-9a53-8f5f1d0f7c11")
"""The namespace of command ids derived from Idempotency-Key; changing it forgets every key."""
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z", re.ASCII)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate found out about a request."""

    principal: Principal
    tenant: str
    """Whose resources the path names: the key's tenant, or another one for an administrator."""
    path: str
    """Without the tenant, so that both spellings of a path are the same command."""
    min_position: Position
    idempotency_key: str | None
    traceparent: str | None


class Call(Request[Any, Any, Any]):
    """A request that has passed the gate."""

    __slots__ = ()

    @property
    def caller(self) -> Caller:
        return cast(Caller, self.scope["state"]["caller"])

    @property
    def tenant(self) -> str:
        return self.caller.tenant

    @property
    def front(self) -> Front:
        return cast(Front, self.app.state[FRONT])

    @property
    def operations(self) -> Operations:
        return self.front.services.operations

    @property
    def queries(self) -> Queries:
        return self.front.services.queries

    @property
    def min_position(self) -> Position:
        """The least position a read must reflect; 0 when the client does not care."""
        return self.caller.min_position

    def spending(self, inputs: Any, parameters: Mapping[str, Any]) -> Spending:
        """What the request takes of its key's budget: to be entered around what it asks for."""
        principal = self.caller.principal
        return self.front.services.budgets.spending(
            principal.tenant, principal.key_id, inputs, parameters
        )

    def key_holds(self) -> bool:
        """Whether the key is still one, for what outlives the moment it was asked at."""
        secret = self.headers["authorization"].partition(" ")[2].strip()
        return self.front.services.tenants.authenticate(secret) is not None

    async def metadata(self) -> Metadata:
        """Of the one command this request is."""
        caller = self.caller
        return Metadata(
            command_id=await self._command_id(caller),
            time=datetime.now(UTC),
            actor=f"key:{caller.principal.key_id}",
            traceparent=caller.traceparent,
        )

    async def log_reaches(self) -> None:
        """For reads of the log itself. Raises StalePosition if it ends before `min_position`."""
        wanted = self.min_position
        if wanted:
            actual = await self.front.services.log.position()
            if actual < wanted:
                raise StalePosition(wanted, actual)

    async def body(self) -> bytes:
        """Raises Rejected when the client ends it early or frames it wrongly."""
        try:
            return await super().body()
        except InternalServerException:
            raise invalid({"body": "ends before it is complete"}) from None

    async def json(self) -> Any:
        """The body in the type the handler's `data` is annotated with. Raises Rejected."""
        body = await self.body()
        field = self.route_handler.parsed_data_field
        assert field is not None, "only handlers with `data` ask for a body"
        check_integers(body)
        if not self.route_handler.opt.get("stored", True):
            return decode(body, field.annotation)
        check_storable(body)
        decoded = decode(body, field.annotation)
        check_members(body)
        return decoded

    async def _command_id(self, caller: Caller) -> UUID:
        """Another body is another command: the first answer would tell it a lie."""
        if caller.idempotency_key is None:
            return uuid4()
        digest = sha256(await self.body()).hexdigest()
        parts = (caller.tenant, self.method, caller.path, caller.idempotency_key, digest)
        return uuid5(_COMMANDS, "\n".join(parts))


def traceparent_of(header: str) -> str | None:
    """The header, if it is well-formed; W3C asks to ignore it otherwise."""
    return header if _TRACEPARENT.match(header) else None


def done(body: T, *, position: Position, status: int = 200) -> Response[T]:
    """The answer to a command."""
    return Response(body, status_code=status, headers={POSITION_HEADER: str(position)})
