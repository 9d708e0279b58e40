"""`/endpoints/{endpoint}/swap` and `/rollback`: moving all traffic, and the return."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Response, post
from litestar.params import FromQuery, JSONBody

from handlers.http.access import needs
from handlers.http.call import Call, done
from handlers.http.parameters import Name
from handlers.http.views import RollbackView
from projections.results import Swap

SWAP_TIMEOUT_S: Final = 60.0
SWAP_TIMEOUT_S_MAX: Final = 3600.0


class RequestSwap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    to: str
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=SWAP_TIMEOUT_S_MAX)] = SWAP_TIMEOUT_S
    """The swap fails if the version is not resident by then."""


class RollBack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


NO_REASON: Final = RollBack()


@post("/endpoints/{endpoint:str}/swap", status_code=202, **needs("operate", also=200))
async def swap(
    request: Call, endpoint: Name, data: JSONBody[RequestSwap], wait: FromQuery[bool] = False
) -> Response[Swap]:
    """Load a version and move all traffic to it: 202 once asked for, or with `wait` 200 when over.

    With `wait`, look at `state`: a swap that failed has left the old version serving.
    """
    asked = await request.operations.swap(
        request.tenant,
        endpoint=endpoint,
        to=data.to,
        timeout_s=data.timeout_s,
        metadata=await request.metadata(),
    )
    if not wait:
        return done(asked, position=asked.position, status=202)
    if asked.state == "requested":
        asked = await request.operations.swap_ended(
            request.tenant, endpoint=endpoint, swap_id=asked.id
        )
    return done(asked, position=asked.position, status=200)


@post("/endpoints/{endpoint:str}/rollback", status_code=200, **needs("operate"))
async def roll_back(
    request: Call, endpoint: Name, data: JSONBody[RollBack] = NO_REASON
) -> Response[RollbackView]:
    """Return to the last good version; answers when every live gateway has applied it."""
    rolled_back = await request.operations.rollback(
        request.tenant, endpoint=endpoint, reason=data.reason, metadata=await request.metadata()
    )
    return done(rolled_back, position=rolled_back.position)


HANDLERS: tuple[Any, ...] = (swap, roll_back)
