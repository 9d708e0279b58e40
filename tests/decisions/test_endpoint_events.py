"""Every event of an endpoint: written, read back, and folded to the same state."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec
import pytest

from engine.decisions.decider import ForeignEvent, fold
from engine.decisions.endpoint import DECIDER, Endpoint
from events import EntityId, Event, Metadata
from events.catalogue.endpoints import EVENTS, AlertCleared
from events.codec import decode, encode
from tests.decisions.endpoints import (
    V1,
    V2,
    V3,
    alarmed,
    canary,
    created,
    failed,
    policy_set,
    requested,
    rolled_back,
    split,
    swapped,
    warned,
)
from tests.decisions.rollouts import (
    FAIL,
    LAST,
    PASS,
    aborted,
    advanced,
    at,
    completed,
    held,
    paused,
    resumed,
    started,
    under_way,
)

CHAT: Final = EntityId("acme", "endpoint", "chat")
METADATA: Final = Metadata(
    command_id=UUID("00000000-0000-4000-8000-000000000001"),
    time=datetime(2029, 6, 1, tzinfo=UTC),
    actor="key:k1",
)
SHADOWED: Final = split(
    split={V1: 1},
    shadow=[{"version": V3, "compare": {"kind": "numeric", "tolerance": 0.001}}],
)
LIFE: Final[tuple[Event, ...]] = (
    created(V3),
    *swapped(V3, V2),
    rolled_back(V3, V2),
    requested(V3, V1, "s2"),
    failed(V3, V1, "timeout", swap_id="s2"),
    *swapped(V3, V1, "s3"),
    policy_set(canary(V1, V3)),
    policy_set(SHADOWED),
    started(),
    paused(0, left_s=20.5),
    resumed(0, at(100.25)),
    held(0, PASS),
    advanced(1, "inconclusive", verdicts=(PASS,)),
    warned(V2),
    AlertCleared(alert_id="a1"),
    alarmed(V2),
    aborted("failed", 1, verdicts=(FAIL,)),
    rolled_back(V1, V2),
    *(msgspec.structs.replace(event, rollout_id="r2") for event in under_way(LAST)),
    msgspec.structs.replace(completed("promoted"), rollout_id="r2"),
    started(V2, V1, "r3"),
    msgspec.structs.replace(paused(0), rollout_id="r3"),
)


def states(events: tuple[Event, ...]) -> Iterator[Endpoint]:
    for count in range(1, len(events) + 1):
        state = fold(DECIDER, events[:count])
        assert state is not None
        yield state


def test_the_life_of_these_tests_holds_every_event_there_is() -> None:
    assert {type(event) for event in LIFE} == set(EVENTS)


def test_what_is_read_back_folds_to_the_state_of_what_was_written() -> None:
    written = [encode(CHAT, event, METADATA, index) for index, event in enumerate(LIFE)]
    read = [decode(body, position=1, subject=CHAT.subject).event for body in written]
    assert read == list(LIFE)
    assert fold(DECIDER, read) == fold(DECIDER, LIFE)


@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack], ids=["json", "msgpack"])
def test_every_state_survives_being_kept(codec: object) -> None:
    for state in states(LIFE):
        assert codec.decode(codec.encode(state), type=Endpoint) == state  # type: ignore[attr-defined]


def test_the_life_ends_in_the_rollout_that_is_paused() -> None:
    state = fold(DECIDER, LIFE)
    assert state is not None
    assert state.rollout is not None
    assert (state.rollout.rollout_id, state.rollout.held) == ("r3", "paused")
    assert [(each.rollout_id, each.outcome) for each in state.ended_rollouts] == [
        ("r1", "aborted"),
        ("r2", "completed"),
    ]
    assert (state.active, state.previous) == (V2, V1)


@pytest.mark.parametrize(
    "event",
    [advanced(1), held(0), paused(0), resumed(0), completed(), aborted("failed")],
    ids=lambda event: event.type,
)
def test_nothing_happens_to_a_rollout_that_is_not_live(event: Event) -> None:
    for before in ([created()], [created(), started(), completed()]):
        with pytest.raises(ForeignEvent):
            fold(DECIDER, [*before, event])
