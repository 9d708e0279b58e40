"""Tenants: who may do what. Entity `<slug>/tenant/<slug>`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias, cast, get_args

import msgspec
from msgspec.structs import asdict, replace

from engine.decisions.decider import Conflict, Decider, ForeignEvent, Invalid, NotFound
from engine.decisions.maps import EMPTY, with_entry
from events import Event
from events.catalogue.tenants import (
    KeyBudgetSet,
    KeyIssued,
    KeyRevoked,
    Quota,
    QuotaSet,
    Scope,
    TenantCreated,
)
from events.event import IDENTIFIER, SYSTEM_TENANT

SCOPES: Final[frozenset[str]] = frozenset(get_args(Scope))
QUOTA_MAX: Final = 1_000_000_000
TOKENS_PER_MINUTE_MAX: Final = 1_000_000_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")

# ---------------------------------------------------------------------------------------- Commands


class CreateTenant(msgspec.Struct, frozen=True, kw_only=True):
    """Raises InvalidTenant."""

    name: str


class IssueKey(msgspec.Struct, frozen=True, kw_only=True):
    """The secret stays with the caller; its digest comes here. Raises InvalidKey, KeyExists."""

    key_id: str
    secret_sha256: str
    """Hex digest of the whole key as the client sends it."""
    scopes: tuple[str, ...]
    expires_at: datetime | None = None
    tokens_per_minute: int | None = None
    """What requests with it may take in any minute. None is unbounded."""


class SetKeyBudget(msgspec.Struct, frozen=True, kw_only=True):
    """In place of the one before. Raises UnknownKey, InvalidBudget."""

    key_id: str
    tokens_per_minute: int | None


class RevokeKey(msgspec.Struct, frozen=True, kw_only=True):
    """Raises UnknownKey."""

    key_id: str


class SetQuota(msgspec.Struct, frozen=True, kw_only=True):
    """Raises InvalidQuota."""

    quota: Quota


Command: TypeAlias = CreateTenant | IssueKey | SetKeyBudget | RevokeKey | SetQuota


class InvalidTenant(Invalid):
    """A name that no tenant may have."""


class InvalidKey(Invalid):
    """A key without scopes or a digest, with unknown scopes, or with a budget out of bounds."""


class InvalidQuota(Invalid):
    """A bound below zero or absurdly large."""


class InvalidBudget(Invalid):
    """A budget below zero or absurdly large."""


class UnknownTenant(NotFound):
    """Every command but CreateTenant needs a tenant."""

    def __init__(self) -> None:
        super().__init__("there is no such tenant")


class UnknownKey(NotFound):
    """The tenant never had this key."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id[:80]}")
        self.key_id = key_id


class KeyExists(Conflict):
    """The key id is taken by a key with other scopes, secret or expiry."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"key {key_id} exists and is another")
        self.key_id = key_id


# ------------------------------------------------------------------------------------------- State


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was handed out."""

    secret_sha256: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None
    revoked: bool = False
    tokens_per_minute: int | None = None


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant that exists."""

    name: str
    keys: Mapping[str, Key] = EMPTY
    """Every key ever issued, by its id."""
    quota: Quota = Quota()


State: TypeAlias = Tenant | None

# ------------------------------------------------------------------------------------------ evolve


def evolve(state: State, event: Event) -> State:
    """The tenant after the event."""
    if isinstance(event, TenantCreated):
        return Tenant(name=event.name)
    if state is None:
        raise ForeignEvent(event)
    match event:
        case KeyIssued():
            return replace(state, keys=with_entry(state.keys, event.key_id, _key(event)))
        case KeyBudgetSet():
            bounded = replace(state.keys[event.key_id], tokens_per_minute=event.tokens_per_minute)
            return replace(state, keys=with_entry(state.keys, event.key_id, bounded))
        case KeyRevoked():
            revoked = replace(state.keys[event.key_id], revoked=True)
            return replace(state, keys=with_entry(state.keys, event.key_id, revoked))
        case QuotaSet():
            return replace(state, quota=event.quota)
        case _:
            raise ForeignEvent(event)


def _key(event: KeyIssued) -> Key:
    return Key(
        secret_sha256=event.secret_sha256,
        scopes=event.scopes,
        expires_at=event.expires_at,
        tokens_per_minute=event.tokens_per_minute,
    )


# ------------------------------------------------------------------------------------------ decide


def decide(state: State, command: Command) -> Sequence[Event]:
    """The events of the command, or a refusal."""
    if isinstance(command, CreateTenant):
        return _create(state, command)
    if state is None:
        raise UnknownTenant
    match command:
        case IssueKey():
            return _issue_key(state, command)
        case SetKeyBudget():
            return _set_key_budget(state, command)
        case RevokeKey():
            return _revoke_key(state, command)
        case SetQuota():
            return _set_quota(state, command)


def _create(state: State, command: CreateTenant) -> Sequence[Event]:
    if state is not None:
        return ()
    if not IDENTIFIER.match(command.name):
        raise InvalidTenant({"name": "must be 1 to 64 of A-Z a-z 0-9 _ -, not beginning with _ -"})
    if command.name == SYSTEM_TENANT:
        raise InvalidTenant({"name": "is reserved"})
    return (TenantCreated(name=command.name),)


def _issue_key(state: Tenant, command: IssueKey) -> Sequence[Event]:
    if found := dict(_key_problems(command)):
        raise InvalidKey(found)
    issued = KeyIssued(
        key_id=command.key_id,
        secret_sha256=command.secret_sha256,
        scopes=tuple(cast(Scope, scope) for scope in dict.fromkeys(command.scopes)),
        expires_at=command.expires_at,
        tokens_per_minute=command.tokens_per_minute,
    )
    known = state.keys.get(command.key_id)
    if known is None:
        return (issued,)
    as_issued = replace(known, revoked=False, tokens_per_minute=issued.tokens_per_minute)
    if as_issued != _key(issued):
        raise KeyExists(command.key_id)
    return ()


def _key_problems(command: IssueKey) -> Iterator[tuple[str, str]]:
    if not IDENTIFIER.match(command.key_id):
        yield "key_id", "must be 1 to 64 of A-Z a-z 0-9 _ -"
    if not _SHA256.match(command.secret_sha256):
        yield "secret_sha256", "must be 64 lower-case hex digits"
    if not command.scopes:
        yield "scopes", "must not be empty"
    if not SCOPES.issuperset(command.scopes):
        yield "scopes", f"must be among {', '.join(sorted(SCOPES))}"
    yield from _budget_problems(command.tokens_per_minute)


def _budget_problems(tokens_per_minute: int | None) -> Iterator[tuple[str, str]]:
    if tokens_per_minute is not None and not 0 <= tokens_per_minute <= TOKENS_PER_MINUTE_MAX:
        yield "tokens_per_minute", f"must be 0 to {TOKENS_PER_MINUTE_MAX}"


def _set_key_budget(state: Tenant, command: SetKeyBudget) -> Sequence[Event]:
    if found := dict(_budget_problems(command.tokens_per_minute)):
        raise InvalidBudget(found)
    known = state.keys.get(command.key_id)
    if known is None:
        raise UnknownKey(command.key_id)
    if known.tokens_per_minute == command.tokens_per_minute:
        return ()
    return (KeyBudgetSet(key_id=command.key_id, tokens_per_minute=command.tokens_per_minute),)


def _revoke_key(state: Tenant, command: RevokeKey) -> Sequence[Event]:
    known = state.keys.get(command.key_id)
    if known is None:
        raise UnknownKey(command.key_id)
    return () if known.revoked else (KeyRevoked(key_id=command.key_id),)


def _set_quota(state: Tenant, command: SetQuota) -> Sequence[Event]:
    bounds = asdict(command.quota).items()
    if found := {
        name: f"must be 0 to {QUOTA_MAX}"
        for name, bound in bounds
        if bound is not None and not 0 <= bound <= QUOTA_MAX
    }:
        raise InvalidQuota(found)
    return () if command.quota == state.quota else (QuotaSet(quota=command.quota),)


# ----------------------------------------------------------------------------------------- Decider

DECIDER: Final[Decider[Command, State]] = Decider(initial=None, evolve=evolve, decide=decide)
