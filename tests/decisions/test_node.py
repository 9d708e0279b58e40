"""What can happen to a node."""

from __future__ import annotations

from math import inf, nan

import pytest
from msgspec.structs import replace

from engine.decisions.node import (
    DECIDER,
    DETAIL_CHARS_MAX,
    Command,
    Drain,
    InvalidNode,
    InvalidReport,
    Join,
    Leave,
    Lose,
    NodeNotJoined,
    ReportLoaded,
    ReportLoadFailed,
    ReportUnloaded,
    UnknownNode,
)
from events import Event
from events.catalogue.nodes import (
    NodeDraining,
    NodeJoined,
    NodeLeft,
    NodeLost,
    VersionLoaded,
    VersionLoadFailed,
    VersionRef,
    VersionUnloaded,
)
from switchback.testing import Given

V1 = VersionRef("acme", "fraud", "1.0.0")
V2 = VersionRef("acme", "fraud", "2.0.0")
JOIN = Join(memory_budget_bytes=1_000, runtimes=("echo",))
JOINED = NodeJoined(memory_budget_bytes=1_000, runtimes=("echo",))
LOAD = ReportLoaded(version=V1, memory_bytes=10, load_ms=1.5)
LOADED = VersionLoaded(version=V1, memory_bytes=10, load_ms=1.5)
FAIL = ReportLoadFailed(version=V1, reason="digest", detail="differs")
FAILED = VersionLoadFailed(version=V1, reason="digest", detail="differs")
UNLOAD = ReportUnloaded(version=V1, reason="evicted")
UNLOADED = VersionUnloaded(version=V1, reason="evicted")
DRAINING = NodeDraining(reason="upgrade")
LOST = NodeLost(reason="silent")
LEFT = NodeLeft()

REPORTS: list[Command] = [LOAD, FAIL, UNLOAD]


def test_a_node_joins_and_holds_nothing(given: Given) -> None:
    history = given(DECIDER).when(JOIN).then([JOINED])
    assert not history.state.resident
    history.when(JOIN).then([])


@pytest.mark.parametrize("before", [[LOADED], [DRAINING], [LOST], [LEFT], [LOADED, LOST]])
def test_a_node_that_joins_again_has_restarted_and_holds_nothing(
    given: Given, before: list[Event]
) -> None:
    state = given(DECIDER, [JOINED, *before]).when(JOIN).then([JOINED]).state
    assert state.serves
    assert not state.resident


def test_a_node_may_come_back_with_another_size(given: Given) -> None:
    bigger = replace(JOIN, memory_budget_bytes=2_000)
    state = (
        given(DECIDER, [JOINED])
        .when(bigger)
        .then([replace(JOINED, memory_budget_bytes=2_000)])
        .state
    )
    assert state.memory_budget_bytes == 2_000


@pytest.mark.parametrize("budget", [0, -1])
def test_a_node_without_memory_is_refused(given: Given, budget: int) -> None:
    given(DECIDER).when(replace(JOIN, memory_budget_bytes=budget)).refused(InvalidNode)


@pytest.mark.parametrize("command", [Drain(), Lose(), Leave(), *REPORTS])
def test_a_node_that_never_joined_is_unknown(given: Given, command: Command) -> None:
    given(DECIDER).when(command).refused(UnknownNode, code="not_found")


def test_a_loaded_version_is_resident_with_its_measured_size(given: Given) -> None:
    history = given(DECIDER, [JOINED]).when(LOAD).then([LOADED])
    assert dict(history.state.resident) == {V1: 10}
    history.when(LOAD).then([])


def test_a_new_measurement_replaces_the_old(given: Given) -> None:
    again = replace(LOAD, memory_bytes=20)
    history = given(DECIDER, [JOINED, LOADED]).when(again).then([replace(LOADED, memory_bytes=20)])
    assert dict(history.state.resident) == {V1: 20}


@pytest.mark.parametrize(
    ("report", "path"),
    [
        (replace(LOAD, memory_bytes=-1), "memory_bytes"),
        (replace(LOAD, load_ms=-0.1), "load_ms"),
        (replace(LOAD, load_ms=inf), "load_ms"),
        (replace(LOAD, load_ms=nan), "load_ms"),
    ],
)
def test_an_impossible_measurement_is_refused(
    given: Given, report: ReportLoaded, path: str
) -> None:
    outcome = given(DECIDER, [JOINED]).when(report)
    outcome.refused(InvalidReport)
    assert list(outcome.fields) == [path]


def test_each_failed_attempt_is_told_because_each_swap_waits_for_its_own(given: Given) -> None:
    given(DECIDER, [JOINED]).when(FAIL).then([FAILED]).when(FAIL).then([FAILED])


def test_a_long_story_about_a_failure_is_cut(given: Given) -> None:
    report = replace(FAIL, detail="x" * (DETAIL_CHARS_MAX + 1))
    given(DECIDER, [JOINED]).when(report).then([replace(FAILED, detail="x" * DETAIL_CHARS_MAX)])


def test_a_failed_reload_leaves_what_is_resident(given: Given) -> None:
    history = given(DECIDER, [JOINED, LOADED]).when(FAIL).then([FAILED])
    assert V1 in history.state.resident


def test_an_unloaded_version_is_gone(given: Given) -> None:
    history = given(DECIDER, [JOINED, LOADED]).when(UNLOAD).then([UNLOADED])
    assert V1 not in history.state.resident
    history.when(UNLOAD).then([])


def test_a_draining_node_keeps_what_it_has_and_takes_nothing_new(given: Given) -> None:
    drain = Drain(reason="upgrade")
    history = given(DECIDER, [JOINED, LOADED]).when(drain).then([DRAINING])
    assert V1 in history.state.resident
    assert history.state.alive
    assert not history.state.serves
    history.when(drain).then([])


def test_a_load_that_ends_while_draining_still_counts(given: Given) -> None:
    history = given(DECIDER, [JOINED, DRAINING]).when(LOAD).then([LOADED])
    assert history.state.status == "draining"


@pytest.mark.parametrize("before", [[], [DRAINING]])
def test_a_lost_node_holds_nothing(given: Given, before: list[Event]) -> None:
    lose = Lose(reason="silent")
    history = given(DECIDER, [JOINED, LOADED, *before]).when(lose).then([LOST])
    assert not history.state.resident
    assert not history.state.alive
    history.when(lose).then([])


@pytest.mark.parametrize("before", [[], [DRAINING], [LOST]])
def test_a_node_leaves_even_if_it_was_given_up_for_lost(given: Given, before: list[Event]) -> None:
    history = given(DECIDER, [JOINED, LOADED, *before]).when(Leave()).then([LEFT])
    assert not history.state.resident
    history.when(Leave()).then([])


def test_a_node_that_left_cannot_be_lost(given: Given) -> None:
    given(DECIDER, [JOINED, LEFT]).when(Lose()).then([])


@pytest.mark.parametrize("end", [LOST, LEFT])
@pytest.mark.parametrize("command", [*REPORTS, Drain()])
def test_late_reports_of_a_node_that_is_out_are_refused(
    given: Given, end: NodeLost | NodeLeft, command: Command
) -> None:
    status = "lost" if end is LOST else "left"
    given(DECIDER, [JOINED, LOADED, end]).when(command).refused(
        NodeNotJoined, status=status, code="conflict"
    )
