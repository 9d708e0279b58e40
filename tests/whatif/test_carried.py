"""A log with its traffic, carried into an installation and out of it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import cli, done
from tests.logs.record import DIRECTORY

pytestmark = pytest.mark.slow

RECORDED = DIRECTORY / "judged-rolled-back.jsonl"


def test_a_recording_imported_and_exported_is_the_same_file(tmp_path: Path) -> None:
    here = ("--data-dir", tmp_path / "data")
    again, events = tmp_path / "again.jsonl", tmp_path / "events.jsonl"
    lines = RECORDED.read_bytes().splitlines(keepends=True)
    windows = sum(b'"subject":"traffic/' in line for line in lines)
    imported = done("events", "import", RECORDED, "--json", *here).json
    assert (imported["events"], imported["windows"]) == (len(lines) - windows, windows)
    exported = done("events", "export", again, "--traffic", *here)
    assert f"exported {len(lines) - windows} events and {windows} traffic windows" in exported.out
    assert again.read_bytes() == RECORDED.read_bytes()
    plain = done("events", "export", events, "--json", *here).json
    assert (plain["events"], plain["windows"]) == (len(lines) - windows, 0)
    assert events.read_bytes() == b"".join(line for line in lines if b'"traffic/' not in line)
    refused = cli("events", "import", RECORDED, *here)
    assert refused.code == 1
