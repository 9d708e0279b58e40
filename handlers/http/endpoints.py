"""`/endpoints`: stable names, their policies and their state now or at any moment of the log."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, get, post, put
from litestar.params import JSONBody

from events.catalogue.endpoints import Policy, Severity
from handlers.http.access import needs
from handlers.http.call import Call, done
from handlers.http.parameters import LIMIT_DEFAULT, AfterName, Limit, Moment, Name, Named, moment
from handlers.http.problems import not_found
from projections.results import Alert, Endpoint, Page


class CreateEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Named
    version: str


class RaiseAlert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: str
    severity: Severity
    version: str | None = None
    """What it is about; the newest that takes traffic when nobody says."""
    detail: str = ""


@put("/endpoints/{endpoint:str}", status_code=201, **needs("operate", also=200))
async def create_endpoint(
    request: Call, endpoint: Name, data: JSONBody[CreateEndpoint]
) -> Response[Endpoint]:
    """Create an endpoint with all traffic to one version; 200 if it was so already."""
    applied, made = await request.operations.create_endpoint(
        request.tenant,
        endpoint=endpoint,
        model=data.model,
        version=data.version,
        metadata=await request.metadata(),
    )
    return done(made, position=applied.position, status=201 if applied.changed else 200)


@get("/endpoints", **needs("read"))
async def list_endpoints(
    request: Call, limit: Limit = LIMIT_DEFAULT, after: AfterName = "", at: Moment = None
) -> Page[Endpoint]:
    """The tenant's endpoints by name; with `at`, those there were then, as they were."""
    if at is None:
        return await request.queries.endpoints.list(
            request.tenant, after=after, limit=limit, min_position=request.min_position
        )
    await request.log_reaches()
    found = await request.operations.endpoints_at(
        request.tenant, at=moment(at), after=after, limit=limit + 1
    )
    items = list(found[:limit])
    return Page(items=items, next=items[-1].name if len(found) > limit else None)


@get("/endpoints/{endpoint:str}", **needs("read"))
async def get_endpoint(request: Call, endpoint: Name, at: Moment = None) -> Endpoint:
    """One endpoint; with `at` (a position or an RFC 3339 time), as it was then."""
    if at is not None:
        await request.log_reaches()
        return await request.operations.endpoint_at(
            request.tenant, endpoint=endpoint, at=moment(at)
        )
    found = await request.queries.endpoints.get(
        request.tenant, endpoint, min_position=request.min_position
    )
    if found is None:
        raise not_found("endpoint", endpoint)
    return found


@put("/endpoints/{endpoint:str}/policy", **needs("operate"))
async def set_policy(request: Call, endpoint: Name, data: JSONBody[Policy]) -> Response[Endpoint]:
    """Replace the policy."""
    changed = await request.operations.set_policy(
        request.tenant, endpoint=endpoint, policy=data, metadata=await request.metadata()
    )
    return done(changed, position=changed.position)


@post("/endpoints/{endpoint:str}/alerts", status_code=201, **needs("operate"))
async def raise_alert(request: Call, endpoint: Name, data: JSONBody[RaiseAlert]) -> Response[Alert]:
    """Raise an alert; a critical one about the newest version, or a rollout's candidate, rolls
    back."""
    raised = await request.operations.raise_alert(
        request.tenant,
        endpoint=endpoint,
        kind=data.kind,
        severity=data.severity,
        version=data.version,
        detail=data.detail,
        metadata=await request.metadata(),
    )
    return done(raised, position=raised.position, status=201)


HANDLERS: tuple[Any, ...] = (
    create_endpoint,
    list_endpoints,
    get_endpoint,
    set_policy,
    raise_alert,
)
