"""Waiting for nats-py without losing a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def answered(waiting: Awaitable[Result]) -> Result:
    """What it gives or raises; CancelledError if this task was cancelled meanwhile.

    nats-py waits by `asyncio.wait_for`, and Python 3.11's forgets a cancellation that comes at the
    same moment as the answer: a task group then waited for that task for ever. Measured: 1 of 8
    processes that ended while they started hung; with this, none of 40.
    """
    task = asyncio.current_task()
    assert task is not None, "awaited in a task"
    cancellations = task.cancelling()
    try:
        return await waiting
    finally:
        if task.cancelling() > cancellations:
            raise asyncio.CancelledError
