"""What commands print: JSON for programs, tables for people, problems on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

console = Console()
errors = Console(stderr=True)


def print_json(value: Any) -> None:
    """One document, indented."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def print_line(value: Any) -> None:
    """One document on one line, for streams; flushed, so that pipes see it at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, title: str) -> None:
    """A table with these members of each row; missing ones stay empty."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(table)


def print_members(value: Mapping[str, Any]) -> None:
    """One thing, a member a line."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, member in value.items():
        table.add_row(f"[bold]{name.replace('_', ' ')}[/bold]", _cell(member))
    console.print(table)


def print_problem(text: str) -> None:
    errors.print(f"[red]error:[/red] {text}", highlight=False, soft_wrap=True)


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case dict() | list() | tuple():
            return msgspec.json.encode(value).decode()
        case _:
            return str(value)


def print_items(
    items: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool
) -> None:
    """A list of things."""
    if as_json:
        print_json(items)
    else:
        print_rows(items, columns, title="")


def print_thing(thing: Mapping[str, Any], *, as_json: bool) -> None:
    """One thing."""
    if as_json:
        print_json(thing)
    else:
        print_members(thing)


def print_done(sentence: str, answer: Mapping[str, Any], *, as_json: bool) -> None:
    """What a command did."""
    if as_json:
        print_json(answer)
    else:
        console.print(sentence, highlight=False, soft_wrap=True, markup=False)
