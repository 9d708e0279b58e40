"""The end of the tour: why the last request was answered so, and whether everything held."""

from __future__ import annotations

from rich.console import Console

from projections.verify import verify
from switchback.client import Client
from switchback.demo.checks import Check
from switchback.demo.watch import Watch
from switchback.process import Process


async def explained(console: Console, client: Client, watch: Watch) -> Check:
    """Print which event the last answer goes back to."""
    receipt = next(request.receipt for request in reversed(watch.requests) if request.receipt)
    explanation = await client.explain_receipt(receipt)
    valid = bool(explanation["valid"])
    event = explanation["event"]
    console.print(f"\nWhy the last request was answered by {explanation['version']}:")
    console.print(
        f"  policy of position {explanation['position']}, set by {event['type']}"
        f" at {event['time']}; the receipt is {'valid' if valid else 'NOT VALID'}."
    )
    return Check(what="the receipt of an answer is valid", held=valid)


async def verified(console: Console, process: Process) -> Check:
    """Print whether the tables are what the log says."""
    reports = await verify(log=process.jetstream.events, pool=process.pool)
    tables = [table for each in reports for table in each.tables]
    rows = sum(table.rows for table in tables)
    bad = [table.table for table in tables if not table.ok]
    verdict = f"differ: {', '.join(bad)}" if bad else "equal a rebuild from the log"
    console.print(f"\nverify: {len(tables)} tables with {rows} rows {verdict}.")
    return Check(what="tables equal the log", held=not bad)


def conclude(console: Console, checks: list[Check]) -> bool:
    """Print each promise; whether all held."""
    console.print()
    for check in checks:
        mark = "[green]held[/green]" if check.held else "[red]DID NOT HOLD[/red]"
        console.print(f"  {mark}  {check.what}")
    return all(check.held for check in checks)
