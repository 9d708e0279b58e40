"""Pieces of answers that wait: for the end of a step, for room, for a reader."""

from __future__ import annotations

import asyncio

import pytest

from engine.runtimes.language.outbox import FRAME_PIECES_MAX, Outbox
from engine.runtimes.language.streams import Stream
from engine.runtimes.language.wire import End, Piece, Pieces, decode_report
from engine.runtimes.runtime import RuntimeFailed

END = End("stop", None, 1, 1, 0, "")


class Written(list[bytes]):
    """What was written, call by call."""

    def pieces(self) -> list[list[tuple[int, int, str]]]:
        """Of each call."""
        return [
            [
                (piece.request, piece.choice, piece.text)
                for report in _reports(written)
                for piece in report.pieces
            ]
            for written in self
        ]


def _reports(written: bytes) -> list[Pieces]:
    reports = []
    while written:
        end = 4 + int.from_bytes(written[:4], "big")
        report = decode_report(written[4:end])
        assert isinstance(report, Pieces)
        reports.append(report)
        written = written[end:]
    return reports


async def test_what_a_step_has_drawn_goes_out_in_one_go() -> None:
    written = Written()
    outbox = Outbox(written.append)

    for request in range(3):
        outbox.add(Piece(request, 0, "x"))
    assert not written
    await asyncio.sleep(0)

    assert written.pieces() == [[(0, 0, "x"), (1, 0, "x"), (2, 0, "x")]]


async def test_without_room_pieces_of_a_choice_are_put_together() -> None:
    written = Written()
    outbox = Outbox(written.append)
    outbox.pause()

    for text in "abc":
        outbox.add(Piece(1, 0, text))
        outbox.add(Piece(1, 1, text.upper()))
        await asyncio.sleep(0)
    assert not written
    outbox.resume()

    assert written.pieces() == [[(1, 0, "abc"), (1, 1, "ABC")]]


async def test_room_that_ends_before_the_step_does_is_no_room() -> None:
    written = Written()
    outbox = Outbox(written.append)

    outbox.add(Piece(1, 0, "a"))
    outbox.pause()
    await asyncio.sleep(0)
    assert not written
    outbox.resume()

    assert written.pieces() == [[(1, 0, "a")]]


async def test_what_nobody_waits_for_is_not_sent() -> None:
    written = Written()
    outbox = Outbox(written.append)

    outbox.add(Piece(1, 0, "a"))
    outbox.add(Piece(1, 1, "b"))
    outbox.add(Piece(2, 0, "c"))
    outbox.forget(1)
    await asyncio.sleep(0)

    assert written.pieces() == [[(2, 0, "c")]]


async def test_many_pieces_are_several_frames_and_still_one_write() -> None:
    written = Written()
    outbox = Outbox(written.append)

    for request in range(FRAME_PIECES_MAX + 1):
        outbox.add(Piece(request, 0, "x"))
    await asyncio.sleep(0)

    assert [len(_reports(each)) for each in written] == [2]


async def test_a_reader_gets_what_has_come_since_it_last_read() -> None:
    stream = Stream(choices=2)
    for piece in (Piece(1, 0, "a"), Piece(1, 1, "A"), Piece(1, 0, "b", end=END)):
        stream.put(piece)

    first, second = await stream.read()
    stream.put(Piece(1, 1, "B", end=END))
    (third,) = await stream.read()

    assert (first.text, first.end, second.text, third.text) == ("ab", END, "A", "B")
    assert stream.over


async def test_a_failure_is_told_instead_of_what_was_not_read() -> None:
    stream = Stream(choices=1)
    stream.put(Piece(1, 0, "a"))
    stream.fail(RuntimeFailed("gone"))

    with pytest.raises(RuntimeFailed, match="gone"):
        await stream.read()
    assert stream.over
