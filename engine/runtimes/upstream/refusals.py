"""Error statuses of an upstream: which error they are, what may be said of them. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

import msgspec

from engine.runtimes.documents import CONTEXT_EXCEEDED
from engine.runtimes.upstream.errors import Busy, Invalid, Refused

REFUSAL_BYTES_MAX: Final = 16 * 2**10
SAID_CHARS_MAX: Final = 300
RETRY_AFTER_SECONDS_MAX: Final = 3_600.0

_ABOUT_THE_REQUEST: Final = frozenset({400, 413, 422})
"""What we ask for, and in which form, is the version's affair: 404 and 415 are not among them."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_FIELD: Final = re.compile(r"[A-Za-z_][\w.\[\]]{0,99}", re.ASCII)
_UNPRINTABLE: Final = re.compile(r"[^\S ]|[\x00-\x1f\x7f-\x9f]")


def refusal_of(
    status: int, body: bytes, *, retry_after: str | None, secret: str | None, now: datetime
) -> Refused:
    """The error for a status that is no success. `now` is for a Retry-After that is a date.

    What the upstream says is passed on only if it is about the request. Of its own troubles, and of
    our key, it might say what no client should read.
    """
    detail = f"the upstream answered {status}{_phrase(status)}"
    after_s = retry_after_seconds(retry_after, now=now)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Busy(detail, status=status, retry_after_s=after_s)
    if status not in _ABOUT_THE_REQUEST:
        return Refused(detail, status=status, retry_after_s=after_s)
    document = _decoded(body)
    said = _said_in(document, secret)
    return Invalid(
        f"{detail}: {said}" if said else detail,
        status=status,
        retry_after_s=after_s,
        field=_field_in(document),
        openai_code=_code_in(document),
    )


def retry_after_seconds(value: str | None, *, now: datetime) -> float | None:
    """Seconds or a date, as RFC 9110 has it. None for what is neither; never negative."""
    if value is None:
        return None
    value = value.strip(" \t")  # and not what else Python takes for white, which `float` does not
    if _SECONDS.fullmatch(value):
        return min(float(value), RETRY_AFTER_SECONDS_MAX)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000": UTC, of an unknown place
        date = date.replace(tzinfo=now.tzinfo)
    return min(max((date - now).total_seconds(), 0.0), RETRY_AFTER_SECONDS_MAX)


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _decoded(body: bytes) -> Any:
    """None for what is no JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _said_in(document: Any, secret: str | None) -> str:
    said = _message_in(document)
    if secret is not None:
        said = said.replace(secret, "***")
    return _UNPRINTABLE.sub(" ", said)[:SAID_CHARS_MAX]


def _message_in(document: Any) -> str:
    """OpenAI says `{"error": {"message": ...}}`, others leave out one of the two."""
    for name in ("error", "message"):
        if isinstance(document, dict):
            document = document.get(name, document)
    return document if isinstance(document, str) else ""


def _field_in(document: Any) -> str | None:
    """The member of the request that it is about."""
    field = _member_in(document, "param")
    return field if isinstance(field, str) and _FIELD.fullmatch(field) else None


def _code_in(document: Any) -> str | None:
    return CONTEXT_EXCEEDED if _member_in(document, "code") == CONTEXT_EXCEEDED else None


def _member_in(document: Any, name: str) -> Any:
    error = document.get("error") if isinstance(document, dict) else None
    return error.get(name) if isinstance(error, dict) else None
