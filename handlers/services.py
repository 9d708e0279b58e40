"""Commands over NATS: `cmd.<tenant>.<aggregate>.<verb>`, JSON in, JSON out.

The same operations as over HTTP. Who may publish where is for the NATS server to say (deploy/nats):
whoever reaches a tenant's subject acts for that tenant. A payload may carry `command_id` (a UUID; a
repeat is answered with the first outcome) and `actor`. Errors come as the code and detail of the
problem document that HTTP would answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias
from uuid import UUID, uuid4, uuid5

import msgspec
import structlog

from engine.decisions.rollout_plan import DEFAULT_STEPS
from events import EntityId, Metadata
from events.bus import Bus, Service
from events.catalogue.endpoints import Analysis, Policy, Severity
from events.catalogue.models import Artifact, RuntimeName
from events.catalogue.tenants import Quota, Scope
from events.errors import RemoteFailure
from handlers.http.problems import problem_of
from handlers.http.rollout_ports import PromoteTo
from handlers.http.rollouts import Steps
from handlers.http.switching import SWAP_TIMEOUT_S, SWAP_TIMEOUT_S_MAX
from handlers.http.tenants import EXPIRES_S_MAX
from handlers.operations import Operations

_log = structlog.get_logger(__name__)

SUBJECTS: Final = "cmd.*.*.*"
QUEUE: Final = "commands"
PAYLOAD_BYTES_MAX: Final = 1024 * 1024


class Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every command may carry."""

    command_id: UUID | None = None
    actor: str = "nats"

    def metadata(self, subject: str, payload: bytes) -> Metadata:
        """The same id with another payload is another command, as over HTTP."""
        command_id = uuid4()
        if self.command_id is not None:
            command_id = uuid5(self.command_id, f"{subject}\n{sha256(payload).hexdigest()}")
        return Metadata(command_id=command_id, time=datetime.now(UTC), actor=self.actor[:200])


class RegisterModel(Payload, frozen=True, kw_only=True):
    model: str
    description: str = ""
    labels: dict[str, str] = {}


class RegisterVersion(Payload, frozen=True, kw_only=True):
    model: str
    version: str
    runtime: RuntimeName
    config: dict[str, Any] = {}
    artifact: Artifact | None = None
    parent: str | None = None
    memory_bytes: int | None = None
    labels: dict[str, str] = {}
    metrics: dict[str, float] = {}


class MoveAlias(Payload, frozen=True, kw_only=True):
    model: str
    alias: str
    version: str


class RetireVersion(Payload, frozen=True, kw_only=True):
    model: str
    version: str


class CreateEndpoint(Payload, frozen=True, kw_only=True):
    endpoint: str
    model: str
    version: str


class SetPolicy(Payload, frozen=True, kw_only=True):
    endpoint: str
    policy: Policy


class RequestSwap(Payload, frozen=True, kw_only=True):
    endpoint: str
    to: str
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=SWAP_TIMEOUT_S_MAX)] = SWAP_TIMEOUT_S


class RollBack(Payload, frozen=True, kw_only=True):
    endpoint: str
    reason: str = ""


class StartRollout(Payload, frozen=True, kw_only=True):
    endpoint: str
    to: str
    steps: Steps = DEFAULT_STEPS
    analysis: Analysis = Analysis()


class PromoteRollout(Payload, frozen=True, kw_only=True):
    endpoint: str
    rollout_id: str
    to: PromoteTo = "next"
    from_step: Annotated[int, msgspec.Meta(ge=0)] | None = None


class PauseRollout(Payload, frozen=True, kw_only=True):
    endpoint: str
    rollout_id: str


class ResumeRollout(Payload, frozen=True, kw_only=True):
    endpoint: str
    rollout_id: str


class AbortRollout(Payload, frozen=True, kw_only=True):
    endpoint: str
    rollout_id: str
    reason: str = ""


class RaiseAlert(Payload, frozen=True, kw_only=True):
    endpoint: str
    kind: str
    severity: Severity
    version: str | None = None
    detail: str = ""


class CreateTenant(Payload, frozen=True, kw_only=True):
    pass


class IssueKey(Payload, frozen=True, kw_only=True):
    scopes: tuple[Scope, ...]
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=EXPIRES_S_MAX)] | None = None
    tokens_per_minute: int | None = None


class SetKeyBudget(Payload, frozen=True, kw_only=True):
    key_id: str
    tokens_per_minute: int | None


class RevokeKey(Payload, frozen=True, kw_only=True):
    key_id: str


class SetQuota(Payload, frozen=True, kw_only=True):
    quota: Quota


class DrainNode(Payload, frozen=True, kw_only=True):
    node: str
    reason: str = ""


_Method: TypeAlias = Callable[..., Awaitable[Any]]
_OWN: Final = frozenset(Payload.__struct_fields__)

VERBS: Final[Mapping[tuple[str, str], tuple[type[Payload], Callable[[Operations], _Method]]]] = (
    MappingProxyType(
        {
            ("model", "register"): (RegisterModel, lambda o: o.register_model),
            ("model", "register_version"): (RegisterVersion, lambda o: o.register_version),
            ("model", "move_alias"): (MoveAlias, lambda o: o.move_alias),
            ("model", "retire_version"): (RetireVersion, lambda o: o.retire_version),
            ("endpoint", "create"): (CreateEndpoint, lambda o: _second(o.create_endpoint)),
            ("endpoint", "set_policy"): (SetPolicy, lambda o: o.set_policy),
            ("endpoint", "swap"): (RequestSwap, lambda o: o.swap),
            ("endpoint", "roll_back"): (RollBack, lambda o: o.rollback),
            ("endpoint", "start_rollout"): (StartRollout, lambda o: o.start_rollout),
            ("endpoint", "promote_rollout"): (PromoteRollout, lambda o: o.promote_rollout),
            ("endpoint", "pause_rollout"): (PauseRollout, lambda o: o.pause_rollout),
            ("endpoint", "resume_rollout"): (ResumeRollout, lambda o: o.resume_rollout),
            ("endpoint", "abort_rollout"): (AbortRollout, lambda o: o.abort_rollout),
            ("endpoint", "raise_alert"): (RaiseAlert, lambda o: o.raise_alert),
            ("tenant", "create"): (CreateTenant, lambda o: o.create_tenant),
            ("tenant", "issue_key"): (IssueKey, lambda o: _expiring(o.issue_key)),
            ("tenant", "set_key_budget"): (SetKeyBudget, lambda o: o.set_key_budget),
            ("tenant", "revoke_key"): (RevokeKey, lambda o: o.revoke_key),
            ("tenant", "set_quota"): (SetQuota, lambda o: o.set_quota),
            ("node", "drain"): (DrainNode, lambda o: _tenantless(o.drain_node)),
        }
    )
)
"""(aggregate, verb) -> the shape of its payload, and what it does."""


class CommandServices:
    """Serves every verb on one connection; any number of processes share the work."""

    def __init__(self, *, bus: Bus, operations: Operations) -> None:
        self._bus = bus
        self._operations = operations

    async def serve(self) -> Service:
        return await self._bus.serve(SUBJECTS, self._handle, queue=QUEUE)

    async def _handle(self, subject: str, payload: bytes) -> bytes:
        try:
            return msgspec.json.encode(await self._dispatch(subject, payload))
        except Exception as error:  # as over HTTP: every error is a problem, none ends the service
            problem, _ = problem_of(error)
            if problem.code == "internal":
                _log.exception("a command failed unexpectedly", subject=subject)
            raise RemoteFailure(subject, problem.code, problem.detail) from error

    async def _dispatch(self, subject: str, payload: bytes) -> Any:
        _, tenant, aggregate, verb = subject.split(".")
        EntityId(tenant, aggregate, "any")  # refuses what could widen a subject
        known = VERBS.get((aggregate, verb))
        if known is None:
            raise CommandRefused("not_found", f"there is no command {aggregate}.{verb}")
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise CommandRefused("too_large", f"more than {PAYLOAD_BYTES_MAX} bytes")
        shape, method = known
        try:
            command = msgspec.json.decode(payload or b"{}", type=shape)
        except msgspec.MsgspecError as error:
            raise CommandRefused("invalid", str(error)) from error
        arguments = {
            name: getattr(command, name) for name in shape.__struct_fields__ if name not in _OWN
        }
        metadata = command.metadata(subject, payload)
        return await method(self._operations)(tenant, **arguments, metadata=metadata)


class CommandRefused(Exception):
    """A message that is no command."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def _second(method: _Method) -> _Method:
    async def create(tenant: str, **arguments: Any) -> Any:
        _, view = await method(tenant, **arguments)
        return view

    return create


def _expiring(method: _Method) -> _Method:
    def issue(
        tenant: str, *, expires_s: float | None, metadata: Metadata, **arguments: Any
    ) -> Awaitable[Any]:
        expires_at = metadata.time + timedelta(seconds=expires_s) if expires_s else None
        return method(tenant, expires_at=expires_at, metadata=metadata, **arguments)

    return issue


def _tenantless(method: _Method) -> _Method:
    def drain(_tenant: str, **arguments: Any) -> Awaitable[Any]:
        return method(**arguments)

    return drain
