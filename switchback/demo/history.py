"""Events of an endpoint in words, as the tour prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from switchback.cli.telling import told


def history(events: Iterable[Mapping[str, Any]], *, title: str) -> Table:
    """A row for each."""
    table = Table("position", "what happened", "by", title=title)
    for event in events:
        said = told(event["type"], event["data"])
        table.add_row(str(event["position"]), said, event["actor"])
    return table
