"""This API as OpenAPI 3.1: what the framework derives from the handlers, and what it cannot know.

Added here, once for all routes: the key, the scope each route needs, the headers every route
honours, and the problem documents it may answer with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.types import ControllerRouterHandler

from handlers.http.access import Access, access_of, handlers_of
from handlers.http.call import POSITION_HEADER, Call
from handlers.http.inference import INFERENCE_HEADERS
from handlers.http.parameters import NAME_PATTERN
from handlers.http.problems import MEDIA_TYPE, STATUS, Problem
from handlers.spending import RATE_HEADERS

_ALWAYS: Final = frozenset({"invalid", "unauthenticated", "forbidden", "not_found"})
_ON_COMMANDS: Final = frozenset({"conflict", "too_large", "rate_limited", "unavailable", "timeout"})
_ON_READS: Final = frozenset({"stale", "unavailable", "timeout"})
_ON_INFERENCE: Final = frozenset({"too_large", "rate_limited", "runtime_failed", "overloaded"})

_CONFIG: Final = OpenAPIConfig(
    title="Switchback",
    version="1",
    description="An event-sourced control plane and gateway for model versions.",
    use_handler_docstrings=True,
    render_plugins=[],
)


def openapi_document(
    serving: Litestar, route_handlers: Sequence[ControllerRouterHandler]
) -> dict[str, Any]:
    """The whole document of the `serving` application's routes, ready to encode.

    An application of its own describes them: one that describes itself also serves pages of the
    framework's making, on paths that are not ours.
    """
    described = Litestar(
        route_handlers, request_class=Call, openapi_config=_CONFIG, logging_config=None
    )
    document = described.openapi_schema.to_schema()
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    components["responses"] = {code: _problem_response(code) for code in sorted(STATUS)}
    components["parameters"] = _PARAMETERS
    components.setdefault("schemas", {}).update(_own_schemas(serving))
    for path, method, handler in handlers_of(serving):
        operation = document["paths"].get(path, {}).get(method.lower())
        if operation is not None:
            _complete(operation, path, method, handler)
    return document


def _own_schemas(serving: Litestar) -> dict[str, Any]:
    """Bodies as msgspec describes them: it knows which refuse unknown fields."""
    bodies = {
        handler.parsed_data_field.annotation
        for _, _, handler in handlers_of(serving)
        if handler.parsed_data_field is not None
    }
    ordered = sorted(bodies, key=lambda body: body.__name__)
    _, schemas = msgspec.json.schema_components(
        [*ordered, Problem], ref_template="#/components/schemas/{name}"
    )
    return schemas


def _complete(operation: dict[str, Any], path: str, method: str, handler: HTTPRouteHandler) -> None:
    access = access_of(handler)
    responses = operation["responses"]
    success = responses[str(handler.status_code)]
    if "also" in handler.opt:
        also = handler.opt["also"]
        responses[str(also)] = success if also != 304 else {"description": "Unchanged"}
    if handler.opt.get("streams"):
        success["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    if access == "public":
        operation["security"] = []
        responses.pop("400", None)
        return
    operation["security"] = [{"key": []}]
    operation["x-switchback-scope"] = access
    success["headers"] = _answer_headers(method, access, handler)
    parameters = operation.setdefault("parameters", [])
    if "{tenant}" in path and not any(p.get("name") == "tenant" for p in parameters):
        parameters.append({"$ref": "#/components/parameters/tenant"})
    names = ("min_position",) if method == "GET" else ("idempotency_key", "traceparent")
    parameters.extend({"$ref": f"#/components/parameters/{name}"} for name in names)
    for status, codes in _problems(method, access).items():
        responses[str(status)] = _one_of(codes)


def _answer_headers(method: str, access: Access, handler: HTTPRouteHandler) -> dict[str, Any]:
    if method == "GET":
        return {}
    of_scope = INFERENCE_HEADERS if access == "infer" else (POSITION_HEADER,)
    names = handler.opt.get("answers", of_scope)
    headers: dict[str, Any] = {name: {"schema": {"type": "string"}} for name in names}
    if names is INFERENCE_HEADERS:
        headers |= dict.fromkeys(RATE_HEADERS, _OF_BUDGETS)
    return headers


def _problems(method: str, access: Access) -> dict[int, list[str]]:
    codes = _ALWAYS | (_ON_READS if method == "GET" else _ON_COMMANDS)
    if access == "infer":
        codes |= _ON_INFERENCE
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    return by_status


def _one_of(codes: list[str]) -> dict[str, Any]:
    if len(codes) == 1:
        return {"$ref": f"#/components/responses/{codes[0]}"}
    response = _problem_response(codes[0])
    return response | {"description": " or ".join(codes)}


def _problem_response(code: str) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": code,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if code in ("rate_limited", "overloaded", "unavailable"):
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "s"}}
    return response


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": schema,
    }


_OF_BUDGETS: Final = {
    "description": "Of a key with a budget.",
    "required": False,
    "schema": {"type": "string"},
}

_PARAMETERS: Final[dict[str, Any]] = {
    "tenant": {
        "name": "tenant",
        "in": "path",
        "required": True,
        "description": "Another tenant than the key's needs the scope `admin`.",
        "schema": {"type": "string", "pattern": NAME_PATTERN},
    },
    "min_position": _header(
        "Switchback-Min-Position",
        "The least position the answer must reflect; waits up to 2 s, then 412.",
        {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999_999},
    ),
    "idempotency_key": _header(
        "Idempotency-Key",
        "A repeat of the command returns the first answer.",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
    "traceparent": _header("traceparent", "W3C trace context.", {"type": "string"}),
}
