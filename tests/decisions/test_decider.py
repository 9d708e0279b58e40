"""What holds for every decider."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any, Final

import pytest

from engine.decisions import endpoint, model, node, tenant
from engine.decisions.decider import Decider, ForeignEvent, fold
from events import Event
from events.catalogue import AGGREGATES
from events.catalogue.endpoints import AlertCleared
from events.catalogue.models import ModelRegistered, VersionRegistered, VersionRetired
from events.catalogue.nodes import NodeJoined, VersionLoaded, VersionRef
from events.catalogue.tenants import KeyIssued, KeyRevoked, TenantCreated
from events.catalogue.traffic import WindowObserved
from tests.decisions.endpoints import DEADLINE, alarmed, created, rolled_back, swapped
from tests.decisions.rollouts import aborted, advanced, started

DECIDERS: Final[dict[str, Decider[Any, Any]]] = {
    "tenant": tenant.DECIDER,
    "model": model.DECIDER,
    "endpoint": endpoint.DECIDER,
    "node": node.DECIDER,
}
LONG: Final = 10_000
STATES_KEPT: Final = 2_000
STATE_BYTES_MAX: Final = 1_000
"""Of each further state, beside what it shares. Copied dicts of its entries would be 20,000."""


def long_history(aggregate: str, length: int) -> list[Event]:
    match aggregate:
        case "tenant":
            first: Event = TenantCreated(name="acme")
            pairs = (_key(i) for i in range(length // 2))
        case "model":
            first = ModelRegistered(name="fraud")
            pairs = (_version(i) for i in range(length // 2))
        case "node":
            first = NodeJoined(memory_budget_bytes=1, runtimes=("echo",))
            pairs = (_loads(i) for i in range(length // 2))
        case _:
            first = created("0.0.0")
            pairs = (_incident(i) for i in range(length // 9))
    return [first, *(event for pair in pairs for event in pair)]


def _key(i: int) -> tuple[Event, ...]:
    key = KeyIssued(key_id=f"k{i}", secret_sha256="5e" * 32, scopes=("read",))
    return key, KeyRevoked(key_id=f"k{i}")


def _version(i: int) -> tuple[Event, ...]:
    version = VersionRegistered(version=f"{i}.0.0", runtime="echo")
    return version, VersionRetired(version=f"{i}.0.0")


def _loads(i: int) -> tuple[Event, ...]:
    refs = (VersionRef("acme", "fraud", f"{i}.{minor}.0") for minor in (0, 1))
    return tuple(VersionLoaded(version=ref, memory_bytes=1, load_ms=1) for ref in refs)


def _incident(i: int) -> tuple[Event, ...]:
    new = f"{i + 1}.0.0"
    back = rolled_back("0.0.0", new, reason="errors")
    tried = (started("0.0.0", new, f"r{i}"), advanced(1, rollout_id=f"r{i}"))
    given_up = (aborted("failed", 1, rollout_id=f"r{i}"), back)
    moved = (*swapped("0.0.0", new), alarmed(new), back)
    return (*tried, *given_up, *moved, AlertCleared(alert_id="a1"))


@pytest.mark.parametrize("aggregate", DECIDERS)
def test_each_state_of_a_long_history_costs_only_what_changed(aggregate: str) -> None:
    decider = DECIDERS[aggregate]
    history = long_history(aggregate, STATES_KEPT)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        states = _states(decider, history)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(states) < STATE_BYTES_MAX


@pytest.mark.parametrize(
    ("aggregate", "kept"), [("tenant", "keys"), ("model", "versions"), ("node", "resident")]
)
def test_a_history_of_ten_thousand_events_folds(aggregate: str, kept: str) -> None:
    state = fold(DECIDERS[aggregate], long_history(aggregate, LONG))
    assert len(getattr(state, kept)) == (LONG if aggregate == "node" else LONG // 2)


def test_an_evolved_state_leaves_the_one_before_as_it_was() -> None:
    history = long_history("tenant", 10)
    before = fold(tenant.DECIDER, history[:-1])
    tenant.DECIDER.evolve(before, history[-1])
    assert before == fold(tenant.DECIDER, history[:-1])


@pytest.mark.parametrize("aggregate", DECIDERS)
def test_nothing_happens_to_an_entity_before_it_exists(aggregate: str) -> None:
    decider = DECIDERS[aggregate]
    for event in _others(aggregate):
        with pytest.raises(ForeignEvent):
            decider.evolve(decider.initial, event)


@pytest.mark.parametrize("aggregate", DECIDERS)
def test_an_event_of_another_aggregate_is_a_programming_error(aggregate: str) -> None:
    decider = DECIDERS[aggregate]
    state = decider.evolve(decider.initial, long_history(aggregate, 4)[0])
    window = WindowObserved(gateway="g1", start=DEADLINE, versions={})
    with pytest.raises(ForeignEvent, match=r"traffic\.window_observed"):
        decider.evolve(state, window)


def test_every_aggregate_that_takes_commands_has_a_decider() -> None:
    assert set(DECIDERS) == set(AGGREGATES) - {"traffic", "budget"}, "these are only reported"


def _states(decider: Decider[Any, Any], history: list[Event]) -> list[Any]:
    states = [decider.initial]
    for event in history:
        states.append(decider.evolve(states[-1], event))
    return states


def _others(aggregate: str) -> Iterable[Event]:
    return long_history(aggregate, 8)[1:]
