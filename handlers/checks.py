"""Checks: functions of users that say of an answer whether it is good, asked beside the requests.

Guarantees: a check begins after its answer was given and changes nothing about it; what waits is
bounded, and what finds no room is dropped and counted; a function that raises, hangs or says
nothing makes no answer bad. Does not guarantee that every answer is checked: neither those that are
dropped nor those that wait when the gateway ends. That is why what is judged is counted among the
answers that were checked, see `engine.analysis.checked`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import structlog

from engine.agreement import Function
from handlers.threads import FunctionFailed, Threads, own
from handlers.traffic.passages import Checking, Passage

_log = structlog.get_logger(__name__)

CHECKS_MAX: Final = 1_024
"""Waiting or at work at once; each holds its request's inputs and outputs."""
CHECKING_MAX: Final = 8
"""Functions at work at once."""
CHECK_SECONDS: Final = 5.0
"""For one call of a function."""
CHECK_WAITS_SECONDS: Final = 30.0
"""For a thread."""
TOLD_SECONDS: Final = 10.0
"""The log has a line about what a function failed on, or what was dropped, this often at most."""
NO_CHECKS: Final[Mapping[str, Function]] = MappingProxyType({})


class Checks:
    """The functions that this gateway knows by name, and the answers they are asked about."""

    def __init__(self, functions: Mapping[str, Function] = NO_CHECKS) -> None:
        self._functions = functions
        self._threads = Threads("check", threads_max=CHECKING_MAX)
        self._under_way: set[asyncio.Task[None]] = set()
        self._told_at: dict[tuple[str, str], float] = {}

    @property
    def under_way(self) -> int:
        """Checks that wait or are at work."""
        return len(self._under_way)

    def check(self, passage: Passage, *, inputs: Any, outputs: Any) -> None:
        """Have the answer of this passage checked in the background, or drop it; nothing happens
        to one that has no check. Say it once, after `passage.answered`; outputs of a stream are
        the whole answer, as `infer` would have given it."""
        name = passage.check
        if name is None:
            return
        checking = passage.checking()
        if len(self._under_way) >= CHECKS_MAX:
            checking.dropped()
            self._tell("an answer found no room to be checked", name, f"{CHECKS_MAX} wait")
            return
        task = asyncio.create_task(self._run(name, checking, inputs, outputs))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Let checks go."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _run(self, name: str, checking: Checking, inputs: Any, outputs: Any) -> None:
        try:
            good = await self._threads.run(
                lambda: self._asked(name, inputs, outputs),
                wait_s=CHECK_WAITS_SECONDS,
                run_s=CHECK_SECONDS,
            )
        except FunctionFailed as error:
            checking.failed()
            self._tell("a check said nothing of an answer", name, str(error))
        else:
            checking.found(good=good)

    def _tell(self, what: str, name: str, detail: str) -> None:
        """In the log, and now and then only; every one is counted."""
        now = asyncio.get_running_loop().time()
        told_at = self._told_at.get((what, name))
        if told_at is None or now - told_at >= TOLD_SECONDS:
            self._told_at[what, name] = now
            _log.warning(what, check=name, detail=detail)

    def _asked(self, name: str, inputs: Any, outputs: Any) -> bool:
        function = self._functions.get(name)
        if function is None:
            raise FunctionFailed("no such function here")
        said = function(own(inputs), own(outputs))
        if not isinstance(said, bool):
            raise FunctionFailed(f"returned {type(said).__name__}, not a bool")
        return said
