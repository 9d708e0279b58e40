"""`/nodes`: processes that execute versions. They belong to no tenant; what is on them does."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import JSONBody

from events import Position
from handlers.http.access import needs
from handlers.http.call import Call, done
from handlers.http.parameters import LIMIT_DEFAULT, AfterName, Limit, Name
from handlers.http.problems import not_found
from projections.results import Node, Page


class DrainNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


NO_REASON: Final = DrainNode()


class DrainingNode(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    state: Literal["draining"]
    position: Position


@get("/nodes", **needs("read"))
async def list_nodes(
    request: Call, limit: Limit = LIMIT_DEFAULT, after: AfterName = ""
) -> Page[Node]:
    """All nodes by id, with the tenant's resident versions."""
    return await request.queries.nodes.list(
        request.tenant, after=after, limit=limit, min_position=request.min_position
    )


@get("/nodes/{node:str}", **needs("read"))
async def get_node(request: Call, node: Name) -> Node:
    """One node."""
    found = await request.queries.nodes.get(request.tenant, node, min_position=request.min_position)
    if found is None:
        raise not_found("node", node)
    return found


@post("/nodes/{node:str}/drain", status_code=200, **needs("admin"))
async def drain_node(
    request: Call, node: Name, data: JSONBody[DrainNode] = NO_REASON
) -> Response[DrainingNode]:
    """Let a node finish what it has and take nothing new. All tenants feel it: scope `admin`."""
    applied = await request.operations.drain_node(
        node=node, reason=data.reason, metadata=await request.metadata()
    )
    answer = DrainingNode(id=node, state="draining", position=applied.position)
    return done(answer, position=applied.position)


HANDLERS: tuple[Any, ...] = (list_nodes, get_node, drain_node)
