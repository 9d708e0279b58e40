"""The HTTP application: routes, limits, the gate, problems, documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, Router
from litestar.datastructures import State
from litestar.handlers.http_handlers.base import HTTPRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.types import ASGIApp

from handlers.http import (
    batching,
    comparing,
    endpoints,
    events,
    explaining,
    health,
    inference,
    inference_protocol,
    models,
    nodes,
    ofrep,
    repository,
    rollouts,
    switching,
    tenants,
    versions,
)
from handlers.http.access import route_table
from handlers.http.asyncapi import asyncapi_document
from handlers.http.call import Call
from handlers.http.front import FRONT, Document, Front, Limits, Services
from handlers.http.gate import Gate
from handlers.http.leaving import ClientLeft, answer_left
from handlers.http.limiting import Limiter
from handlers.http.lingering import Lingering
from handlers.http.metering import HttpMetrics, Metered
from handlers.http.openai import routes as openai
from handlers.http.openai.errors import answer_error as answer_openai_error
from handlers.http.openapi import openapi_document
from handlers.http.own_writes import OwnWrites
from handlers.http.problems import answer_error
from handlers.http.streams import Streams

API: Final = "/api/v1"
OF_TENANT: Final = "/api/v1/tenants/{tenant:str}"
OPENAI: Final = "/v1"

CONTROL: Final = (
    *models.HANDLERS,
    *versions.HANDLERS,
    *endpoints.HANDLERS,
    *switching.HANDLERS,
    *rollouts.HANDLERS,
    *comparing.HANDLERS,
    *explaining.HANDLERS,
    *nodes.HANDLERS,
    *batching.HANDLERS,
    *events.HANDLERS,
    *tenants.HANDLERS,
)


class HttpApp(msgspec.Struct, frozen=True, kw_only=True):
    """What `HttpServer` serves."""

    asgi: ASGIApp
    litestar: Litestar
    streams: Streams


def build_app(
    services: Services, *, limits: Limits | None = None, streams: Streams | None = None
) -> HttpApp:
    """The application over these services. Raises Undeclared for a route without access."""
    metrics = HttpMetrics(services.metrics)
    front = Front(
        services=services,
        limits=limits or Limits(),
        metrics=metrics,
        streams=streams or Streams(services.log),
        documents={},
    )
    litestar = _litestar(front)
    route_table(litestar)
    front.documents["openapi"] = Document(
        lambda: openapi_document(litestar, _routers(front.limits))
    )
    front.documents["asyncapi"] = Document(asyncapi_document)
    return HttpApp(
        asgi=Metered(Lingering(litestar), metrics), litestar=litestar, streams=front.streams
    )


def _litestar(front: Front) -> Litestar:
    gate = DefineMiddleware(
        Gate,
        tenants=front.services.tenants,
        limiter=Limiter(front.services.tenants),
        own_writes=OwnWrites(front.services.queries),
    )
    return Litestar(
        route_handlers=_routers(front.limits),
        middleware=[gate],
        exception_handlers={ClientLeft: answer_left, Exception: _answer_error},
        request_class=Call,
        request_max_body_size=front.limits.control_body_bytes_max,
        state=State({FRONT: front}),
        openapi_config=None,
        logging_config=None,
    )


def _routers(limits: Limits) -> list[Any]:
    return [
        *health.HANDLERS,
        Router(API, route_handlers=tenants.GLOBAL_HANDLERS),
        *_both(CONTROL, body_bytes_max=limits.control_body_bytes_max),
        *_both(inference.HANDLERS, body_bytes_max=limits.inference_body_bytes_max),
        *_open_interfaces(limits),
    ]


def _answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Also where no route is, in the form of those beside it."""
    if request.url.path.startswith(f"{OPENAI}/"):
        return answer_openai_error(request, error)
    return answer_error(request, error)


def _open_interfaces(limits: Limits) -> list[Router]:
    """Protocols of others, within the key's tenant, with errors as their clients read them."""
    protocol = inference_protocol.answer_error
    return [
        Router(
            OPENAI,
            route_handlers=openai.HANDLERS,
            request_max_body_size=limits.inference_body_bytes_max,
            exception_handlers={Exception: answer_openai_error},
        ),
        Router(
            "/v2",
            route_handlers=inference_protocol.HANDLERS,
            request_max_body_size=limits.inference_body_bytes_max,
            exception_handlers={Exception: protocol},
        ),
        Router(
            "/v2/repository",
            route_handlers=repository.HANDLERS,
            exception_handlers={Exception: protocol},
        ),
        Router(
            "/ofrep/v1",
            route_handlers=ofrep.HANDLERS,
            exception_handlers={Exception: ofrep.answer_error},
        ),
    ]


def _both(handlers: Sequence[HTTPRouteHandler | Any], *, body_bytes_max: int) -> list[Router]:
    """The same resources within the key's tenant and within a named one."""
    return [
        Router(path, route_handlers=handlers, request_max_body_size=body_bytes_max)
        for path in (API, OF_TENANT)
    ]
