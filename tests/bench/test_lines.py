"""Every line measures something real: figures for each round, ceilings beside them, no failure."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from switchback.bench import LINES, Row, UnknownLine, run
from tests.bench.tiny import TINY

pytestmark = pytest.mark.slow

ADDED = ": added"
"""Rows of differences, which may be less than nothing where there are so few figures."""
WITHOUT_CEILING = {"soak", "detection", "scheduling"}
"""Servers alone do nothing like it."""


def assert_sane(row: Row) -> None:
    assert row.rounds, row.what
    figures = [row.ours, *row.rounds, *row.ceilings]
    assert all(math.isfinite(figure) for figure in figures), row.what
    if row.unit == "count":
        assert row.ours == 0, row.what
    elif row.unit not in ("%", "bytes") and ADDED not in row.what:
        assert all(figure > 0 for figure in figures), row.what
    assert (row.goal is None) == (row.reached is None), row.what
    if row.ceiling is not None:
        assert len(row.ceilings) == len(row.rounds) == TINY.rounds, row.what
        assert row.ratio == pytest.approx(row.ours / row.ceiling), row.what


@pytest.mark.parametrize("name", LINES)
async def test_a_line_yields_sane_figures_and_leaves_nothing_behind(
    name: str, tmp_path: Path
) -> None:
    report = await run([name], directory=tmp_path, sizes=TINY)
    assert {row.line for row in report.rows} == {name}
    for row in report.rows:
        assert_sane(row)
    assert any(row.ceilings for row in report.rows) or name in WITHOUT_CEILING
    assert not any(os.scandir(tmp_path))


async def test_a_name_that_is_no_line_is_refused_before_anything_starts(tmp_path: Path) -> None:
    begun: list[str] = []
    with pytest.raises(UnknownLine, match="replay-memory"):
        await run(["commands", "teleport"], directory=tmp_path, sizes=TINY, begun=begun.append)
    assert begun == []
