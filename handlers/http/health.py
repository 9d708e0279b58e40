"""`/healthz`, `/readyz`, `/metrics` and the two generated documents: open to everyone."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from litestar import Response, get
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from handlers.http.access import needs
from handlers.http.call import Call
from handlers.http.views import Part


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ok"] = "ok"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ready", "not_ready"]
    parts: dict[str, Part]


@get("/healthz", **needs("public"))
async def healthz() -> Alive:
    """The process answers."""
    return Alive()


@get("/readyz", **needs("public", also=503))
async def readyz(request: Call) -> Response[Ready]:
    """The state of each part; 503 while one that is required is down."""
    parts = dict(await request.front.services.readiness.parts())
    ready = not any(part.required and part.state == "down" for part in parts.values())
    answer = Ready(status="ready" if ready else "not_ready", parts=parts)
    return Response(answer, status_code=200 if ready else 503)


@get("/metrics", media_type="text/plain", **needs("public"))
async def metrics(request: Call) -> Response[bytes]:
    """Prometheus text format."""
    await request.front.services.before_scrape()
    text = await asyncio.to_thread(generate_latest, request.front.services.metrics)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@get("/openapi.json", include_in_schema=False, **needs("public"))
async def openapi(request: Call) -> Response[bytes]:
    """This API, OpenAPI 3.1."""
    return Response(await request.front.documents["openapi"].text(), media_type="application/json")


@get("/asyncapi.json", include_in_schema=False, **needs("public"))
async def asyncapi(request: Call) -> Response[bytes]:
    """The events, AsyncAPI 3.0."""
    return Response(await request.front.documents["asyncapi"].text(), media_type="application/json")


HANDLERS: tuple[Any, ...] = (healthz, readyz, metrics, openapi, asyncapi)
