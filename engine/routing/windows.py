"""Time windows of rules: a predicate on what a wall clock in the rule's zone shows.

At any instant the window holds if the local time of day lies in [from, to) and the local day on
which the window started is one of `days`. After midnight a window that crosses it still belongs to
the day before. `from` alone lasts until midnight, `to` alone starts at midnight, and `from` equal
to `to` is 24 hours.

Across daylight-saving changes the wall clock decides, and nothing else. When clocks go forward, a
local time that is skipped never comes: 02:30-04:00 opens at 03:00 that day, 02:15-02:45 not at all.
When they go back, an hour comes twice, and what the window says about it holds twice: 02:15-02:45
opens twice, and 01:00-02:30 closes at the first 02:30, opens again when the clock is set back to
02:00, and closes at the second 02:30.

`from` and `to` are whole minutes and so is every zone's distance from UTC since 1973, so the answer
is constant within each minute since the epoch: callers may keep it that long.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from engine.routing.errors import PolicyInvalid
from events.catalogue.endpoints import When

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME_OF_DAY: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z", re.ASCII)
_MIDNIGHT_MINUTES: Final = 24 * 60
_LAST_MINUTE: Final = int(datetime(9999, 12, 30, tzinfo=UTC).timestamp()) // 60


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled time condition."""

    zone: ZoneInfo
    days: frozenset[int] | None
    """Weekdays of the start, Monday is 0; None is every day."""
    start_minutes: int
    """Since local midnight, inclusive."""
    end_minutes: int
    """Since local midnight, exclusive; not after the start, the window ends on the next day."""


def compile_window(when: When, *, path: str) -> Window | None:
    """The time condition of `when`, None if it has none. Raises PolicyInvalid below `path`."""
    zone = _zone(when.timezone, path=f"{path}.timezone")
    if when.days is None and when.from_ is None and when.to is None:
        return None
    return Window(
        zone=zone,
        days=None if when.days is None else _days(when.days, path=f"{path}.days"),
        start_minutes=_minutes(when.from_, path=f"{path}.from", absent=0),
        end_minutes=_minutes(when.to, path=f"{path}.to", absent=_MIDNIGHT_MINUTES),
    )


def holds(window: Window, epoch_minute: int) -> bool:
    """Does the window hold in this minute since the epoch?

    Answers for any number, as forged receipts hold any: minutes before the epoch count as the
    first, those after the calendar's end as the last.
    """
    known_minute = min(max(epoch_minute, 0), _LAST_MINUTE)
    local = datetime.fromtimestamp(known_minute * 60, window.zone)
    minutes = local.hour * 60 + local.minute
    today = local.weekday()
    if window.start_minutes < window.end_minutes:
        return window.start_minutes <= minutes < window.end_minutes and _starts_on(window, today)
    if minutes >= window.start_minutes:
        return _starts_on(window, today)
    return minutes < window.end_minutes and _starts_on(window, (today - 1) % 7)


def _starts_on(window: Window, weekday: int) -> bool:
    return window.days is None or weekday in window.days


def _zone(name: str | None, *, path: str) -> ZoneInfo:
    try:
        return ZoneInfo("UTC" if name is None else name)
    except (LookupError, OSError, ValueError) as error:
        # An unknown name, a folder of the zone database, a name with "..": three kinds of error.
        raise PolicyInvalid(path, f"{(name or '')[:80]!r} is not a time zone") from error


def _days(days: tuple[str, ...], *, path: str) -> frozenset[int]:
    for day in days:
        if day not in _DAYS:
            raise PolicyInvalid(path, f"{day[:80]!r} is none of {', '.join(_DAYS)}")
    return frozenset(_DAYS.index(day) for day in days)


def _minutes(text: str | None, *, path: str, absent: int) -> int:
    if text is None:
        return absent
    match = _TIME_OF_DAY.match(text)
    if match is None:
        raise PolicyInvalid(path, f"{text[:80]!r} is not a time of day from 00:00 to 23:59")
    return int(match[1]) * 60 + int(match[2])
