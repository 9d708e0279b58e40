"""Tenants: who may do what. Entity `<slug>/tenant/<slug>`."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal, TypeAlias

import msgspec

from events.event import Event

Scope: TypeAlias = Literal["admin", "operate", "infer", "feedback", "read"]


class Quota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Upper bounds on a tenant's use. None is unbounded."""

    requests_per_s: int | None = None
    """Inference requests a second, over all keys and gateways."""
    commands_per_s: int | None = None
    """Control API commands a second, over all keys and gateways."""
    models_max: int | None = None
    endpoints_max: int | None = None


class TenantCreated(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.tenant.created.v1"
    name: str


class KeyIssued(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A key was handed out. The secret itself is never written down."""

    type: ClassVar[str] = "switchback.tenant.key_issued.v1"
    key_id: str
    secret_sha256: str
    """Hex digest of the whole key as the client sends it."""
    scopes: tuple[Scope, ...]
    expires_at: datetime | None = None
    tokens_per_minute: int | None = None
    """What requests with this key may take in any minute, over all gateways. None is unbounded."""


class KeyBudgetSet(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.tenant.key_budget_set.v1"
    key_id: str
    tokens_per_minute: int | None
    """In place of the one before. None is unbounded."""


class KeyRevoked(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.tenant.key_revoked.v1"
    key_id: str


class QuotaSet(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.tenant.quota_set.v1"
    quota: Quota


EVENTS: tuple[type[Event], ...] = (
    TenantCreated,
    KeyIssued,
    KeyBudgetSet,
    KeyRevoked,
    QuotaSet,
)
