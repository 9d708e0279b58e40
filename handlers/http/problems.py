"""Every error as an RFC 9457 problem document, with the codes of the contract.

Whatever a handler, a middleware or the router raises ends in `problem_of`, and nowhere else. An
error that nothing here knows is answered as `internal` without detail, and logged with its trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from math import ceil
from types import MappingProxyType
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, ValidationException

from events import errors as log_errors
from handlers.executions import InferenceFailed
from projections import errors as read_errors

_log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
VERSION_HEADER: Final = "Switchback-Version"
RETRY_AFTER_S: Final = 1
"""How long a client should wait when nothing better is known."""

STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "invalid": 400,
        "unauthenticated": 401,
        "forbidden": 403,
        "not_found": 404,
        "conflict": 409,
        "stale": 412,
        "too_large": 413,
        "rate_limited": 429,
        "internal": 500,
        "runtime_failed": 502,
        "overloaded": 503,
        "unavailable": 503,
        "timeout": 504,
    }
)
"""Code -> status. `internal` is a defect of this software and no part of the contract."""

_CODE_OF_STATUS: Final = {400: "invalid", 404: "not_found", 413: "too_large", 415: "invalid"}
_COMES_BACK: Final = frozenset({"rate_limited", "overloaded", "unavailable"})


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The document."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    fields: dict[str, str] | None = None
    """Path of the offending member -> what is wrong with it."""


class Rejected(Exception):
    """A request this layer refuses by itself. `code` is one of STATUS."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        fields: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.fields = fields
        self.retry_after_s = retry_after_s


def invalid(fields: Mapping[str, str]) -> Rejected:
    """A request with these wrong members."""
    return Rejected("invalid", "; ".join(f"{k}: {v}" for k, v in fields.items()), fields=fields)


def not_found(what: str, name: str) -> Rejected:
    return Rejected("not_found", f"there is no {what} {name!r}")


def problem_of(error: Exception) -> tuple[Problem, dict[str, str]]:
    """The document and the headers for an error."""
    code, detail, fields = _classify(error)
    status = error.status_code if isinstance(error, MethodNotAllowedException) else STATUS[code]
    problem = Problem(
        type=f"urn:switchback:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        fields=dict(fields) if fields is not None else None,
    )
    return problem, _headers(error, code)


def answer_error(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    return problem_response(error)


def problem_response(
    error: Exception, members: Callable[[Problem], Mapping[str, Any]] = lambda _: {}
) -> Response[bytes]:
    """The document as an answer, with the `members` that clients of another protocol look for."""
    problem, headers = problem_of(error)
    if problem.code == "internal":
        _log.error("a request failed unexpectedly", exc_info=error)
    document = msgspec.to_builtins(problem) | members(problem)
    return Response(
        msgspec.json.encode(document),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def _headers(error: Exception, code: str) -> dict[str, str]:
    if isinstance(error, MethodNotAllowedException):
        return {"Allow": (error.headers or {}).get("allow", "")}
    if code == "unauthenticated":
        return {"WWW-Authenticate": "Bearer"}
    headers: dict[str, str] = {}
    if code in _COMES_BACK:
        wait_s = getattr(error, "retry_after_s", None) or RETRY_AFTER_S
        headers["Retry-After"] = str(max(1, ceil(wait_s)))
    headers |= getattr(error, "answer_headers", {})
    if isinstance(error, InferenceFailed) and error.version:
        headers[VERSION_HEADER] = error.version
    return headers


def _classify(error: Exception) -> tuple[str, str, Mapping[str, str] | None]:
    match error:
        case log_errors.InvalidIdentifier():
            return "invalid", str(error), {error.what: str(error)}
        case log_errors.EventTooLarge():
            return "too_large", str(error), None
        case log_errors.WrongExpectedPosition():
            return "conflict", str(error), None
        case log_errors.MalformedEvent():
            # Not `unavailable`: it stays so until somebody has looked, and clients try that again.
            return "conflict", str(error), None
        case log_errors.RequestTimeout():
            return "timeout", str(error), None
        case log_errors.LogUnavailable() | log_errors.NoResponders():
            return "unavailable", str(error), None
        case read_errors.StalePosition():
            return "stale", str(error), None
        case read_errors.DatabaseTimeout():
            return "timeout", str(error), None
        case read_errors.DatabaseUnavailable():
            return "unavailable", str(error), None
        case TimeoutError():
            return "timeout", "the request took too long", None
        case HTTPException():
            return _classify_http(error)
        case _:
            return _classify_by_code(error)


def _classify_by_code(error: Exception) -> tuple[str, str, Mapping[str, str] | None]:
    """Refusals of decisions, of routing and of the gateway say themselves what they are."""
    code = getattr(error, "code", None)
    if not isinstance(code, str) or code not in STATUS:
        return "internal", "an unexpected error; it has been logged", None
    detail = getattr(error, "detail", None) or str(error)
    fields = getattr(error, "fields", None) or None
    if code == "invalid" and fields is None:
        fields = {getattr(error, "field", "body"): getattr(error, "reason", detail)}
    return code, detail, fields


def _classify_http(error: HTTPException) -> tuple[str, str, Mapping[str, str] | None]:
    match error:
        case MethodNotAllowedException():
            allowed = (error.headers or {}).get("allow", "")
            return "invalid", "method not allowed", {"method": f"not one of {allowed}"}
        case ValidationException():
            wrong = dict(_wrong(entry) for entry in _messages(error.extra))
            wrong = wrong or {"request": error.detail}
            return "invalid", "; ".join(f"{k}: {v}" for k, v in wrong.items()), wrong
        case _:
            code = _CODE_OF_STATUS.get(error.status_code, "internal")
            fields = {"request": error.detail} if code == "invalid" else None
            return code, HTTPStatus(error.status_code).phrase, fields


def _messages(extra: Any) -> list[dict[str, Any]]:
    return [entry for entry in extra if isinstance(entry, dict)] if isinstance(extra, list) else []


def _wrong(entry: Mapping[str, Any]) -> tuple[str, str]:
    if entry.get("key") == "data":
        return "body", "required"
    return str(entry.get("key", "request")), str(entry.get("message", "invalid"))
