"""The types of path and query parameters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, TypeAlias

import msgspec
from litestar.params import PathParameter, QueryParameter

from handlers.http.bodies import decode
from handlers.http.ports import At
from handlers.http.problems import Rejected, invalid

POSITION_MAX: Final = 2**63 - 1
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(?!\n)$"
"""The lookahead: Python's `$` admits a final newline."""

Name: TypeAlias = Annotated[str, PathParameter(pattern=NAME_PATTERN)]
"""Of anything that has a subject of its own."""
VersionName: TypeAlias = Annotated[
    str, PathParameter(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(?!\n)$")
]
Named: TypeAlias = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
"""A `Name` in a body."""
Limit: TypeAlias = Annotated[int, QueryParameter(ge=1, le=1000)]
AfterName: TypeAlias = Annotated[
    str,
    QueryParameter(
        pattern=r"^[A-Za-z0-9._+-]{0,64}(?!\n)$", description="`next` of the page before."
    ),
]
AfterPosition: TypeAlias = Annotated[int, QueryParameter(ge=0, le=POSITION_MAX)]
RoutingKey: TypeAlias = Annotated[str, QueryParameter(max_length=1024)]
Moment: TypeAlias = Annotated[
    str | None, QueryParameter(max_length=64, description="A position, or an RFC 3339 time.")
]

LIMIT_DEFAULT: Final = 100
KEY_HEADER: Final = "Switchback-Key"
"""The routing key of an inference request whose body has no place for it, or names none."""
ATTRIBUTES_HEADER: Final = "Switchback-Attributes"
ATTRIBUTES_MAX: Final = 64
"""In one header."""
ATTRIBUTES_CHARS_MAX: Final = 16 * 1024
_AwareTime: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


def moment(text: str) -> At:
    """A position or an RFC 3339 time. Raises Rejected."""
    if text.isascii() and text.isdigit() and int(text) <= POSITION_MAX:
        return int(text)
    try:
        return msgspec.convert(_with_plus(text), _AwareTime)
    except msgspec.ValidationError:
        raise invalid({"at": "neither a position nor an RFC 3339 time with an offset"}) from None


def attributes(text: str | None) -> dict[str, str]:
    """Request attributes as a JSON object of strings. Raises Rejected."""
    if text is None:
        return {}
    if len(text) > ATTRIBUTES_CHARS_MAX:
        raise invalid({"attributes": f"longer than {ATTRIBUTES_CHARS_MAX} characters"})
    try:
        found: dict[str, str] = decode(text.encode("utf-8", "replace"), dict[str, str])
    except Rejected as error:
        raise invalid({"attributes": f"not a JSON object of strings: {error}"}) from None
    if len(found) > ATTRIBUTES_MAX:
        raise invalid({"attributes": f"more than {ATTRIBUTES_MAX}"})
    return found


def _with_plus(text: str) -> str:
    """An offset's `+` that a client did not escape arrives as a space."""
    return f"{text[:-6]}+{text[-5:]}" if text[-6:-5] == " " else text
