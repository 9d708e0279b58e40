"""What the tour says of a canary follows from its events and from what clients saw."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from events.catalogue.endpoints import (
    RolledBack,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutStarted,
)
from switchback.demo.canary import Canary
from switchback.demo.traffic import Request
from switchback.demo.watch import Watch

BY_ITSELF = "reaction:rollouts"
SOMEBODY = "key:k1"
STEPS = [{"weight": 10}, {"weight": 100}]


def event(position: int, type_: str, *, actor: str = BY_ITSELF, **data: Any) -> dict[str, Any]:
    """An event at second `position`."""
    time = datetime.fromtimestamp(position, UTC).isoformat()
    return {"position": position, "type": type_, "time": time, "actor": actor, "data": data}


STARTED = event(10, RolloutStarted.type, actor=SOMEBODY, candidate="2.0.0", steps=STEPS)
VERDICT = {"metric": "error_rate", "outcome": "pass"}
HELD = event(15, RolloutHeld.type, step=0)
ADVANCED = event(20, RolloutAdvanced.type, step=1, reason="passed", verdicts=[VERDICT])
COMPLETED = event(30, RolloutCompleted.type, reason="passed")
ABORTED = event(20, RolloutAborted.type, step=0, reason="failed")
ROLLED_BACK = event(21, RolledBack.type)


def request(
    sent: float, version: str = "1.0.0", *, position: int = 0, failure: str = ""
) -> Request:
    return Request(
        sent=sent, answered=sent + 0.5, version=version, position=position, failure=failure
    )


def canary(*events: dict[str, Any], requests: tuple[Request, ...] = ()) -> Canary:
    watch = Watch()
    watch.requests = list(requests)
    return Canary(baseline="1.0.0", candidate="2.0.0", events=(STARTED, *events), watch=watch)


def test_each_step_ends_with_the_verdict_of_the_event_that_ended_it() -> None:
    first, second = canary(HELD, ADVANCED, COMPLETED).steps
    assert (first.number, first.weight, first.began, first.ended) == (1, 10, 10.0, 20.0)
    assert (first.outcome, first.verdicts) == ("passed", (VERDICT,))
    assert (second.number, second.weight, second.began, second.ended) == (2, 100, 20.0, 30.0)


def test_a_step_that_is_in_force_has_neither_end_nor_outcome() -> None:
    first, second = canary(ADVANCED).steps
    assert (first.outcome, second.outcome, second.ended) == ("passed", "", None)


def test_a_step_begins_when_clients_are_routed_by_it_not_when_it_was_asked_for() -> None:
    routed = (request(9.0, position=8), request(12.0, position=10), request(13.0, position=10))
    [step] = canary(requests=routed).steps
    assert step.began == 12.0


def test_a_canary_has_completed_when_every_step_passed_and_nobody_helped() -> None:
    assert canary(HELD, ADVANCED, COMPLETED).completed


@pytest.mark.parametrize(
    "moves",
    [
        (ADVANCED | {"data": {"reason": "promoted"}}, COMPLETED),
        (ADVANCED | {"actor": SOMEBODY}, COMPLETED),
        (ADVANCED, COMPLETED | {"data": {"reason": "promoted"}}),
        (COMPLETED,),
        (ABORTED, ROLLED_BACK),
    ],
    ids=["promoted", "by somebody", "promoted to the end", "steps left out", "aborted"],
)
def test_a_canary_that_was_helped_or_ended_early_has_not_completed(
    moves: tuple[dict[str, Any], ...],
) -> None:
    assert not canary(*moves).completed


def test_only_a_reaction_rolls_back_with_nobody_there() -> None:
    assert canary(ABORTED, ROLLED_BACK).rolled_back_by_itself
    assert not canary(ABORTED, ROLLED_BACK | {"actor": SOMEBODY}).rolled_back_by_itself
    assert not canary(ADVANCED, COMPLETED).rolled_back_by_itself


def test_a_failure_that_no_version_is_known_of_is_not_the_canarys() -> None:
    before = request(9.0, failure="away")
    of_the_canary = request(11.0, "2.0.0", failure="bad")
    unknown = request(12.0, "", failure="cut off")
    found = canary(ABORTED, ROLLED_BACK, requests=(before, of_the_canary, unknown))
    assert found.failed == [of_the_canary, unknown]
    assert found.failed_elsewhere == [unknown]


def test_what_was_sent_before_the_rollback_was_seen_may_still_be_the_canarys() -> None:
    seen = request(21.1, position=21)
    under_way, too_late = request(21.5, "2.0.0"), request(21.7, "2.0.0", failure="bad")
    found = canary(ABORTED, ROLLED_BACK, requests=(under_way, too_late, seen))
    assert found.taken_after_the_end == [too_late]
    assert canary(ADVANCED, COMPLETED, requests=(too_late,)).taken_after_the_end == []


async def test_what_the_client_tells_is_counted_by_what_became_of_it() -> None:
    told = [request(1.0), request(2.0, failure="bad"), request(3.0, position=7)]
    lines = asyncio.StreamReader()
    lines.feed_data(b"".join(msgspec.json.encode(one) + b"\n" for one in told))
    lines.feed_eof()
    watch = Watch()
    enough = asyncio.create_task(watch.more(3))
    await asyncio.sleep(0)
    await watch.read(lines)
    await enough
    assert (watch.requests, watch.failed) == (told, [told[1]])
    assert watch.of("1.0.0") == [told[0], told[2]]
    assert watch.between(2.0, 3.0) == [told[1]]
    assert (watch.routed_since(7), watch.routed_since(8)) == (3.0, None)
