"""A version's inputs and parameters as a call, and a call's failure as a version's. Pure.

Parameters are sent as they are: an upstream knows better than we which of them it has (vLLM's
`top_k`, say), and says so. Ours alone are `timeout_s`, which bounds the call, and the words of
`priority`: an upstream's own queue, if it has one, has numbers for it, and a number is passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from engine.runtimes.documents import INPUTS, kind_of
from engine.runtimes.runtime import (
    RequestRefused,
    RequestTimedOut,
    RuntimeFailed,
    VersionOverloaded,
    VersionTimedOut,
    VersionUnavailable,
)
from engine.runtimes.upstream import errors
from engine.runtimes.upstream.calls import Call
from engine.runtimes.upstream.errors import Invalid, UpstreamFailed

PRIORITIES: Final = ("low", "normal", "high")
GATEWAYS_OWN: Final = frozenset({"model", "stream", "stream_options", *INPUTS})
"""What no parameter may be called: the version, the door and the inputs say it."""


def call_of(
    inputs: Any,
    parameters: Mapping[str, Any],
    *,
    request_id: str = "",
    timeout_s: float | None = None,
    patience_s: float | None = None,
) -> Call:
    """`timeout_s` bounds the call, `patience_s` each wait for a part of a stream. Raises
    RequestRefused."""
    kind = kind_of(inputs)
    if kind is None:
        raise RequestRefused("inputs", f"must have one member, out of {', '.join(INPUTS)}")
    for name in GATEWAYS_OWN & parameters.keys():
        raise RequestRefused(name, "is not a parameter of a version")
    body = {**parameters, **inputs}
    asked_s = _seconds(body.pop("timeout_s")) if "timeout_s" in body else None
    if isinstance(body.get("priority"), str):
        _check_priority(body.pop("priority"))
    return Call(
        kind=kind,
        body=body,
        request_id=request_id if _is_header(request_id) else None,
        timeout_s=timeout_s,
        asked_s=asked_s,
        patience_s=patience_s,
    )


def runtime_failure(failure: UpstreamFailed) -> RuntimeFailed:
    """What a call raised, as a runtime raises it."""
    match failure.code:
        case "invalid":
            if not isinstance(failure, Invalid):
                return RequestRefused("inputs", failure.detail)
            return RequestRefused(
                failure.field or "inputs", failure.detail, openai_code=failure.openai_code
            )
        case "overloaded":
            return VersionOverloaded(failure.detail, retry_after_s=failure.retry_after_s)
        case "unavailable":
            return VersionUnavailable(failure.detail, retry_after_s=failure.retry_after_s)
        case "timeout":
            is_asked = isinstance(failure, errors.RequestTimedOut)
            return (RequestTimedOut if is_asked else VersionTimedOut)(failure.detail)
        case "runtime_failed":
            return RuntimeFailed(failure.detail)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestRefused("timeout_s", "must be a number")
    if not isfinite(value) or value <= 0:
        raise RequestRefused("timeout_s", "must be more than 0")
    return value


def _check_priority(word: str) -> None:
    if word not in PRIORITIES:
        raise RequestRefused("priority", f"must be one of {', '.join(PRIORITIES)}")


def _is_header(request_id: str) -> bool:
    return bool(request_id) and request_id.isascii() and request_id.isprintable()
