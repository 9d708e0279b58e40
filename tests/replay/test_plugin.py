"""The pytest plugin, as people use it who write replay tests of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.decisions import tenant
from events import EntityId, EventLog
from events.catalogue.tenants import TenantCreated
from switchback.replaying import EventRefused, read_log
from switchback.replaying.whatif import PolicyRefused
from switchback.testing import Replay
from tests.logs.record import DIRECTORY

DOCUMENT = Path(__file__).parents[2] / "docs" / "replay-tests.md"


@pytest.mark.slow
def test_the_documents_example_passes_as_it_stands(tmp_path: Path) -> None:
    _, _, rest = DOCUMENT.read_text().partition("```python\n")
    example, _, _ = rest.partition("```")
    (tmp_path / "test_incident.py").write_text(example)
    recorded = DIRECTORY / "rollback-during-a-swap.jsonl"
    (tmp_path / "incident.jsonl").write_bytes(recorded.read_bytes())
    options = ["-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "--strict-markers", "-q"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout


async def test_event_log_is_a_fresh_log(event_log: EventLog) -> None:
    assert await event_log.position() == 0
    entity = EntityId("acme", "tenant", "acme")
    assert await event_log.append(entity, [TenantCreated(name="acme")], expected=0) == 1


@pytest.mark.event_log("../logs/alias-moves.jsonl")
async def test_event_log_begins_with_the_events_of_a_file(event_log: EventLog) -> None:
    file = DIRECTORY / "alias-moves.jsonl"
    before = file.read_bytes()
    recorded = list(read_log(file))
    assert await event_log.position() == len(recorded)
    entity = EntityId("acme", "model", "fraud")
    found = [event async for event in event_log.read(entity)]
    assert found == [event for event in recorded if event.entity == entity]
    entity = EntityId("other", "tenant", "other")
    await event_log.append(entity, [TenantCreated(name="other")], expected=0)
    assert file.read_bytes() == before


def test_replay_takes_a_path_relative_to_the_test(replay: Replay) -> None:
    replayed = replay("../logs/alias-moves.jsonl")
    assert replayed.routing.models["acme", "fraud"].aliases["production"] == "1.1.0"
    given = replay(read_log(DIRECTORY / "alias-moves.jsonl"))
    assert replayed.tables == given.tables


def test_replay_refuses_an_event_that_cannot_follow(replay: Replay) -> None:
    events = list(read_log(DIRECTORY / "alias-moves.jsonl"))
    without_the_model = [event for event in events if event.position != 3]
    with pytest.raises(EventRefused) as refused:
        replay(without_the_model)
    assert refused.value.position == 4


def test_given_is_among_the_plugins_fixtures(given) -> None:
    given(tenant.DECIDER).when(tenant.CreateTenant(name="acme")).then([TenantCreated(name="acme")])


def test_replay_reads_a_log_with_traffic_and_asks_what_if(replay: Replay) -> None:
    log = "../logs/judged-patiently.jsonl"
    assert replay(log).routing.routes["acme", "score"].state.active == "1.0.0"
    (report,) = replay.what_if(log, {"analysis": {"alpha": 0.2}})
    assert (report.recorded.state, report.what_if.state) == ("aborted", "aborted")
    assert report.detection_difference_s is not None
    assert report.detection_difference_s < 0
    with pytest.raises(PolicyRefused) as refused:
        replay.what_if(log, {"steps": [{"weight": 0, "hold_s": 1}]})
    assert refused.value.fields == {"steps[0].weight": "must be more than 0: it is the last"}


@pytest.mark.event_log("../logs/judged-held.jsonl")
async def test_event_log_takes_the_events_of_a_log_with_traffic(event_log: EventLog) -> None:
    recorded = list(read_log(DIRECTORY / "judged-held.jsonl"))
    assert await event_log.position() == len(recorded)
