"""Ending background tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_AGAIN_SECONDS: Final = 0.2


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel until it has ended; what it raised is not looked at.

    Once is not enough: Python 3.11's `asyncio.wait_for`, which drivers use, loses a cancellation
    that comes at the same moment as an answer.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_SECONDS)
    if not task.cancelled():
        task.exception()  # or asyncio complains that nobody did
