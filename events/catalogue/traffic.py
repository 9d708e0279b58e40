"""Traffic: per-second summaries of what gateways saw. Entity `<tenant>/traffic/<endpoint>`.

Windows commute: they are appended UNCHECKED, and readers drop repeated ids.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from events.event import Event


class LatencySketch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A DDSketch (Masson, Rim, Lee 2019) of latencies in milliseconds: merge by adding the bins."""

    relative_accuracy: float
    bins: dict[int, int] = {}
    """Index i counts latencies in (g^(i-1), g^i], g = (1 + accuracy) / (1 - accuracy)."""
    zeros: int = 0
    sum_ms: float = 0.0
    min_ms: float = 0.0
    max_ms: float = 0.0


class VersionWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one version did in the window."""

    requests: int
    errors: dict[str, int] = {}
    """Problem code -> count."""
    latency: LatencySketch | None = None
    """Of requests that were answered; None when none was."""
    tokens: int = 0


class WindowObserved(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.traffic.window_observed.v1"
    gateway: str
    start: datetime
    """The first instant of the window, UTC, a whole second."""
    seconds: int = 1
    versions: dict[str, VersionWindow]


EVENTS: tuple[type[Event], ...] = (WindowObserved,)
