"""JSON bodies: decoded strictly, straight into the type a handler names, with errors by field."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Final

import msgspec

from handlers.http.problems import Rejected, invalid

NESTING_LEVELS_MAX: Final = 64
"""Of a control body. Decoders recurse; what one can read, every other reader of the log must."""

_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")
_PATH: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_NAMED: Final = re.compile(
    r"^Object (?P<what>contains unknown|missing required) field `(?P<name>[^`]*)`$"
)
_SAID: Final = {"contains unknown": "unknown field", "missing required": "required"}


@lru_cache(maxsize=256)
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


def decode(body: bytes, type_: Any) -> Any:
    """A value of `type_`. Raises Rejected (`invalid`, with fields)."""
    try:
        return _decoder(type_).decode(body)
    except msgspec.ValidationError as error:
        raise invalid(_fields(str(error))) from None
    except msgspec.DecodeError as error:
        raise invalid({"body": str(error)}) from None
    except UnicodeDecodeError:
        raise invalid({"body": "not UTF-8"}) from None
    except RecursionError:
        raise invalid({"body": "nested too deeply"}) from None


def convert(value: Any, type_: Any) -> Any:
    """A decoded value as one of `type_`. Raises Rejected (`invalid`, with fields)."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise invalid(_fields(str(error))) from None


def check_storable(body: bytes) -> None:
    """Refuse what JSON allows and other readers of an event could not take. Raises Rejected."""
    if b"\\u0000" in body and _NUL.search(body):
        raise invalid({"body": "holds the character U+0000"})
    if _brackets(body) > NESTING_LEVELS_MAX:
        check_nesting(body, decode(body, Any))


def check_integers(body: bytes) -> None:
    """Refuse what MessagePack cannot hold: nodes and snapshots speak it. Raises Rejected."""
    if _LONG_NUMBER.search(body):
        try:
            msgspec.msgpack.encode(decode(body, Any))
        except OverflowError:
            raise invalid({"body": "holds an integer beyond 64 bits"}) from None
        except RecursionError:
            raise invalid({"body": "nested too deeply"}) from None


def check_members(body: bytes) -> None:
    """Refuse JSON that says a member twice: readers differ in which they take. Raises Rejected."""
    json.loads(body, object_pairs_hook=_once, parse_int=str, parse_float=str)


def _once(members: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise invalid({name[:80]: "occurs twice"})
        seen.add(name)


def check_nesting(body: bytes, decoded: Any) -> None:
    """Refuse a body deeper than NESTING_LEVELS_MAX, which is free when it is short of brackets.
    Raises Rejected."""
    if _brackets(body) <= NESTING_LEVELS_MAX:
        return
    level: list[Any] = [decoded]
    for _ in range(NESTING_LEVELS_MAX + 1):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise Rejected(
        "invalid",
        f"body: nested deeper than {NESTING_LEVELS_MAX} levels",
        fields={"body": f"nested deeper than {NESTING_LEVELS_MAX} levels"},
    )


def _brackets(body: bytes) -> int:
    """At least as many as it has levels."""
    return body.count(b"{") + body.count(b"[")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _fields(message: str) -> dict[str, str]:
    """`{"rules[0].when.days": "..."}` out of msgspec's message."""
    found = _PATH.search(message)
    path = found["path"] if found else ""
    said = message[: found.start()] if found else message
    named = _NAMED.match(said)
    if named is None:
        return {path or "body": said}
    return {f"{path}.{named['name']}" if path else named["name"]: _SAID[named["what"]]}
