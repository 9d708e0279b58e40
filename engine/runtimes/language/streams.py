"""What has come of an answer and is not read yet, on the side of who asked."""

from __future__ import annotations

import asyncio

from engine.runtimes.language.wire import Piece
from engine.runtimes.runtime import RuntimeFailed


class Stream:
    """Of one request. Pieces of a choice that nobody has read are put together."""

    def __init__(self, *, choices: int) -> None:
        self._pieces: dict[int, Piece] = {}
        self._failure: RuntimeFailed | None = None
        self._news = asyncio.Event()
        self._open = choices

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._open == 0

    def put(self, piece: Piece) -> None:
        earlier = self._pieces.setdefault(piece.choice, piece)
        if earlier is not piece:
            earlier.add(piece)
        if piece.end is not None:
            self._open -= 1
        self._news.set()

    def fail(self, failure: RuntimeFailed) -> None:
        """Instead of what is not read, and of everything that would have come."""
        self._failure = failure
        self._open = 0
        self._news.set()

    async def read(self) -> list[Piece]:
        """What is new, one piece for each choice that has news; waits if none has. Raises
        RuntimeFailed. Not to be called once all has been read."""
        await self._news.wait()
        self._news.clear()
        if self._failure is not None:
            raise self._failure
        pieces, self._pieces = list(self._pieces.values()), {}
        return pieces
