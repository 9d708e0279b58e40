"""`/tenants`, and each tenant's keys and quota."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import JSONBody

from events import Position
from events.catalogue.tenants import Quota, Scope
from handlers.http.access import needs
from handlers.http.call import Call, done
from handlers.http.parameters import LIMIT_DEFAULT, AfterName, Limit, Name, Named
from handlers.http.problems import not_found
from handlers.http.views import IssuedKey
from projections.results import Key, Page, Tenant

EXPIRES_S_MAX: Final = 100 * 366 * 86_400


class CreateTenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Named


class CreatedTenant(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    position: Position


class IssueKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    scopes: tuple[Scope, ...]
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=EXPIRES_S_MAX)] | None = None
    """From now; None never expires."""
    tokens_per_minute: int | None = None
    """What requests with it may take in any minute; None is unbounded."""


class SetKeyBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tokens_per_minute: int | None
    """What requests with it may take in any minute; null is unbounded."""


class KeyBudget(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tokens_per_minute: int | None
    position: Position


class RevokedKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    position: Position


class SetQuota(msgspec.Struct, frozen=True, kw_only=True):
    quota: Quota
    position: Position


@post("/tenants", status_code=201, **needs("admin", also=200))
async def create_tenant(request: Call, data: JSONBody[CreateTenant]) -> Response[CreatedTenant]:
    """Create a tenant: 201, or 200 if it exists."""
    applied = await request.operations.create_tenant(data.name, metadata=await request.metadata())
    answer = CreatedTenant(id=data.name, name=data.name, position=applied.position)
    return done(answer, position=applied.position, status=201 if applied.changed else 200)


@get("/tenants/{tenant:str}", **needs("read"))
async def get_tenant(request: Call) -> Tenant:
    """The tenant and its quota."""
    found = await request.queries.tenants.get(request.tenant, min_position=request.min_position)
    if found is None:
        raise not_found("tenant", request.tenant)
    return found


@post("/keys", status_code=201, **needs("admin"))
async def issue_key(request: Call, data: JSONBody[IssueKey]) -> Response[IssuedKey]:
    """Issue a key. `key` is shown this once; only its digest is kept."""
    metadata = await request.metadata()
    expires_at = None
    if data.expires_s is not None:
        expires_at = metadata.time + timedelta(seconds=data.expires_s)
    issued = await request.operations.issue_key(
        request.tenant,
        scopes=data.scopes,
        expires_at=expires_at,
        tokens_per_minute=data.tokens_per_minute,
        metadata=metadata,
    )
    return done(issued, position=issued.position, status=201)


@get("/keys", **needs("admin"))
async def list_keys(
    request: Call, limit: Limit = LIMIT_DEFAULT, after: AfterName = ""
) -> Page[Key]:
    """The tenant's keys, without their secrets."""
    return await request.queries.tenants.keys(
        request.tenant, after=after, limit=limit, min_position=request.min_position
    )


@put("/keys/{key:str}/budget", **needs("admin"))
async def set_key_budget(
    request: Call, key: Name, data: JSONBody[SetKeyBudget]
) -> Response[KeyBudget]:
    """Replace the key's budget, from the next request on."""
    applied = await request.operations.set_key_budget(
        request.tenant,
        key_id=key,
        tokens_per_minute=data.tokens_per_minute,
        metadata=await request.metadata(),
    )
    answer = KeyBudget(id=key, tokens_per_minute=data.tokens_per_minute, position=applied.position)
    return done(answer, position=applied.position)


@delete("/keys/{key:str}", status_code=200, **needs("admin"))
async def revoke_key(request: Call, key: Name) -> Response[RevokedKey]:
    """Revoke a key for good."""
    applied = await request.operations.revoke_key(
        request.tenant, key_id=key, metadata=await request.metadata()
    )
    return done(RevokedKey(id=key, position=applied.position), position=applied.position)


@put("/quota", **needs("admin"))
async def set_quota(request: Call, data: JSONBody[Quota]) -> Response[SetQuota]:
    """Replace the tenant's quota; absent members are unbounded."""
    applied = await request.operations.set_quota(
        request.tenant, quota=data, metadata=await request.metadata()
    )
    return done(SetQuota(quota=data, position=applied.position), position=applied.position)


GLOBAL_HANDLERS: tuple[Any, ...] = (create_tenant, get_tenant)
HANDLERS: tuple[Any, ...] = (issue_key, list_keys, set_key_budget, revoke_key, set_quota)
