"""Executors as one: who is nearest is asked first, the bus last."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from events.catalogue.nodes import VersionRef
from handlers.attempts import Begun
from handlers.executions import (
    Chunk,
    Executed,
    Execution,
    Executor,
    NotServed,
    VersionFailed,
)


class Nearest:
    """Whoever does not serve a version leaves it to the next, and the last says so."""

    def __init__(self, executors: tuple[Executor, ...]) -> None:
        """In order of preference."""
        self._executors = executors

    async def execute(self, ref: VersionRef, execution: Execution) -> Executed:
        """A whole answer. Raises InferenceFailed."""
        for executor in self._executors[:-1]:
            try:
                return await executor.execute(ref, execution)
            except NotServed:
                continue
        return await self._executors[-1].execute(ref, execution)

    async def begin(self, ref: VersionRef, execution: Execution) -> Begun:
        """An answer of which the first piece is here. Raises InferenceFailed."""
        for executor in self._executors[:-1]:
            try:
                return await _begun(executor.stream(ref, execution))
            except NotServed:
                continue
        return await _begun(self._executors[-1].stream(ref, execution))


async def _begun(chunks: AsyncGenerator[Chunk, None]) -> Begun:
    try:
        return Begun(first=await anext(chunks), rest=chunks)
    except StopAsyncIteration:
        raise VersionFailed("the answer is empty") from None
