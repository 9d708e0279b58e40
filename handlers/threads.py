"""Functions of users, run in threads beside the event loop.

Guarantees: a function never holds up the loop for longer than Python switches threads, and is given
up after its time. Does not stop one that hangs: its thread is lost, and when all of a `Threads` are
lost, nothing runs there any more. Threads are daemons, so none keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from threading import Thread
from typing import Any, Generic, TypeVar

import msgspec

_T = TypeVar("_T")


class FunctionFailed(Exception):
    """The function said nothing: it raised (the cause), hung, or no thread was to be had."""


class Threads:
    """So many threads at once, each started for one call."""

    def __init__(self, name: str, *, threads_max: int) -> None:
        self._name = name
        self._free = asyncio.Semaphore(threads_max)

    async def run(self, work: Callable[[], _T], *, wait_s: float, run_s: float) -> _T:
        """What `work` returns. Raises FunctionFailed if it raises or takes longer than `run_s`, or
        when there is no thread for it within `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise FunctionFailed(f"no thread was free for {wait_s:g} s") from None
        outcome = self._start(work)
        try:
            async with asyncio.timeout(run_s):
                return await outcome
        except TimeoutError:
            raise FunctionFailed(f"took longer than {run_s:g} s") from None

    def _start(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_T] = loop.create_future()

        def call() -> None:
            said: _Returned[_T] | BaseException
            try:
                said = _Returned(work())
            except BaseException as raised:  # a function may raise anything, SystemExit too
                said = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._ended, outcome, said)

        try:
            Thread(target=call, name=self._name, daemon=True).start()
        except RuntimeError as error:  # the system has no thread to spare
            self._free.release()
            raise FunctionFailed(str(error)) from error
        return outcome

    def _ended(self, outcome: asyncio.Future[_T], said: _Returned[_T] | BaseException) -> None:
        self._free.release()
        if outcome.done():
            return
        if isinstance(said, _Returned):
            outcome.set_result(said.value)
        elif isinstance(said, FunctionFailed):
            outcome.set_exception(said)
        else:
            failure = FunctionFailed(f"{type(said).__name__}: {said}")
            failure.__cause__ = said
            outcome.set_exception(failure)


class _Returned(Generic[_T]):
    __slots__ = ("value",)

    def __init__(self, value: _T) -> None:
        self.value = value


def own(value: Any) -> Any:
    """A copy of what a version was given or has answered, for a function to do with what it likes.
    Raises what msgspec raises for values that it cannot encode."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))
