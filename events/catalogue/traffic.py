"""Traffic: per-second summaries of what gateways saw. Entity `<tenant>/traffic/<endpoint>`.

Windows commute: they are appended UNCHECKED, and readers drop repeated ids.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from events.event import Event, Position


class LatencySketch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A DDSketch (Masson, Rim, Lee 2019) of latencies in milliseconds: merge by adding the bins."""

    relative_accuracy: float
    bins: dict[int, int] = {}
    """Index i counts latencies in (g^(i-1), g^i], g = (1 + accuracy) / (1 - accuracy)."""
    zeros: int = 0
    sum_ms: float = 0.0
    min_ms: float = 0.0
    max_ms: float = 0.0


class Units(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a rollout's tests count: routing keys, which are independent of each other.

    A key counts once as seen and once per kind of failure for as long as the endpoint is shared by
    the same versions, so users who fail again and again, or together with themselves, count once.
    A request without a key is a unit of its own. Only requests outside every rule count.
    """

    seen: int = 0
    errors: int = 0
    """Of any kind, time-outs included."""
    timeouts: int = 0
    slow: int = 0
    """Answered later than the rollout's `max_latency_ms`; 0 without one."""
    bad: int = 0
    """Answered, and the rollout's `check` found the answer bad; 0 without one."""


class CheckWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the rollout's `check` said of one version's answers to requests that are units.

    It counts in the second in which the check has ended, which may be after that of the answer.
    """

    checked: int = 0
    """Answers that were found good or bad."""
    bad: int = 0
    """Of these, found bad."""
    failed: int = 0
    """Answers of which the function said nothing: it raised, took too long, gave no bool."""
    dropped: int = 0
    """Answers that it was not given, because too many were waiting."""
    keys: int = 0
    """Keys whose first answer in this step, by this gateway, was found good or bad; without those
    of whom an answer was found bad before."""
    bad_keys: int = 0
    """Of these keys, those for whom this answer was found bad."""


class ShadowWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one version did with copies. None of it counts as a request."""

    mirrored: int
    """Copies that were sent."""
    dropped: int = 0
    """Copies that were not sent, because too many were under way."""
    compared: int = 0
    """Copies that were answered, as the request itself was."""
    agreed: int = 0
    errors: dict[str, int] = {}
    """Problem code -> count of copies."""
    latency: LatencySketch | None = None
    """Of compared copies."""
    primary_latency: LatencySketch | None = None
    """Of the requests they are copies of."""


class VersionWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one version did in the window."""

    requests: int
    errors: dict[str, int] = {}
    """Problem code -> count."""
    fallbacks: int = 0
    """Of the requests, those that another version was chosen for and failed."""
    fallbacks_failed: int = 0
    """Of these, those that failed here too."""
    latency: LatencySketch | None = None
    """Of requests that were answered; None when none was."""
    tokens: int = 0
    in_flight: int = 0
    """Requests under way at the end of the window."""
    units: Units = Units()
    checks: CheckWindow | None = None
    """None when no answer was, or was to be, checked."""


class WindowObserved(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.traffic.window_observed.v1"
    gateway: str
    start: datetime
    """The first instant of the window, UTC, a whole second."""
    seconds: int = 1
    versions: dict[str, VersionWindow]
    policy: Position = 0
    """Of the event that set the policy these requests were routed by; a second in which it changed
    has a window for each. 0 in windows that were written before this was said."""
    shadows: dict[str, ShadowWindow] = {}


EVENTS: tuple[type[Event], ...] = (WindowObserved,)
