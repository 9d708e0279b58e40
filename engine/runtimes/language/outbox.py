"""Pieces of answers on their way out of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from engine.runtimes.language.wire import Piece, Pieces, framed

FRAME_PIECES_MAX: Final = 256


class Outbox:
    """Sends, after each step, what is new in one go; while there is no room, puts it together."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._pieces: dict[tuple[int, int], Piece] = {}
        self._has_room = True
        self._sending = False

    def add(self, piece: Piece) -> None:
        """Goes out before the next step, if there is room."""
        key = (piece.request, piece.choice)
        earlier = self._pieces.setdefault(key, piece)
        if earlier is not piece:
            earlier.add(piece)
        if not self._sending and self._has_room:
            self._sending = True
            asyncio.get_running_loop().call_soon(self.send)

    def forget(self, request: int) -> None:
        """Nobody waits for what is left of the request."""
        for key in [key for key in self._pieces if key[0] == request]:
            del self._pieces[key]

    def pause(self) -> None:
        """There is no room until `resume`."""
        self._has_room = False

    def resume(self) -> None:
        self._has_room = True
        self.send()

    def send(self) -> None:
        self._sending = False
        if self._has_room and self._pieces:
            pieces, self._pieces = list(self._pieces.values()), {}
            self._write(b"".join(map(framed, _frames(pieces))))


def _frames(pieces: list[Piece]) -> list[Pieces]:
    return [
        Pieces(pieces[first : first + FRAME_PIECES_MAX])
        for first in range(0, len(pieces), FRAME_PIECES_MAX)
    ]
