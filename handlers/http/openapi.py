"""This API as OpenAPI 3.1: what the framework derives from the handlers, and what it cannot know.

Added here, once for all routes: the key, the scope each route needs, the headers every route
honours, and the problem documents it may answer with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.openapi import OpenAPIConfig
from litestar.types import ControllerRouterHandler

from handlers.http.access import Access, Route
from handlers.http.call import Call
from handlers.http.problems import MEDIA_TYPE, STATUS, Problem

_METHODS: Final = ("get", "put", "post", "delete")
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
    route_handlers: Sequence[ControllerRouterHandler], routes: Sequence[Route]
) -> dict[str, Any]:
    """The whole document, ready to encode.

    An application of its own describes the routes: one that describes itself also serves pages of
    the framework's making, on paths that are not ours.
    """
    app = Litestar(
        route_handlers,
        request_class=Call,
        openapi_config=_CONFIG,
        logging_config=None,
    )
    document = app.openapi_schema.to_schema()
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    components["responses"] = {code: _problem_response(code) for code in sorted(STATUS)}
    components["parameters"] = _PARAMETERS
    components.setdefault("schemas", {})["Problem"] = msgspec.json.schema_components(
        [Problem], ref_template="#/components/schemas/{name}"
    )[1]["Problem"]
    access = {(route.path, route.method.lower()): route.access for route in routes}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                _complete(item[method], path, method, access[path, method])
    return document


def _complete(operation: dict[str, Any], path: str, method: str, access: Access) -> None:
    responses = operation["responses"]
    if access == "public":
        operation["security"] = []
        responses.pop("400", None)
        return
    operation["security"] = [{"key": []}]
    operation["x-switchback-scope"] = access
    parameters = operation.setdefault("parameters", [])
    if "{tenant}" in path and not any(p.get("name") == "tenant" for p in parameters):
        parameters.append({"$ref": "#/components/parameters/tenant"})
    names = ("min_position",) if method == "get" else ("idempotency_key", "traceparent")
    parameters.extend({"$ref": f"#/components/parameters/{name}"} for name in names)
    for status, codes in _problems(method, access).items():
        responses[str(status)] = _one_of(codes)


def _problems(method: str, access: Access) -> dict[int, list[str]]:
    codes = _ALWAYS | (_ON_READS if method == "get" else _ON_COMMANDS)
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


_PARAMETERS: Final[dict[str, Any]] = {
    "tenant": {
        "name": "tenant",
        "in": "path",
        "required": True,
        "description": "Another tenant than the key's needs the scope `admin`.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"},
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
