"""What the HTTP layer asks of the rest of the house, as Protocols.

Every method takes the tenant first, typed keyword arguments, and for commands the `Metadata` of the
request: its `command_id` is derived from `Idempotency-Key` when the client sent one, so a repeat
reaches the log with the same event ids. Implementations raise refusals (`engine.decisions`), log
errors (`events.errors`) or any exception with a `code` out of `problems.STATUS`; see
`handlers.http.problems` for how each is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from events.catalogue.endpoints import Policy, Severity
from events.catalogue.models import Artifact, RuntimeName
from events.catalogue.tenants import Quota, Scope
from events.event import Metadata, Position
from handlers.batching import BatchingReply
from handlers.http.rollout_ports import RolloutOperations
from handlers.http.views import (
    Applied,
    Explanation,
    IssuedKey,
    ModelApplied,
    Part,
    RollbackView,
    VersionApplied,
)
from handlers.spending import Spending
from projections import results

At: TypeAlias = Position | datetime
"""A moment of the log: a position, or a time (aware)."""


class Principal(Protocol):
    """Who a request comes from."""

    @property
    def tenant(self) -> str: ...

    @property
    def key_id(self) -> str: ...

    @property
    def scopes(self) -> frozenset[Scope]: ...


class Tenants(Protocol):
    """Tenants, keys and quotas, folded from the log in memory: answers while Postgres is down."""

    def authenticate(self, secret: str) -> Principal | None:
        """The holder of a key that is known, not revoked and not expired."""
        ...

    def exists(self, tenant: str) -> bool: ...

    def quota(self, tenant: str) -> Quota | None:
        """The tenant's quota; None when none was ever set."""
        ...


class Operations(RolloutOperations, Protocol):
    """Commands that need more than one entity's facts, and questions to the log itself."""

    async def create_tenant(self, tenant: str, *, metadata: Metadata) -> Applied:
        """Returns when this process's `Tenants` knows it."""
        ...

    async def issue_key(
        self,
        tenant: str,
        *,
        scopes: Sequence[Scope],
        expires_at: datetime | None,
        tokens_per_minute: int | None = None,
        metadata: Metadata,
    ) -> IssuedKey:
        """Returns when this process's `Tenants` knows it."""
        ...

    async def set_key_budget(
        self, tenant: str, *, key_id: str, tokens_per_minute: int | None, metadata: Metadata
    ) -> Applied:
        """Returns when every live gateway holds the key to it."""
        ...

    async def revoke_key(self, tenant: str, *, key_id: str, metadata: Metadata) -> Applied:
        """Returns when this process's `Tenants` has forgotten it."""
        ...

    async def set_quota(self, tenant: str, *, quota: Quota, metadata: Metadata) -> Applied: ...

    async def register_model(
        self,
        tenant: str,
        *,
        model: str,
        description: str,
        labels: Mapping[str, str],
        metadata: Metadata,
    ) -> ModelApplied:
        """With the same body again: unchanged, first position; with another body: refused."""
        ...

    async def register_version(
        self,
        tenant: str,
        *,
        model: str,
        version: str,
        runtime: RuntimeName,
        config: Mapping[str, Any],
        artifact: Artifact | None,
        parent: str | None,
        memory_bytes: int | None,
        labels: Mapping[str, str],
        metrics: Mapping[str, float],
        metadata: Metadata,
    ) -> VersionApplied:
        """With the same body again: unchanged, first position; with another body: refused."""
        ...

    async def move_alias(
        self, tenant: str, *, model: str, alias: str, version: str, metadata: Metadata
    ) -> results.Alias: ...

    async def retire_version(
        self, tenant: str, *, model: str, version: str, metadata: Metadata
    ) -> Applied:
        """Refused (`conflict`) while an endpoint routes to it."""
        ...

    async def create_endpoint(
        self, tenant: str, *, endpoint: str, model: str, version: str, metadata: Metadata
    ) -> tuple[Applied, results.Endpoint]: ...

    async def set_policy(
        self, tenant: str, *, endpoint: str, policy: Policy, metadata: Metadata
    ) -> results.Endpoint: ...

    async def swap(
        self, tenant: str, *, endpoint: str, to: str, timeout_s: float, metadata: Metadata
    ) -> results.Swap:
        """Ask for a swap; returns when it is on the log (`completed` if it was so)."""
        ...

    async def swap_ended(self, tenant: str, *, endpoint: str, swap_id: str) -> results.Swap:
        """Wait until that swap has completed or failed."""
        ...

    async def rollback(
        self, tenant: str, *, endpoint: str, reason: str, metadata: Metadata
    ) -> RollbackView:
        """Returns when every live gateway has applied it."""
        ...

    async def raise_alert(
        self,
        tenant: str,
        *,
        endpoint: str,
        kind: str,
        severity: Severity,
        version: str | None,
        detail: str,
        metadata: Metadata,
    ) -> results.Alert:
        """`version` None: the newest. A critical alert on it rolls back."""
        ...

    async def drain_node(self, *, node: str, reason: str, metadata: Metadata) -> Applied:
        """Nodes belong to no tenant."""
        ...

    async def load_version(self, tenant: str, *, model: str, version: str | None) -> Position:
        """Have it resident on the nodes, or with None every version; a position at which it is so.
        Refused: `runtime_failed`, with what the nodes said, when it cannot be."""
        ...

    async def unload_version(self, tenant: str, *, model: str, version: str | None) -> Position:
        """Have it gone from the nodes, or with None every version; a position at which it is so.
        Refused (`conflict`) while an endpoint needs one of them."""
        ...

    async def endpoint_at(self, tenant: str, *, endpoint: str, at: At) -> results.Endpoint:
        """The endpoint as it was, folded from the log. Refused (`not_found`) if it was not yet."""
        ...

    async def endpoints_at(
        self, tenant: str, *, at: At, after: str, limit: int
    ) -> Sequence[results.Endpoint]:
        """Those that existed then, by name, after a name."""
        ...

    async def explain_key(
        self,
        tenant: str,
        *,
        endpoint: str,
        key: str,
        attributes: Mapping[str, str],
        at: At | None,
    ) -> Explanation:
        """`at` None: now."""
        ...

    async def explain_receipt(self, tenant: str, *, receipt: str) -> Explanation:
        """Refused: `not_found` for another tenant's receipt, `invalid` for what is none."""
        ...


class Budgets(Protocol):
    """What keys may take."""

    def spending(
        self, tenant: str, key_id: str, inputs: Any, parameters: Mapping[str, Any]
    ) -> Spending:
        """Of one request with this key, which is that tenant's: to be entered around it, which
        raises exceptions whose `code` is `rate_limited` or `invalid`."""
        ...


class Batchings(Protocol):
    """What schedulers say of themselves."""

    async def of(self, node_id: str) -> BatchingReply:
        """All versions of one node, whoever's they are. Raises exceptions whose `code` is
        `not_found` for a node that never joined, `unavailable` for one that does not answer."""
        ...


class Readiness(Protocol):
    """The state of each part: `log`, `tables`, `cache`, `routing`, `node`."""

    async def parts(self) -> Mapping[str, Part]: ...
