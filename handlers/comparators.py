"""Comparing outputs beside the requests: quick comparisons at once, users' functions in threads.

Guarantees: a function of a user changes neither the answer nor the shadow's output, and is given up
after `COMPARE_SECONDS`; what `handlers.threads` says of hanging ones holds here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from engine.agreement import ComparisonFailed, Function, agree
from events.catalogue.endpoints import Comparison
from handlers.threads import FunctionFailed, Threads, own

COMPARE_SECONDS: Final = 5.0
"""For a thread, and for one comparison by function."""
COMPARING_MAX: Final = 8
"""Functions at work at once."""
NO_FUNCTIONS: Final[Mapping[str, Function]] = MappingProxyType({})


class Comparators:
    """The functions that this gateway knows by name, and how comparisons are run."""

    def __init__(self, functions: Mapping[str, Function] = NO_FUNCTIONS) -> None:
        self._functions = functions
        self._threads = Threads("compare", threads_max=COMPARING_MAX)

    async def agree(self, primary: Any, shadow: Any, comparison: Comparison) -> bool:
        """Raises ComparisonFailed."""
        if comparison.kind != "function":
            return agree(primary, shadow, comparison, self._functions)
        if comparison.name not in self._functions:
            raise ComparisonFailed(f"no function {comparison.name!r} here")
        try:
            return await self._threads.run(
                lambda: agree(own(primary), own(shadow), comparison, self._functions),
                wait_s=COMPARE_SECONDS,
                run_s=COMPARE_SECONDS,
            )
        except FunctionFailed as error:
            if isinstance(error.__cause__, ComparisonFailed):
                raise error.__cause__ from None
            raise ComparisonFailed(f"{comparison.name}: {error}") from error
