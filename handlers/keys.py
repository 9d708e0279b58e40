"""Who holds which key: tenants folded from the log, so gateways need no Postgres to know them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from engine.decisions import tenant
from events import Recorded
from events.catalogue.tenants import Quota, Scope


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from."""

    tenant: str
    key_id: str
    scopes: frozenset[Scope]


class _Holder(msgspec.Struct, frozen=True, kw_only=True):
    principal: Principal
    expires_at: datetime | None


def digest(secret: str) -> str:
    """What the log keeps of a key: SHA-256, hex. Keys are 256 random bits, so no salt is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Keyring:
    """The fold of every tenant."""

    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.tenants: dict[str, tenant.Tenant] = {}
        self._holders: dict[str, dict[tuple[str, str], _Holder]] = {}
        """Digest -> (tenant, key id) -> who it lets in: a secret may be issued more than once."""
        self._now = now

    def apply(self, recorded: Recorded) -> None:
        """Fold one event of a tenant."""
        name = recorded.entity.id
        before = self.tenants.get(name)
        state = tenant.DECIDER.evolve(before, recorded.event)
        assert state is not None, "an event leaves a tenant that exists"
        self.restore(name, state)

    def restore(self, name: str, state: tenant.Tenant) -> None:
        """Take a tenant's state as it is."""
        self.tenants[name] = state
        for key_id, key in state.keys.items():
            holders = self._holders.setdefault(key.secret_sha256, {})
            if key.revoked:
                holders.pop((name, key_id), None)
            elif (name, key_id) not in holders:
                scopes = frozenset(key.scopes)
                holders[name, key_id] = _Holder(
                    principal=Principal(tenant=name, key_id=key_id, scopes=scopes),
                    expires_at=key.expires_at,
                )

    def authenticate(self, secret: str) -> Principal | None:
        """The holder of a key that is known, not revoked and not expired."""
        holders = self._holders.get(digest(secret), {})
        for _, holder in sorted(holders.items()):
            if holder.expires_at is None or holder.expires_at > self._now():
                return holder.principal
        return None

    def exists(self, name: str) -> bool:
        return name in self.tenants

    def tokens_per_minute(self, tenant: str, key_id: str) -> int | None:
        """The budget of a key; None when it has none, or is not known."""
        state = self.tenants.get(tenant)
        key = state.keys.get(key_id) if state is not None else None
        return key.tokens_per_minute if key is not None else None

    def quota(self, name: str) -> Quota | None:
        """The tenant's quota; None when none was ever set."""
        state = self.tenants.get(name)
        return state.quota if state is not None else None
