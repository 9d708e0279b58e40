"""The streams we keep, as declarations, and the comparison with what the server has.

EVENTS never gets message TTL, schedules or rollup: each of them turns purge and rollup on for
good, and with them the log could lose events. Nor `persist_mode: async`. A declaration names every
setting that could take an event away or change what an acknowledgement means; a difference in any
of them is StreamMismatch, and we refuse to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from events.errors import StreamMismatch
from events.jetstream.calls import Calls
from events.jetstream.failures import NOT_FOUND, Refused

_NS: Final = 1_000_000_000
_DEDUPE_SECONDS: Final = 120
_TRAFFIC_SECONDS: Final = 7 * 24 * 3600
_MARKER_SECONDS: Final = 60
"""How long the server's note that a lease ran out is kept for watchers that come back."""

_BASE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "duplicate_window": _DEDUPE_SECONDS * _NS,
        "compression": "none",
        "sealed": False,
        "no_ack": False,
        "deny_delete": True,
        "deny_purge": True,
        "allow_rollup_hdrs": False,
        "allow_direct": True,
        "allow_atomic": False,
        "allow_msg_ttl": False,
        "allow_msg_schedules": False,
        "allow_msg_counter": False,
        "allow_batched": False,
        "persist_mode": "default",
        "subject_delete_marker_ttl": 0,
        "mirror": None,
        "sources": None,
        "republish": None,
        "subject_transform": None,
    }
)


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as it must be. Settings that are not named are those of `_BASE`."""

    name: str
    subjects: tuple[str, ...]
    settings: Mapping[str, Any]

    def config(self) -> dict[str, Any]:
        return {
            **_BASE,
            **self.settings,
            "name": self.name,
            "subjects": list(self.subjects),
        }


def _declare(name: str, *subjects: str, **settings: Any) -> Declaration:
    return Declaration(name=name, subjects=subjects, settings=settings)


EVENTS: Final = _declare("EVENTS", "evt.>", allow_atomic=True)
TRAFFIC: Final = _declare(
    "TRAFFIC", "obs.>", allow_atomic=True, deny_purge=False, max_age=_TRAFFIC_SECONDS * _NS
)
TIMERS: Final = _declare(
    "TIMERS",
    "timer.>",
    "wake.>",
    retention="workqueue",
    max_msgs_per_subject=1,
    allow_msg_schedules=True,
    allow_rollup_hdrs=True,
    deny_delete=False,
    deny_purge=False,
)
"""A work queue: a wake-up that was handled is gone. One message a subject: setting a timer again
replaces it. The server turns rollup on with schedules."""


def leases(*, ttl_s: float) -> Declaration:
    """The lease bucket: what is not renewed within `ttl_s` is removed, and a marker says so."""
    return _declare(
        "KV_LEASES",
        "$KV.LEASES.>",
        max_msgs_per_subject=1,
        max_age=round(ttl_s * _NS),
        duplicate_window=round(min(ttl_s, _DEDUPE_SECONDS) * _NS),
        subject_delete_marker_ttl=_MARKER_SECONDS * _NS,
        allow_msg_ttl=True,
        allow_rollup_hdrs=True,
        deny_purge=False,
    )


async def ensure(calls: Calls, declaration: Declaration, *, replicas: int | None) -> None:
    """Create the stream, or compare the one there is. `replicas` None takes any number, and one
    for a new stream. Raises StreamMismatch, LogUnavailable."""
    actual = await _actual(calls, declaration.name)
    if actual is None:
        actual = await _create(calls, declaration, replicas=replicas or 1)
    found = differences(declaration, actual)
    if replicas is not None and actual.get("num_replicas") != replicas:
        found["num_replicas"] = (replicas, actual.get("num_replicas"))
    if found:
        raise StreamMismatch(declaration.name, found)


def differences(
    declaration: Declaration, actual: Mapping[str, Any]
) -> dict[str, tuple[object, object]]:
    """Setting -> (declared, actual), for each that differs. A setting the server leaves out has
    its default."""
    found: dict[str, tuple[object, object]] = {}
    for name, declared in declaration.config().items():
        there = actual.get(name, _UNSET.get(name))
        if (declared or None) != (there or None):
            found[name] = (declared, there)
    return found


_UNSET: Final[Mapping[str, Any]] = MappingProxyType(
    {"persist_mode": "default", "compression": "none"}
)


async def _actual(calls: Calls, name: str) -> dict[str, Any] | None:
    try:
        info = await calls.insist_on(f"STREAM.INFO.{name}")
    except Refused as error:
        if error.status == NOT_FOUND:
            return None
        raise
    config: dict[str, Any] = info["config"]
    return config


async def _create(calls: Calls, declaration: Declaration, *, replicas: int) -> dict[str, Any]:
    config = {name: value for name, value in declaration.config().items() if value is not None}
    config["num_replicas"] = replicas
    try:
        made = await calls.insist_on(f"STREAM.CREATE.{declaration.name}", config)
    except Refused as error:
        theirs = await _actual(calls, declaration.name)
        if theirs is None:
            raise StreamMismatch(declaration.name, {"create": ("accepted", str(error))}) from error
        return theirs
    created: dict[str, Any] = made["config"]
    return created
