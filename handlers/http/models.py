"""`/models`: models, their aliases and the aliases' history."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, get, post, put
from litestar.params import JSONBody

from events import Position
from handlers.http.access import needs
from handlers.http.call import Call, done
from handlers.http.parameters import (
    LIMIT_DEFAULT,
    AfterName,
    AfterPosition,
    Limit,
    Name,
    Named,
)
from handlers.http.problems import not_found
from projections.results import Alias, AliasMove, Model, Page


class RegisterModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Named
    description: str = ""
    labels: dict[str, str] = {}


class MoveAlias(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: str


class RegisteredModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    labels: dict[str, str]
    aliases: dict[str, str]
    position: Position


@post("/models", status_code=201, **needs("operate", also=200))
async def register_model(request: Call, data: JSONBody[RegisterModel]) -> Response[RegisteredModel]:
    """Register a model: 201, or 200 if it is registered with the same body already."""
    applied = await request.operations.register_model(
        request.tenant,
        model=data.name,
        description=data.description,
        labels=data.labels,
        metadata=await request.metadata(),
    )
    answer = RegisteredModel(
        name=data.name,
        description=data.description,
        labels=data.labels,
        aliases=applied.aliases,
        position=applied.position,
    )
    return done(answer, position=applied.position, status=201 if applied.changed else 200)


@get("/models", **needs("read"))
async def list_models(
    request: Call, limit: Limit = LIMIT_DEFAULT, after: AfterName = ""
) -> Page[Model]:
    """The tenant's models, by name."""
    return await request.queries.models.list(
        request.tenant, after=after, limit=limit, min_position=request.min_position
    )


@get("/models/{model:str}", **needs("read"))
async def get_model(request: Call, model: Name) -> Model:
    """One model with its aliases."""
    found = await request.queries.models.get(
        request.tenant, model, min_position=request.min_position
    )
    if found is None:
        raise not_found("model", model)
    return found


@put("/models/{model:str}/aliases/{alias:str}", **needs("operate"))
async def move_alias(
    request: Call, model: Name, alias: Name, data: JSONBody[MoveAlias]
) -> Response[Alias]:
    """Point an alias at a version."""
    moved = await request.operations.move_alias(
        request.tenant,
        model=model,
        alias=alias,
        version=data.version,
        metadata=await request.metadata(),
    )
    return done(moved, position=moved.position)


@get("/models/{model:str}/aliases/{alias:str}", **needs("read"))
async def get_alias(request: Call, model: Name, alias: Name) -> Alias:
    """Where an alias points."""
    found = await request.queries.models.alias(
        request.tenant, model, alias, min_position=request.min_position
    )
    if found is None:
        raise not_found("alias", alias)
    return found


@get("/models/{model:str}/aliases/{alias:str}/history", **needs("read"))
async def get_alias_history(
    request: Call,
    model: Name,
    alias: Name,
    limit: Limit = LIMIT_DEFAULT,
    after: AfterPosition = 0,
) -> Page[AliasMove]:
    """Who moved the alias, when, from where to where; oldest first."""
    page = await request.queries.models.alias_history(
        request.tenant,
        model,
        alias,
        after=after,
        limit=limit,
        min_position=request.min_position,
    )
    if not page.items and not after:
        raise not_found("alias", alias)
    return page


HANDLERS: tuple[Any, ...] = (
    register_model,
    list_models,
    get_model,
    move_alias,
    get_alias,
    get_alias_history,
)
