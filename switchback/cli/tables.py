"""`replay`, `rebuild`, `verify`: what the log says, and whether the tables say so too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from handlers.routes import Route
from projections.builds import install
from projections.rebuild import rebuild as rebuild_tables
from projections.tables import PROJECTIONS
from projections.verify import Verification
from projections.verify import verify as verify_tables
from switchback.cli.application import DONE, FAILED, app
from switchback.cli.output import errors, print_json, print_members, print_problem, print_rows
from switchback.cli.progress import progress
from switchback.cli.target import AsJson, DataDir, Reached, reach
from switchback.replaying.memory import RoutingFold, TablesFold, read_log

_SHOWN_EVERY_EVENTS = 1_000


@app.command
def replay(log: Path, /, *, as_json: AsJson = False) -> None:
    """Fold a JSONL log in memory and print what it ends in. Fails at the first bad event."""
    fold, tables = RoutingFold(), TablesFold()
    with progress("replaying", total=None) as show:
        for recorded in read_log(log):
            fold.apply(recorded)
            tables.apply(recorded)
            if recorded.position % _SHOWN_EVERY_EVENTS == 0:
                show(recorded.position)
    entities = {aggregate: len(found) for aggregate, found in sorted(fold.entities.items())}
    endpoints = [_endpoint(route) for _, route in sorted(fold.routing.routes.items())]
    if as_json:
        print_json({"events": fold.events, "entities": entities, "endpoints": endpoints})
        return
    print_members({"events": fold.events, **entities})
    print_rows(endpoints, ("endpoint", "model", "active", "policy", "position"), title="Endpoints")


@app.command
async def rebuild(
    projection: str | None = None, /, *, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Build tables anew from the log, beside the live ones, and switch to them."""
    names = [projection] if projection is not None else [each.name for each in PROJECTIONS]
    done: list[dict[str, Any]] = []
    async with reach(data_dir) as reached:
        total = await reached.jetstream.events.position()
        for name in names:
            with progress(f"rebuilding {name}", total=total) as show:
                rebuilt = await rebuild_tables(
                    name,
                    log=reached.jetstream.events,
                    pool=reached.pool,
                    cache=reached.cache,
                    progress=show,
                )
            done.append(msgspec.to_builtins(rebuilt))
    _print(done, ("projection", "version", "position"), title="Rebuilt", as_json=as_json)


@app.command
async def verify(*, data_dir: DataDir = None, as_json: AsJson = False) -> int:
    """Fold the log again and compare with every table. Fails if a row differs."""
    async with reach(data_dir) as reached:
        reports = await _verified(reached)
    rows = [row for report in reports for row in _tables(report)]
    _print(rows, ("table", "rows", "position", "result"), title="Verified", as_json=as_json)
    wrong = [row for row in rows if row["result"] != "equal"]
    for row in wrong:
        print_problem(f"{row['table']} is not what the log says: {_differences(row)}")
    return FAILED if wrong else DONE


async def _verified(reached: Reached) -> list[Verification]:
    with errors.status("verifying"):
        await install(reached.pool, PROJECTIONS)
        return await verify_tables(log=reached.jetstream.events, pool=reached.pool)


def _tables(report: Verification) -> Iterable[dict[str, Any]]:
    for table in report.tables:
        yield {
            **msgspec.to_builtins(table),
            "position": report.position,
            "result": "equal" if table.ok else "different",
        }


def _differences(row: dict[str, Any]) -> str:
    kinds = ((kind, row[kind]) for kind in ("missing", "extra", "different"))
    return "; ".join(f"{kind} {', '.join(keys)}" for kind, keys in kinds if keys)


def _print(
    rows: list[dict[str, Any]], columns: tuple[str, ...], *, title: str, as_json: bool
) -> None:
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, columns, title=title)


def _endpoint(route: Route) -> dict[str, Any]:
    return {
        "endpoint": f"{route.entity.tenant}/{route.entity.id}",
        "model": route.state.model,
        "active": route.state.active,
        "policy": msgspec.to_builtins(route.state.policy),
        "position": route.table.position,
    }
