"""`/events`: what happened to the tenant's entities, as pages and as a live stream."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import get
from litestar.params import HeaderParameter, QueryParameter

from events import EntityId, InvalidIdentifier
from events.codec import CloudEvent
from handlers.http.access import needs
from handlers.http.call import Call
from handlers.http.parameters import LIMIT_DEFAULT, POSITION_MAX, AfterPosition, Limit
from handlers.http.problems import invalid
from handlers.http.streams import MEDIA_TYPE, EventStream
from projections.results import Page

EntityName = Annotated[
    str | None,
    QueryParameter(max_length=129, description="`<aggregate>/<id>`"),
]


@get("/events", **needs("read"))
async def list_events(
    request: Call,
    limit: Limit = LIMIT_DEFAULT,
    after: AfterPosition = 0,
    entity: EntityName = None,
) -> Page[CloudEvent]:
    """The tenant's events in order, after a position; of one entity if it is named."""
    return await request.queries.events.list(
        request.tenant,
        after=after,
        limit=limit,
        entity=_entity(request.tenant, entity),
        min_position=request.min_position,
    )


@get("/events/stream", media_type=MEDIA_TYPE, **needs("read"))
async def stream_events(
    request: Call,
    after: AfterPosition = 0,
    entity: EntityName = None,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
) -> EventStream:
    """Server-Sent Events: the same, then live. `id:` is the position; `Last-Event-ID` goes on."""
    resumed = after if last_event_id is None else _position(last_event_id)
    named = _entity(request.tenant, entity)
    pattern = named.subject if named is not None else f"evt.{request.tenant}.>"
    return request.front.streams.response(pattern, after=resumed, allowed=request.key_holds)


def _entity(tenant: str, name: str | None) -> EntityId | None:
    """Raises Rejected."""
    if name is None:
        return None
    aggregate, slash, id_ = name.partition("/")
    if not slash or aggregate == "traffic":
        raise invalid({"entity": "not <aggregate>/<id> of an aggregate on the event log"})
    try:
        return EntityId(tenant, aggregate, id_)
    except InvalidIdentifier as error:
        raise invalid({"entity": str(error)}) from None


def _position(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:20]) > POSITION_MAX:
        raise invalid({"Last-Event-ID": "not a position"})
    return int(text)


HANDLERS: tuple[Any, ...] = (list_events, stream_events)
