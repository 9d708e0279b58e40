"""How large an output may be to be compared value by value.

A comparison runs where requests are answered, so its time is bounded: what is within the limits
takes a few milliseconds at most (measured on a busy core: 5,000 numbers 7 ms, two texts of 10,000
characters with nothing in common 2 ms).
"""

from __future__ import annotations

from typing import Any, Final

VALUES_MAX: Final = 5_000
"""Numbers, texts, keys and containers in one output."""
CHARS_MAX: Final = 10_000
"""Characters of all its texts together, and bytes; similarity takes time by their square."""
DEPTH_MAX: Final = 64


def is_large(output: Any) -> bool:
    """Does the output exceed a limit? Looks at no more of it than the limits allow."""
    values = chars = 0
    waiting = [(output, 1)]
    while waiting:
        value, depth = waiting.pop()
        values += 1
        if isinstance(value, str | bytes):
            chars += len(value)
        elif isinstance(value, dict | list | tuple):
            if depth > DEPTH_MAX or values + len(waiting) + len(value) > VALUES_MAX:
                return True
            inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            waiting.extend((each, depth + 1) for each in inner)
        if values > VALUES_MAX or chars > CHARS_MAX:
            return True
    return False
