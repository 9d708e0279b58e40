"""`events`: the log itself, shown, saved and restored."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import IO, Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from events.files import export_events
from events.recordings import Carried, export_recording, import_recording
from switchback.cli.application import app
from switchback.cli.failures import Failed
from switchback.cli.output import console, print_json, print_line
from switchback.cli.progress import progress
from switchback.cli.target import (
    HERE,
    AsJson,
    DataDir,
    Reached,
    Target,
    reach,
    reading,
    settings_of,
)
from switchback.cli.telling import told
from switchback.client import Client

events: Final = App(name="events", help="The log: every event, in order.")
app.command(events)


@events.command
async def tail(
    *,
    after: Annotated[int | None, Parameter(help="Begin after this position.")] = None,
    last: Annotated[int, Parameter(help="Without --after: begin with so many.")] = 20,
    entity: Annotated[str | None, Parameter(help="Only of AGGREGATE/ID.")] = None,
    follow: Annotated[
        bool, Parameter(["--follow", "-f"], negative="", help="Go on as events come.")
    ] = False,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Show the tenant's events; with --json one CloudEvent a line."""
    show = print_line if as_json else _print_event
    async with reading(target) as client:
        position = after or 0
        for event in await _shown(client, after=after, last=last, entity=entity):
            show(event)
            position = event["position"]
        if follow:
            async with aclosing(client.follow_events(after=position, entity=entity)) as coming:
                async for event in coming:
                    show(event)


@events.command(name="export")
async def export_log(
    file: Path,
    /,
    *,
    traffic: Annotated[
        bool, Parameter(negative="", help="Also the traffic windows there still are, for what-if.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write every event of every tenant to a new file, one CloudEvent a line."""
    async with reach(data_dir) as reached:
        write = _write_recording if traffic else _write_events
        try:
            with file.open("xb") as out:
                carried = await write(reached, out)
        except FileExistsError:
            raise Failed(f"{file} is there already; an export does not overwrite") from None
    _print_carried("exported", carried, file, as_json=as_json)


@events.command(name="import")
async def import_log(file: Path, /, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Restore an export into an empty log, with its traffic windows if it has any; any other log
    is refused."""
    with file.open("rb") as source:
        settings_of(data_dir).data_dir.mkdir(parents=True, exist_ok=True)
        async with reach(data_dir) as reached:
            with progress("importing", total=None) as show:
                log, windows = reached.jetstream.events, reached.jetstream.traffic
                carried = await import_recording(source, log, windows, progress=show)
    _print_carried("imported", carried, file, as_json=as_json)


async def _write_events(reached: Reached, out: IO[bytes]) -> Carried:
    log = reached.jetstream.events
    with progress("exporting", total=await log.position()) as show:
        return Carried(events=await export_events(log, out, progress=show))


async def _write_recording(reached: Reached, out: IO[bytes]) -> Carried:
    log, windows = reached.jetstream.events, reached.jetstream.traffic
    kept = await windows.position() - await windows.begin()
    with progress("exporting", total=await log.position() + kept) as show:
        return await export_recording(log, windows, out, progress=show)


async def _shown(
    client: Client, *, after: int | None, last: int, entity: str | None
) -> deque[dict[str, Any]]:
    shown: deque[dict[str, Any]] = deque(maxlen=None if after is not None else last)
    async for event in client.events(after=after or 0, entity=entity):
        shown.append(event)
    return shown


def _print_event(event: Mapping[str, Any]) -> None:
    text = told(event["type"], event["data"])
    line = f"{event['position']:>8}  {event['time']}  {event['actor']}  {event['subject']}  {text}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _print_carried(what: str, carried: Carried, file: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({**msgspec.to_builtins(carried), "file": str(file)})
        return
    windows = f" and {carried.windows} traffic windows" if carried.windows else ""
    text = f"{what} {carried.events} events{windows}: {file}"
    console.print(text, highlight=False, soft_wrap=True)
