"""The first act: all traffic of an endpoint moves at once, and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from switchback.client import Client
from switchback.demo.checks import Check
from switchback.demo.history import history
from switchback.demo.watch import Watch, watched_traffic

ENDPOINT: Final = "read-digit"
REQUESTS_PER_S: Final = 200
ANSWERS_BETWEEN_MOVES: Final = 400
MOVE_SECONDS: Final = 60.0


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One change of traffic. Times are wall-clock seconds since the epoch."""

    what: str
    from_: str
    to: str
    asked: float
    """When the command was sent."""
    answered: float
    """When its answer came."""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What the first act came to."""

    watch: Watch
    moves: list[Move]


async def move_under_load(
    console: Console, client: Client, *, model: str, url: str, key: str
) -> Moved:
    """Swap to the better version, to the one that went wrong, and roll back."""
    first, better, worse = "1.0.0", "2.0.0", "3.0.0"
    moves: list[Move] = []
    await client.create_endpoint(ENDPOINT, model=model, version=first)
    console.print(f"\n{REQUESTS_PER_S} requests/s to endpoint {ENDPOINT!r}, from another process:")
    async with watched_traffic(url, key, ENDPOINT, requests_per_s=REQUESTS_PER_S) as watch:
        with Live(console=console, refresh_per_second=8) as live:

            async def answered_by(version: str, doing: str) -> None:
                goal = len(watch.of(version)) + ANSWERS_BETWEEN_MOVES

                def enough(watch: Watch) -> bool:
                    live.update(_progress(watch, doing))
                    return len(watch.of(version)) >= goal

                async with asyncio.timeout(MOVE_SECONDS):
                    await watch.until(enough)

            await answered_by(first, "1.0.0 serves")
            moves.append(await _move("swap", first, better, client.swap(ENDPOINT, to=better)))
            await answered_by(better, "swapped to 2.0.0, the better child")
            moves.append(await _move("swap", better, worse, client.swap(ENDPOINT, to=worse)))
            await answered_by(worse, "swapped to 3.0.0, which went wrong")
            returned = client.rollback(ENDPOINT, reason="accuracy fell")
            moves.append(await _move("rollback", worse, better, returned))
            await answered_by(better, "rolled back to 2.0.0")
    return Moved(watch=watch, moves=moves)


async def moves_told(console: Console, client: Client, moved: Moved) -> None:
    """Print what clients saw of each move, and what the log says of it."""
    watch, moves = moved.watch, moved.moves
    console.print(f"\nRequests sent {len(watch.requests)}, failed {len(watch.failed)}.")
    table = Table("move", "from", "to", "command", "first answer of new", "last answer of old")
    for move in moves:
        new = [r.answered for r in watch.of(move.to) if r.answered >= move.asked]
        until = next((m.asked for m in moves if m.asked > move.asked), float("inf"))
        old = [r.answered for r in watch.of(move.from_) if move.asked <= r.answered < until]
        table.add_row(
            move.what,
            move.from_,
            move.to,
            _ms(move.answered - move.asked),
            _ms(min(new) - move.asked) if new else "none",
            _ms(max(old) - move.asked) if old else "before the command",
        )
    console.print(table)
    accuracies = ", ".join(
        f"{version} {watch.accuracy(version):.1%}" for version in ("1.0.0", "2.0.0", "3.0.0")
    )
    console.print(f"Right answers as clients saw them: {accuracies}.")
    events = [event async for event in client.events(entity=f"endpoint/{ENDPOINT}")]
    console.print(history(events, title="History, from the log"))


def checks_of_moves(moved: Moved) -> list[Check]:
    watch, moves = moved.watch, moved.moves
    return [
        Check(what="no request failed while traffic was moved", held=not watch.failed),
        Check(
            what="each version answered after it was switched to",
            held=all(any(r.answered >= move.asked for r in watch.of(move.to)) for move in moves),
        ),
        Check(
            what="the better version was seen to be better, the worse to be worse",
            held=watch.accuracy("3.0.0") < watch.accuracy("1.0.0") < watch.accuracy("2.0.0"),
        ),
        Check(
            what="after the rollback was acknowledged, 3.0.0 took no new request",
            held=all(request.sent <= moves[-1].answered for request in watch.of("3.0.0")),
        ),
    ]


async def _move(what: str, from_: str, to: str, command: Awaitable[object]) -> Move:
    asked = time.time()
    await command
    return Move(what=what, from_=from_, to=to, asked=asked, answered=time.time())


def _progress(watch: Watch, doing: str) -> Table:
    table = Table("version", "answers", "right", title=doing, title_justify="left")
    for version in sorted({request.version for request in watch.requests if request.version}):
        table.add_row(version, str(len(watch.of(version))), f"{watch.accuracy(version):.1%}")
    table.caption = f"{len(watch.requests)} requests, {len(watch.failed)} failed"
    return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1_000:.0f} ms"
