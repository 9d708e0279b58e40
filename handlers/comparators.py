"""Comparing outputs beside the requests: quick comparisons at once, users' functions in threads.

Guarantees: a function of a user never holds up a request for longer than Python switches threads,
changes neither the answer nor the shadow's output, and is given up after `COMPARE_SECONDS`. Does
not stop one that hangs: its thread is lost, and when `COMPARING_MAX` of them are, every later
comparison by function fails. Threads are daemons, so none keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from threading import Thread
from types import MappingProxyType
from typing import Any, Final

import msgspec

from engine.agreement import ComparisonFailed, Function, agree
from events.catalogue.endpoints import Comparison

COMPARE_SECONDS: Final = 5.0
"""For one comparison by function, waiting for a thread included."""
COMPARING_MAX: Final = 8
"""Functions at work at once."""
NO_FUNCTIONS: Final[Mapping[str, Function]] = MappingProxyType({})


class Comparators:
    """The functions that this gateway knows by name, and how comparisons are run."""

    def __init__(self, functions: Mapping[str, Function] = NO_FUNCTIONS) -> None:
        self._functions = functions
        self._threads = asyncio.Semaphore(COMPARING_MAX)

    async def agree(self, primary: Any, shadow: Any, comparison: Comparison) -> bool:
        """Raises ComparisonFailed."""
        if comparison.kind != "function":
            return agree(primary, shadow, comparison, self._functions)
        if comparison.name not in self._functions:
            raise ComparisonFailed(f"no function {comparison.name!r} here")
        try:
            async with asyncio.timeout(COMPARE_SECONDS):
                return await self._in_thread(
                    lambda: agree(_own(primary), _own(shadow), comparison, self._functions)
                )
        except TimeoutError:
            said = f"{comparison.name} took longer than {COMPARE_SECONDS} s"
            raise ComparisonFailed(said) from None

    async def _in_thread(self, compare: Callable[[], bool]) -> bool:
        await self._threads.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[bool] = loop.create_future()

        def work() -> None:
            try:
                agreed, error = compare(), None
            except BaseException as raised:  # a function may raise anything, SystemExit too
                agreed, error = False, raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._ended, outcome, agreed, error)

        try:
            Thread(target=work, name="compare", daemon=True).start()
        except RuntimeError as error:  # the system has no thread to spare
            self._threads.release()
            raise ComparisonFailed(str(error)) from error
        return await outcome

    def _ended(
        self, outcome: asyncio.Future[bool], agreed: bool, error: BaseException | None
    ) -> None:
        self._threads.release()
        if outcome.done():
            return
        if error is None:
            outcome.set_result(agreed)
        elif isinstance(error, ComparisonFailed):
            outcome.set_exception(error)
        else:
            outcome.set_exception(ComparisonFailed(f"{type(error).__name__}: {error}"))


def _own(output: Any) -> Any:
    """A copy, for a function to do with what it likes."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(output))
