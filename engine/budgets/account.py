"""The tokens of one key, as one gateway knows them.

Settled tokens are counted by the second in which they were settled, for as long as any moment of
that second is less than a minute ago: at least 60 seconds and at most 61.
"""

from __future__ import annotations

from typing import Final

import msgspec

MINUTE_SECONDS: Final = 60
SILENT_SECONDS: Final = 60.0
"""How long the reservations of a gateway count that does not say anything of them any more."""
_SLOTS: Final = MINUTE_SECONDS + 1


class _Told(msgspec.Struct, frozen=True):
    """What another gateway has reserved, by its last report."""

    at: float
    reserved: int


class Account:
    """Seconds are those of one clock that is never set back."""

    __slots__ = (
        "_first",
        "_others",
        "_slots",
        "reported_at",
        "reported_reserved",
        "reserved",
        "settled",
        "unreported",
    )

    def __init__(self, now: float) -> None:
        self._slots = [0] * _SLOTS
        """Second s stands at s modulo the number of slots."""
        self._first = int(now) - MINUTE_SECONDS
        """The oldest second that counts."""
        self._others: dict[str, _Told] = {}
        self.settled = 0
        """By anyone, in the seconds that count."""
        self.reserved = 0
        """By this gateway."""
        self.unreported = 0
        """Settled by this gateway since it last reported."""
        self.reported_reserved = 0
        self.reported_at = now

    def advance(self, now: float) -> None:
        """Forget what no longer counts."""
        first = int(now) - MINUTE_SECONDS
        if first <= self._first:
            return
        for second in range(self._first, min(first, self._first + _SLOTS)):
            slot = second % _SLOTS
            self.settled -= self._slots[slot]
            self._slots[slot] = 0
        self._first = first
        for gateway, told in list(self._others.items()):
            if now - told.at > SILENT_SECONDS:
                del self._others[gateway]

    def settle(self, second: int, tokens: int) -> None:
        """Count them in that second; what is too old counts no more, nothing is in the future."""
        second = min(second, self._first + MINUTE_SECONDS)
        if second >= self._first:
            self._slots[second % _SLOTS] += tokens
            self.settled += tokens

    def told(self, gateway: str, at: float, reserved: int) -> None:
        """What another gateway has reserved; an older report than the last one says nothing."""
        before = self._others.get(gateway)
        if before is None or before.at <= at:
            self._others[gateway] = _Told(at, reserved)

    @property
    def use(self) -> int:
        """Settled in the last minute and reserved, by all."""
        others = sum(told.reserved for told in self._others.values())
        return self.settled + self.reserved + others

    @property
    def is_idle(self) -> bool:
        """Whether it says no more than a new one does."""
        own = self.reserved or self.unreported or self.reported_reserved
        return not (self.settled or own or self._others)

    def room_s(self, now: float, room: int) -> float | None:
        """Seconds until so many of the settled tokens count no more; None if there are not so
        many."""
        for second in range(self._first, self._first + _SLOTS):
            room -= self._slots[second % _SLOTS]
            if room <= 0:
                return second + _SLOTS - now
        return None

    def whole_s(self, now: float) -> float:
        """Seconds until none of the settled tokens counts any more."""
        for second in range(self._first + MINUTE_SECONDS, self._first - 1, -1):
            if self._slots[second % _SLOTS]:
                return second + _SLOTS - now
        return 0.0
