"""The golden logs and what they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from events import Recorded
from switchback.replaying import Tables, read_log
from tests.logs.record import DIRECTORY, cache_file, rows_file

LOGS = sorted(DIRECTORY.glob("*.jsonl"))


@pytest.fixture(params=LOGS, ids=[path.stem for path in LOGS])
def golden(request: pytest.FixtureRequest) -> Path:
    """Each golden log in turn."""
    path: Path = request.param
    return path


@pytest.fixture
def golden_events(golden: Path) -> list[Recorded]:
    return list(read_log(golden))


@pytest.fixture
def golden_tables(golden: Path) -> Tables:
    tables: Tables = msgspec.json.decode(rows_file(golden).read_bytes())
    return tables


@pytest.fixture
def golden_cache(golden: Path) -> dict[str, Any]:
    entries: dict[str, Any] = msgspec.json.decode(cache_file(golden).read_bytes())
    return entries
