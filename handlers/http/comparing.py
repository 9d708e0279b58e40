"""`/endpoints/{endpoint}/compare` and `/shadow`: what the traffic of the last while says."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from litestar import get
from litestar.params import QueryParameter

from handlers.http.access import needs
from handlers.http.call import Call
from handlers.http.parameters import Name
from handlers.http.views import CompareView, ShadowView

SINCE_S_DEFAULT: Final = 300.0
SINCE_S_MAX: Final = 7 * 24 * 3600.0

Since: TypeAlias = Annotated[
    float, QueryParameter(gt=0, le=SINCE_S_MAX, description="Seconds before now.")
]
Compared: TypeAlias = Annotated[
    str | None,
    QueryParameter(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(?!\n)$",
        description="A version. Without one: that of the live rollout, else the version before "
        "as baseline, and the newest as candidate.",
    ),
]


@get("/endpoints/{endpoint:str}/compare", **needs("read"))
async def compare(
    request: Call,
    endpoint: Name,
    baseline: Compared = None,
    candidate: Compared = None,
    since_s: Since = SINCE_S_DEFAULT,
) -> CompareView:
    """Two versions beside each other: requests, errors, latency; the difference and its verdict."""
    await request.log_reaches()
    return await request.operations.compare(
        request.tenant,
        endpoint=endpoint,
        baseline=baseline,
        candidate=candidate,
        since_s=since_s,
    )


@get("/endpoints/{endpoint:str}/shadow", **needs("read"))
async def shadow(request: Call, endpoint: Name, since_s: Since = SINCE_S_DEFAULT) -> ShadowView:
    """Every shadow version: copies sent and compared, how often it disagreed, how fast it was."""
    await request.log_reaches()
    return await request.operations.shadow_report(
        request.tenant, endpoint=endpoint, since_s=since_s
    )


HANDLERS: tuple[Any, ...] = (compare, shadow)
