"""The end of the tour: what the clients saw, what the log says, and whether it all held."""

from __future__ import annotations

from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from projections.verify import verify
from switchback.client import Client
from switchback.demo.watch import Watch
from switchback.process import Process

ENDPOINT: Final = "read-digit"


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One change of traffic. Times are wall-clock seconds since the epoch."""

    what: str
    from_: str
    to: str
    asked: float
    """When the command was sent."""
    answered: float
    """When its answer came."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Something that had to hold."""

    what: str
    held: bool


async def report(
    console: Console,
    client: Client,
    process: Process,
    watch: Watch,
    moves: list[Move],
) -> bool:
    """Print what happened; whether everything held."""
    console.print(f"\nRequests sent {len(watch.requests)}, failed {len(watch.failed)}.")
    _print_moves(console, watch, moves)
    await _print_history(console, client)
    receipt = watch.requests[-1].receipt
    explained = await client.explain_receipt(receipt)
    console.print(f"\nWhy the last request was answered by {explained['version']}:")
    console.print(
        f"  policy of position {explained['position']}, set by {explained['event']['type']}"
        f" at {explained['event']['time']}; the receipt is"
        f" {'valid' if explained['valid'] else 'NOT VALID'}."
    )
    clean = await _verify(console, process)
    checks = [
        Check(what="no request failed", held=not watch.failed),
        Check(
            what="each version answered after it was switched to", held=_all_arrived(watch, moves)
        ),
        Check(
            what="the better version was seen to be better, the worse to be worse",
            held=watch.accuracy("3.0.0") < watch.accuracy("1.0.0") < watch.accuracy("2.0.0"),
        ),
        Check(
            what="after the rollback was acknowledged, 3.0.0 took no new request",
            held=all(request.sent <= moves[-1].answered for request in watch.of("3.0.0")),
        ),
        Check(what="the receipt of an answer is valid", held=bool(explained["valid"])),
        Check(what="tables equal the log", held=clean),
    ]
    console.print()
    for check in checks:
        mark = "[green]held[/green]" if check.held else "[red]DID NOT HOLD[/red]"
        console.print(f"  {mark}  {check.what}")
    return all(check.held for check in checks)


def _print_moves(console: Console, watch: Watch, moves: list[Move]) -> None:
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


async def _print_history(console: Console, client: Client) -> None:
    table = Table("position", "event", "from", "to", "by", title="History, from the log")
    async for event in client.events(entity=f"endpoint/{ENDPOINT}"):
        name = event["type"].removeprefix("switchback.endpoint.").removesuffix(".v1")
        data = event["data"]
        old = data.get("from_version") or ", ".join(data.get("from_versions", ()))
        new = data.get("to_version") or data.get("version", "")
        table.add_row(str(event["position"]), name, old, new, event["actor"])
    console.print(table)


async def _verify(console: Console, process: Process) -> bool:
    reports = await verify(log=process.jetstream.events, pool=process.pool)
    tables = [table for each in reports for table in each.tables]
    rows = sum(table.rows for table in tables)
    bad = [table.table for table in tables if not table.ok]
    verdict = f"differ: {', '.join(bad)}" if bad else "equal a rebuild from the log"
    console.print(f"\nverify: {len(tables)} tables with {rows} rows {verdict}.")
    return not bad


def _all_arrived(watch: Watch, moves: list[Move]) -> bool:
    return all(any(r.answered >= move.asked for r in watch.of(move.to)) for move in moves)


def _ms(seconds: float) -> str:
    return f"{seconds * 1_000:.0f} ms"
