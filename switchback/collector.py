"""Python's garbage collector, told that this process is meant to stay.

A full collection looks at every object there is and stops everything meanwhile. After the start
there are 110,000 objects that live as long as the process, and under load Python looked at all of
them again every few hundred requests: pauses of 100 to 300 ms, and 40 % of a command's processor
time (measured with 100 connections on two busy cores).
"""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (10_000, 20, 50)
"""New objects before the young are looked at; such rounds before the middle-aged, and the old."""


def settle_collector() -> None:
    """Everything there is now is there for good: never look at it again, and look less often.

    To be called once, when a process that serves has started.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
