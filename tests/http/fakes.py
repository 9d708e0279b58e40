"""The ports of `handlers.http`, in memory: enough of the house for HTTP to stand on.

They decide little: what they refuse, real decisions refuse too. Events go to a real (memory) log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.decisions.decider import Conflict, Invalid, NotFound
from events import EntityId, Event, EventLog, Metadata, Position
from events.catalogue.endpoints import (
    AlertRaised,
    EndpointCreated,
    Policy,
    PolicySet,
    RolledBack,
    Severity,
    SwapCompleted,
)
from events.catalogue.models import AliasMoved, ModelRegistered, VersionRegistered, VersionRetired
from events.catalogue.nodes import NodeDraining
from events.catalogue.tenants import (
    KeyBudgetSet,
    KeyIssued,
    KeyRevoked,
    Quota,
    QuotaSet,
    Scope,
    TenantCreated,
)
from events.codec import CloudEvent, cloud_event
from handlers.batching import BatchingReply, NodeSilent, NodeUnknown
from handlers.http.ports import At
from handlers.http.views import (
    Applied,
    ExplainedEvent,
    Explanation,
    IssuedKey,
    ModelApplied,
    Part,
    RollbackView,
    VersionApplied,
)
from handlers.spending import UNBOUNDED, Spending
from projections import StalePosition, results
from projections.results import Page
from tests.http.fake_rollouts import FakeRollouts


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str
    key_id: str
    scopes: frozenset[Scope]


class Missing(NotFound):
    pass


class Different(Conflict):
    pass


class FakeTenants:
    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}
        self.known: set[str] = set()
        self.quotas: dict[str, Quota] = {}

    def add(self, tenant: str, *scopes: Scope) -> str:
        self.known.add(tenant)
        secret = f"{tenant}-{'-'.join(scopes)}"
        self.principals[secret] = Principal(
            tenant=tenant, key_id=f"k-{len(self.principals)}", scopes=frozenset(scopes)
        )
        return secret

    def authenticate(self, secret: str) -> Principal | None:
        return self.principals.get(secret)

    def exists(self, tenant: str) -> bool:
        return tenant in self.known

    def quota(self, tenant: str) -> Quota | None:
        return self.quotas.get(tenant)


class FakeOperations(FakeRollouts):
    def __init__(self, log: EventLog, tenants: FakeTenants) -> None:
        self.log = log
        self.tenants = tenants
        self.models: dict[tuple[str, str], results.Model] = {}
        self.versions: dict[tuple[str, str, str], results.Version] = {}
        self.endpoints: dict[tuple[str, str], results.Endpoint] = {}
        self.rollouts: dict[tuple[str, str, str], results.Rollout] = {}
        self.metadata: list[Metadata] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def _append(
        self, tenant: str, aggregate: str, id_: str, event: Event, metadata: Metadata
    ) -> Position:
        entity = EntityId(tenant, aggregate, id_)
        self.metadata.append(metadata)
        last = 0
        async for recorded in self.log.read(entity):
            if recorded.id == metadata.event_id(0):
                return recorded.position
            last = recorded.position
        return await self.log.append(entity, [event], expected=last, metadata=metadata)

    async def create_tenant(self, tenant: str, *, metadata: Metadata) -> Applied:
        event = TenantCreated(name=tenant)
        position = await self._append(tenant, "tenant", tenant, event, metadata)
        self.tenants.known.add(tenant)
        return Applied(position=position, changed=True)

    async def issue_key(
        self,
        tenant: str,
        *,
        scopes: Sequence[Scope],
        expires_at: datetime | None,
        tokens_per_minute: int | None = None,
        metadata: Metadata,
    ) -> IssuedKey:
        secret = self.tenants.add(tenant, *scopes)
        event = KeyIssued(
            key_id="new",
            secret_sha256="0" * 64,
            scopes=tuple(scopes),
            expires_at=expires_at,
            tokens_per_minute=tokens_per_minute,
        )
        position = await self._append(tenant, "tenant", tenant, event, metadata)
        return IssuedKey(
            position=position,
            id="new",
            key=secret,
            scopes=tuple(scopes),
            expires_at=expires_at,
            tokens_per_minute=tokens_per_minute,
        )

    async def set_key_budget(
        self, tenant: str, *, key_id: str, tokens_per_minute: int | None, metadata: Metadata
    ) -> Applied:
        event = KeyBudgetSet(key_id=key_id, tokens_per_minute=tokens_per_minute)
        position = await self._append(tenant, "tenant", tenant, event, metadata)
        return Applied(position=position, changed=True)

    async def revoke_key(self, tenant: str, *, key_id: str, metadata: Metadata) -> Applied:
        event = KeyRevoked(key_id=key_id)
        position = await self._append(tenant, "tenant", tenant, event, metadata)
        return Applied(position=position, changed=True)

    async def set_quota(self, tenant: str, *, quota: Quota, metadata: Metadata) -> Applied:
        self.tenants.quotas[tenant] = quota
        event = QuotaSet(quota=quota)
        position = await self._append(tenant, "tenant", tenant, event, metadata)
        return Applied(position=position, changed=True)

    async def register_model(
        self,
        tenant: str,
        *,
        model: str,
        description: str,
        labels: Mapping[str, str],
        metadata: Metadata,
    ) -> ModelApplied:
        known = self.models.get((tenant, model))
        if known is not None:
            if (known.description, known.labels) != (description, dict(labels)):
                raise Different(f"model {model} exists with another body")
            return ModelApplied(position=known.position, changed=False, aliases=known.aliases)
        event = ModelRegistered(name=model, description=description, labels=dict(labels))
        position = await self._append(tenant, "model", model, event, metadata)
        self.models[tenant, model] = results.Model(
            name=model,
            description=description,
            labels=dict(labels),
            aliases={},
            registered_at=metadata.time,
            position=position,
        )
        return ModelApplied(position=position, changed=True, aliases={})

    async def register_version(
        self, tenant: str, *, model: str, version: str, metadata: Metadata, **body: Any
    ) -> VersionApplied:
        if (tenant, model) not in self.models:
            raise Missing("there is no such model")
        event = VersionRegistered(version=version, **body)
        position = await self._append(tenant, "model", model, event, metadata)
        self.versions[tenant, model, version] = results.Version(
            model=model,
            version=version,
            state="registered",
            residency=[],
            registered_at=metadata.time,
            position=position,
            **body,
        )
        return VersionApplied(position=position, changed=True, state="registered")

    async def move_alias(
        self, tenant: str, *, model: str, alias: str, version: str, metadata: Metadata
    ) -> results.Alias:
        if (tenant, model, version) not in self.versions:
            raise Missing(f"there is no version {version}")
        event = AliasMoved(alias=alias, to_version=version)
        position = await self._append(tenant, "model", model, event, metadata)
        self.models[tenant, model].aliases[alias] = version
        return results.Alias(model=model, alias=alias, version=version, position=position)

    async def retire_version(
        self, tenant: str, *, model: str, version: str, metadata: Metadata
    ) -> Applied:
        if (tenant, model, version) not in self.versions:
            raise Missing(f"there is no version {version}")
        event = VersionRetired(version=version)
        position = await self._append(tenant, "model", model, event, metadata)
        return Applied(position=position, changed=True)

    async def create_endpoint(
        self, tenant: str, *, endpoint: str, model: str, version: str, metadata: Metadata
    ) -> tuple[Applied, results.Endpoint]:
        if (tenant, model, version) not in self.versions:
            raise Missing(f"there is no version {model}@{version}")
        policy = Policy(split={version: 100.0})
        event = EndpointCreated(model=model, version=version, policy=policy)
        position = await self._append(tenant, "endpoint", endpoint, event, metadata)
        made = results.Endpoint(
            name=endpoint,
            model=model,
            policy=policy,
            active=version,
            previous=None,
            swap=None,
            alerts=[],
            created_at=metadata.time,
            updated_at=metadata.time,
            position=position,
        )
        self.endpoints[tenant, endpoint] = made
        return Applied(position=position, changed=True), made

    def _endpoint(self, tenant: str, endpoint: str) -> results.Endpoint:
        found = self.endpoints.get((tenant, endpoint))
        if found is None:
            raise Missing("there is no such endpoint")
        return found

    async def set_policy(
        self, tenant: str, *, endpoint: str, policy: Policy, metadata: Metadata
    ) -> results.Endpoint:
        known = self._endpoint(tenant, endpoint)
        if any(weight < 0 for weight in policy.split.values()):
            raise Invalid({"split": "a weight is negative"})
        position = await self._append(
            tenant, "endpoint", endpoint, PolicySet(policy=policy), metadata
        )
        changed = msgspec.structs.replace(known, policy=policy, position=position)
        self.endpoints[tenant, endpoint] = changed
        return changed

    async def swap(
        self, tenant: str, *, endpoint: str, to: str, timeout_s: float, metadata: Metadata
    ) -> results.Swap:
        known = self._endpoint(tenant, endpoint)
        swap = results.Swap(
            id=str(metadata.command_id),
            from_=known.active or "",
            to=to,
            state="requested",
            requested_at=metadata.time,
            deadline=metadata.time,
            position=known.position,
        )
        self.endpoints[tenant, endpoint] = msgspec.structs.replace(known, swap=swap)
        return swap

    async def swap_ended(self, tenant: str, *, endpoint: str, swap_id: str) -> results.Swap:
        swap = self._endpoint(tenant, endpoint).swap
        assert swap is not None
        assert swap.id == swap_id
        event = SwapCompleted(
            swap_id=swap_id,
            from_version=swap.from_,
            to_version=swap.to,
            policy=Policy(split={swap.to: 100.0}),
        )
        position = await self._append(tenant, "endpoint", endpoint, event, Metadata())
        return msgspec.structs.replace(swap, state="completed", duration_ms=1.0, position=position)

    async def rollback(
        self, tenant: str, *, endpoint: str, reason: str, metadata: Metadata
    ) -> RollbackView:
        known = self._endpoint(tenant, endpoint)
        event = RolledBack(
            from_versions=(known.active or "",),
            to_version="1.0.0",
            reason=reason,
            policy=known.policy,
        )
        position = await self._append(tenant, "endpoint", endpoint, event, metadata)
        return RollbackView(
            from_=known.active or "", to="1.0.0", reason=reason, duration_ms=1.0, position=position
        )

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
        known = self._endpoint(tenant, endpoint)
        event = AlertRaised(
            alert_id="a1", kind=kind, severity=severity, version=version, detail=detail
        )
        position = await self._append(tenant, "endpoint", endpoint, event, metadata)
        return results.Alert(
            id="a1",
            kind=kind,
            severity=severity,
            version=version or known.active,
            detail=detail,
            raised_at=metadata.time,
            position=position,
        )

    async def drain_node(self, *, node: str, reason: str, metadata: Metadata) -> Applied:
        event = NodeDraining(reason=reason)
        position = await self._append("system", "node", node, event, metadata)
        return Applied(position=position, changed=True)

    async def endpoint_at(self, tenant: str, *, endpoint: str, at: At) -> results.Endpoint:
        self.calls.append(("endpoint_at", {"at": at}))
        return self._endpoint(tenant, endpoint)

    async def endpoints_at(
        self, tenant: str, *, at: At, after: str, limit: int
    ) -> Sequence[results.Endpoint]:
        found = [e for (t, _), e in sorted(self.endpoints.items()) if t == tenant]
        return [endpoint for endpoint in found if endpoint.name > after][:limit]

    async def explain_key(
        self,
        tenant: str,
        *,
        endpoint: str,
        key: str,
        attributes: Mapping[str, str],
        at: At | None,
    ) -> Explanation:
        self.calls.append(("explain_key", {"key": key, "attributes": attributes, "at": at}))
        known = self._endpoint(tenant, endpoint)
        event = ExplainedEvent(id="e", type="t", time=datetime.now(UTC), actor="local")
        return Explanation(
            endpoint=endpoint,
            version=known.active or "",
            bucket=1,
            rule=None,
            position=known.position,
            event=event,
        )

    async def explain_receipt(self, tenant: str, *, receipt: str) -> Explanation:
        raise Invalid({"receipt": "is not a receipt"})


class FakeQueries:
    """One object for every group of queries; reads what `FakeOperations` holds."""

    def __init__(self, operations: FakeOperations) -> None:
        self._house = operations
        self.models = _Models(operations)
        self.endpoints = _Endpoints(operations)
        self.rollouts = _Rollouts(operations)
        self.nodes = _Nodes(operations)
        self.events = _Events(operations)
        self.tenants = _Tenants(operations)

    async def caught_up(self, position: Position, *, within_s: float) -> bool:
        return await self._house.log.position() >= position


class _Reads:
    def __init__(self, house: FakeOperations) -> None:
        self.house = house

    async def reach(self, min_position: Position) -> None:
        actual = await self.house.log.position()
        if actual < min_position:
            raise StalePosition(min_position, actual)


class _Models(_Reads):
    async def get(
        self, tenant: str, name: str, *, min_position: Position = 0
    ) -> results.Model | None:
        await self.reach(min_position)
        return self.house.models.get((tenant, name))

    async def list(
        self, tenant: str, *, after: str, limit: int, min_position: Position
    ) -> Page[results.Model]:
        await self.reach(min_position)
        found = [m for (t, _), m in sorted(self.house.models.items()) if t == tenant]
        items = [model for model in found if model.name > after]
        cut = items[:limit]
        return Page(items=cut, next=cut[-1].name if len(items) > limit else None)

    async def version(
        self, tenant: str, model: str, version: str, *, min_position: Position
    ) -> results.Version | None:
        await self.reach(min_position)
        return self.house.versions.get((tenant, model, version))

    async def versions(
        self, tenant: str, model: str, *, after: str, limit: int, min_position: Position
    ) -> Page[results.Version]:
        await self.reach(min_position)
        keys = [key for key in self.house.versions if key[:2] == (tenant, model)]
        return Page(items=[self.house.versions[key] for key in keys], next=None)

    async def lineage(
        self, tenant: str, model: str, version: str, *, min_position: Position
    ) -> results.Lineage | None:
        await self.reach(min_position)
        known = (tenant, model, version) in self.house.versions
        return results.Lineage(ancestors=[], descendants=[]) if known else None

    async def alias(
        self, tenant: str, model: str, alias: str, *, min_position: Position
    ) -> results.Alias | None:
        await self.reach(min_position)
        return None

    async def alias_history(
        self, tenant: str, model: str, alias: str, **_: Any
    ) -> Page[results.AliasMove]:
        return Page(items=[], next=None)


class _Endpoints(_Reads):
    async def get(
        self, tenant: str, name: str, *, min_position: Position = 0
    ) -> results.Endpoint | None:
        await self.reach(min_position)
        return self.house.endpoints.get((tenant, name))

    async def list(
        self, tenant: str, *, after: str, limit: int, min_position: Position
    ) -> Page[results.Endpoint]:
        await self.reach(min_position)
        found = [e for (t, _), e in sorted(self.house.endpoints.items()) if t == tenant]
        return Page(items=found[:limit], next=None)


class _Rollouts(_Reads):
    async def get(
        self, tenant: str, endpoint: str, rollout: str, *, min_position: Position
    ) -> results.Rollout | None:
        await self.reach(min_position)
        return self.house.rollouts.get((tenant, endpoint, rollout))

    async def list(
        self, tenant: str, endpoint: str, *, after: str, limit: int, min_position: Position
    ) -> Page[results.Rollout]:
        await self.reach(min_position)
        keys = [key for key in self.house.rollouts if key[:2] == (tenant, endpoint)]
        found = [self.house.rollouts[key] for key in reversed(keys)]
        return Page(items=found[:limit], next=None)


class _Nodes(_Reads):
    async def get(self, tenant: str, node: str, *, min_position: Position) -> None:
        await self.reach(min_position)

    async def list(self, tenant: str, *, min_position: Position, **_: Any) -> Page[results.Node]:
        await self.reach(min_position)
        return Page(items=[], next=None)


class _Tenants(_Reads):
    async def get(self, tenant: str, *, min_position: Position) -> results.Tenant:
        await self.reach(min_position)
        quota = self.house.tenants.quotas.get(tenant, Quota())
        now = datetime.now(UTC)
        return results.Tenant(id=tenant, name=tenant, quota=quota, created_at=now, position=1)

    async def keys(self, tenant: str, *, min_position: Position, **_: Any) -> Page[results.Key]:
        await self.reach(min_position)
        return Page(items=[], next=None)


class _Events(_Reads):
    async def list(
        self,
        tenant: str,
        *,
        after: Position,
        limit: int,
        entity: EntityId | None,
        min_position: Position,
    ) -> Page[CloudEvent]:
        await self.reach(min_position)
        last = await self.house.log.position()
        items: list[CloudEvent] = []
        if last > after:
            async for recorded in self.house.log.subscribe("evt.>", after=after):
                if recorded.entity.tenant == tenant and entity in (None, recorded.entity):
                    items.append(cloud_event(recorded))
                if recorded.position >= last:
                    break
        cut = items[:limit]
        return Page(items=cut, next=str(cut[-1].position) if len(items) > limit else None)


class FakeInference(msgspec.Struct, frozen=True, kw_only=True):
    outputs: Any
    request_id: str
    version: str = "1.0.0"
    position: Position = 7
    receipt: str = "r.1"
    rule: str | None = "büro hours\n"
    overhead_ms: float = 0.25
    attempts: int = 1


class FailedInference(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(f"inference failed: {code}")
        self.code = code


class FakeInferences:
    """Answers the inputs; an input `{"fail": code}` fails with it, `{"wait": true}` waits."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()

    async def infer(self, tenant: str, **request: Any) -> FakeInference:
        self.requests.append({"tenant": tenant, **request})
        inputs = request["inputs"]
        if isinstance(inputs, dict) and "fail" in inputs:
            raise FailedInference(inputs["fail"])
        if isinstance(inputs, dict) and "wait" in inputs:
            self.waiting.set()
            await self.go_on.wait()
        return FakeInference(outputs=inputs, request_id=request["request_id"])


class FakeBudgets:
    """No key has one."""

    def spending(self, *_: object) -> Spending:
        return UNBOUNDED


class FakeBatchings:
    """Nodes that say what a test wants; a node without a reply is silent."""

    def __init__(self) -> None:
        self.nodes: dict[str, BatchingReply | None] = {}
        self.scrapes = 0

    async def of(self, node_id: str) -> BatchingReply:
        if node_id not in self.nodes:
            raise NodeUnknown(node_id)
        reply = self.nodes[node_id]
        if reply is None:
            raise NodeSilent(node_id)
        return reply

    async def scraped(self) -> None:
        self.scrapes += 1


class FakeReadiness:
    def __init__(self) -> None:
        self.state: dict[str, Part] = {
            "log": Part(state="ok", required=True),
            "tables": Part(state="ok", required=True, position=10, lag=0),
            "cache": Part(state="down", required=False, detail="cannot be reached"),
        }

    async def parts(self) -> Mapping[str, Part]:
        return self.state
