"""Progress on standard error, and only on a terminal: output stays clean for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from switchback.cli.output import errors


@contextmanager
def progress(doing: str, *, total: int | None) -> Iterator[Callable[[int], None]]:
    """Call what it gives with how far the work is."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda completed: bar.update(task, completed=completed)
