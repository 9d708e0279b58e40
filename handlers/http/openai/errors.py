"""Errors as clients of OpenAI's protocol read them: the status picks their exception."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from handlers.http.problems import Problem, problem_of, problem_response

_log = structlog.get_logger(__name__)

_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: Final = {
    "unauthenticated": "invalid_api_key",
    "not_found": "model_not_found",
    "rate_limited": "rate_limit_exceeded",
}
_NO_PARAMS: Final = frozenset({"body", "request", "method"})


class OpenAIError(msgspec.Struct, frozen=True, kw_only=True):
    """The protocol's `error`."""

    message: str
    type: str
    param: str | None
    """The member of the body that is wrong."""
    code: str | None


def answer_error(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Problem documents in which clients of the protocol find their `error`."""
    return problem_response(error, lambda problem: {"error": _described(error, problem)})


def error_document(error: Exception) -> dict[str, Any]:
    """`{"error": ...}`, for a failure after the status has been sent."""
    problem, _ = problem_of(error)
    if problem.code == "internal":
        _log.error("a stream failed unexpectedly", exc_info=error)
    return {"error": _described(error, problem)}


def _described(error: Exception, problem: Problem) -> OpenAIError:
    fallback = "server_error" if problem.status >= 500 else "invalid_request_error"
    return OpenAIError(
        message=problem.detail,
        type=_TYPES.get(problem.status, fallback),
        param=_param(problem),
        code=_code(error, problem),
    )


def _param(problem: Problem) -> str | None:
    if problem.code == "not_found":
        return "model"
    first = next(iter(problem.fields or ()), None)
    return None if first in _NO_PARAMS else first


def _code(error: Exception, problem: Problem) -> str | None:
    if isinstance(error, HTTPException) and problem.status in (404, 405):
        return "unknown_url"
    if problem.code == "invalid":
        return getattr(error, "openai_code", None)
    return _CODES.get(problem.code, problem.code)
