"""Traffic: per-second summaries of what gateways saw. Entity `<tenant>/traffic/<endpoint>`.

Windows commute: they are appended UNCHECKED, and readers drop repeated ids.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from events.event import Event


class VersionWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one version did in the window."""

    requests: int
    errors: dict[str, int] = {}
    """Problem code -> count."""
    latency: bytes = b""
    """DDSketch of latencies in milliseconds, protobuf; empty when there was no request."""
    tokens: int = 0


class WindowObserved(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.traffic.window_observed.v1"
    gateway: str
    start: datetime
    """The first instant of the window, UTC, a whole second."""
    seconds: int = 1
    versions: dict[str, VersionWindow]


EVENTS: tuple[type[Event], ...] = (WindowObserved,)
