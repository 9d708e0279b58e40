"""What this process routes and serves now, as HTTP asks for it: flags, metadata, the index.

All of it comes from the fold of the log in memory: it answers while Postgres, Redis and NATS are
down, executes nothing, and counts nothing as traffic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from events.event import Position
from handlers.http.inference_ports import Inference


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Which version a key gets from an endpoint, and why."""

    endpoint: str
    model: str
    version: str | None
    """None: the policy is not sticky, and no key decides between its versions."""
    reason: Literal["STATIC", "SPLIT", "TARGETING_MATCH"]
    """One version for everybody; a share of the keys; a rule."""
    rule: str | None
    position: Position
    """Of the event that set the policy."""


class ServedEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as a model of the Open Inference Protocol."""

    name: str
    model: str
    active: str
    """The version that carries the traffic, or did last."""
    taking: frozenset[str]
    """Versions that take traffic."""
    versions: Mapping[str, str]
    """Those that may be asked for by name, with their runtimes: routed to, sent copies, a
    fallback, a rollback's, a swap's or a rollout's target."""
    resident: frozenset[str]
    """Of the model, those that some node can serve."""


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as a model of OpenAI's protocol."""

    name: str
    created_s: int
    """Seconds since 1970; 0 if that is not known."""


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version, as the repository index shows it."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str


class Directory(Protocol):
    """The routes and versions of each tenant, by this process's fold."""

    async def reach(self, position: Position) -> None:
        """Return when the fold reflects the position. Raises StalePosition after a while."""
        ...

    def evaluate(
        self, tenant: str, *, endpoint: str, key: str, attributes: Mapping[str, str]
    ) -> Evaluation | None:
        """By the table of this moment; None without such an endpoint."""
        ...

    def evaluate_all(
        self, tenant: str, *, key: str, attributes: Mapping[str, str]
    ) -> Sequence[Evaluation]:
        """Every endpoint of the tenant, by name."""
        ...

    def endpoint(self, tenant: str, endpoint: str) -> ServedEndpoint | None: ...

    def model(self, tenant: str, endpoint: str) -> ServedModel | None: ...

    def models(self, tenant: str) -> Sequence[ServedModel]:
        """Every endpoint of the tenant, by name."""
        ...

    def index(self, tenant: str) -> Sequence[IndexEntry]:
        """Every registered version of the tenant's models, by model and registration."""
        ...


class VersionInferences(Protocol):
    """Requests to a version by its name, past the policy."""

    async def infer_version(
        self,
        tenant: str,
        *,
        endpoint: str,
        version: str,
        inputs: Any,
        parameters: Mapping[str, Any],
        request_id: str,
        deadline_s: float,
    ) -> Inference:
        """Nothing was decided: the answer has no receipt and no rule, and no window counts it.

        Raises what `Inferences.infer` does; `not_found` for a version that the endpoint does not
        hold ready (see `ServedEndpoint.versions`).
        """
        ...
