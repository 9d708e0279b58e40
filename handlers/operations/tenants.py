"""Tenants, keys and quotas. Each returns when every live gateway knows it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.decisions import tenant as tenants
from events import EntityId, Metadata
from events.catalogue.tenants import Quota, Scope
from handlers.commands import Outcome
from handlers.http.views import Applied, IssuedKey
from handlers.keys import digest
from handlers.operations.base import OperationsBase, applied


class TenantOperations(OperationsBase):
    async def create_tenant(self, tenant: str, *, metadata: Metadata) -> Applied:
        return await self._on_tenant(tenant, tenants.CreateTenant(name=tenant), metadata)

    async def issue_key(
        self,
        tenant: str,
        *,
        scopes: Sequence[Scope],
        expires_at: datetime | None,
        tokens_per_minute: int | None = None,
        metadata: Metadata,
    ) -> IssuedKey:
        """The secret is shown in this answer and its repeats, and kept nowhere."""
        secret = self._key_secret(metadata.command_id)
        issue = tenants.IssueKey(
            key_id=metadata.event_id(0).hex[:16],
            secret_sha256=digest(secret),
            scopes=tuple(scopes),
            expires_at=expires_at,
            tokens_per_minute=tokens_per_minute,
        )
        outcome = await self._handle_on_tenant(tenant, issue, metadata)
        assert outcome.state is not None, "a key that was not refused belongs to a tenant"
        issued = outcome.state.keys[issue.key_id]
        return IssuedKey(
            position=outcome.position,
            id=issue.key_id,
            key=secret,
            scopes=issued.scopes,
            expires_at=issued.expires_at,
            tokens_per_minute=issued.tokens_per_minute,
        )

    async def set_key_budget(
        self, tenant: str, *, key_id: str, tokens_per_minute: int | None, metadata: Metadata
    ) -> Applied:
        """In place of the one before; None is unbounded."""
        command = tenants.SetKeyBudget(key_id=key_id, tokens_per_minute=tokens_per_minute)
        return await self._on_tenant(tenant, command, metadata)

    async def revoke_key(self, tenant: str, *, key_id: str, metadata: Metadata) -> Applied:
        return await self._on_tenant(tenant, tenants.RevokeKey(key_id=key_id), metadata)

    async def set_quota(self, tenant: str, *, quota: Quota, metadata: Metadata) -> Applied:
        return await self._on_tenant(tenant, tenants.SetQuota(quota=quota), metadata)

    async def _on_tenant(
        self, tenant: str, command: tenants.Command, metadata: Metadata
    ) -> Applied:
        return applied(await self._handle_on_tenant(tenant, command, metadata))

    async def _handle_on_tenant(
        self, tenant: str, command: tenants.Command, metadata: Metadata
    ) -> Outcome[tenants.State]:
        entity = EntityId(tenant, "tenant", tenant)
        outcome = await self._commands.handle(tenants.DECIDER, entity, command, metadata=metadata)
        await self._gateways.applied(outcome.position)
        return outcome
