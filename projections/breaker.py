"""A circuit breaker: what has failed a few times in a row is left alone for a moment.

While it is open nobody waits for the dead side; then one attempt at a time tries it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

FAILURES_MAX: Final = 3
OPEN_SECONDS: Final = 0.5


class Breaker:
    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    def admits(self) -> bool:
        """Whether to try now. When open, one caller per interval is told yes."""
        if self._failures < FAILURES_MAX:
            return True
        if self._clock() < self._open_until:
            return False
        self._open_until = self._clock() + OPEN_SECONDS
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._open_until = self._clock() + OPEN_SECONDS
