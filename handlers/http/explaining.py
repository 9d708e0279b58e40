"""`/endpoints/{endpoint}/explain` and `/explain`: which version, by which rule, because of what."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.params import JSONBody, QueryParameter

from handlers.http.access import needs
from handlers.http.call import Call
from handlers.http.parameters import Moment, Name, RoutingKey, attributes, moment
from handlers.http.views import Explanation


class ExplainReceipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    receipt: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


@get("/endpoints/{endpoint:str}/explain", **needs("read"))
async def explain_key(
    request: Call,
    endpoint: Name,
    key: RoutingKey,
    at: Moment = None,
    request_attributes: Annotated[
        str | None, QueryParameter(name="attributes", description="A JSON object of strings.")
    ] = None,
) -> Explanation:
    """Which version a routing key gets, now or at a moment, and the event that made it so."""
    await request.log_reaches()
    return await request.operations.explain_key(
        request.tenant,
        endpoint=endpoint,
        key=key,
        attributes=attributes(request_attributes),
        at=moment(at) if at is not None else None,
    )


@post("/explain", status_code=200, **needs("read", answers=()))
async def explain_receipt(request: Call, data: JSONBody[ExplainReceipt]) -> Explanation:
    """Recompute a receipt from the log; `valid` says whether it holds."""
    await request.log_reaches()
    return await request.operations.explain_receipt(request.tenant, receipt=data.receipt)


HANDLERS: tuple[Any, ...] = (explain_key, explain_receipt)
