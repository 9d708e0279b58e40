"""Tenants and their keys (digests only)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType

from msgspec.structs import replace

from events.catalogue.tenants import (
    KeyBudgetSet,
    KeyIssued,
    KeyRevoked,
    Quota,
    QuotaSet,
    Scope,
    TenantCreated,
)
from events.event import Recorded
from projections.projection import On, Projection, Read
from projections.table import Row, Table
from projections.working import WorkingSet


class TenantRow(Row, frozen=True, kw_only=True):
    name: str
    quota: Quota
    created_at: datetime


class KeyRow(Row, frozen=True, kw_only=True):
    key_id: str
    secret_sha256: str
    scopes: tuple[Scope, ...]
    issued_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    tokens_per_minute: int | None


TENANTS = Table("tenants", TenantRow, key=("tenant",))
KEYS = Table("keys", KeyRow, key=("tenant", "key_id"))


def _created(rows: WorkingSet, recorded: Recorded, event: TenantCreated) -> None:
    rows[TENANTS].put(
        TenantRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            name=event.name,
            quota=Quota(),
            created_at=recorded.time,
        )
    )


def _quota_set(rows: WorkingSet, recorded: Recorded, event: QuotaSet) -> None:
    tenant = rows[TENANTS].get((recorded.entity.tenant,))
    if tenant is not None:
        rows[TENANTS].put(replace(tenant, quota=event.quota, position=recorded.position))


def _key_issued(rows: WorkingSet, recorded: Recorded, event: KeyIssued) -> None:
    rows[KEYS].put(
        KeyRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            key_id=event.key_id,
            secret_sha256=event.secret_sha256,
            scopes=event.scopes,
            issued_at=recorded.time,
            expires_at=event.expires_at,
            revoked_at=None,
            tokens_per_minute=event.tokens_per_minute,
        )
    )


def _key_budget_set(rows: WorkingSet, recorded: Recorded, event: KeyBudgetSet) -> None:
    key = rows[KEYS].get((recorded.entity.tenant, event.key_id))
    if key is not None:
        bounded = replace(key, tokens_per_minute=event.tokens_per_minute)
        rows[KEYS].put(replace(bounded, position=recorded.position))


def _key_revoked(rows: WorkingSet, recorded: Recorded, event: KeyRevoked) -> None:
    key = rows[KEYS].get((recorded.entity.tenant, event.key_id))
    if key is not None:
        rows[KEYS].put(replace(key, revoked_at=recorded.time, position=recorded.position))


def _tenant_row(recorded: Recorded) -> Iterable[Read]:
    yield TENANTS, (recorded.entity.tenant,)


def _key_row(recorded: Recorded) -> Iterable[Read]:
    assert isinstance(recorded.event, KeyBudgetSet | KeyRevoked)
    yield KEYS, (recorded.entity.tenant, recorded.event.key_id)


PROJECTION = Projection(
    name="tenants",
    version=2,
    tables=(TENANTS, KEYS),
    on=MappingProxyType(
        {
            TenantCreated: On(_created),
            QuotaSet: On(_quota_set, _tenant_row),
            KeyIssued: On(_key_issued),
            KeyBudgetSet: On(_key_budget_set, _key_row),
            KeyRevoked: On(_key_revoked, _key_row),
        }
    ),
)
