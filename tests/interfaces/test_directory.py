"""What a process says of its routes and versions, by real decisions on a log in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from engine.decisions import model, node
from events import EntityId
from events.catalogue.endpoints import Policy, Rule, Shadow, When
from handlers import directory as module
from handlers.directory import Directory
from projections import StalePosition
from tests.handlers.world import FRAUD, World, node_entity, opened, ref

NINE_O_CLOCK = datetime(2026, 3, 2, 9, tzinfo=UTC).timestamp()


class Clock:
    def __init__(self) -> None:
        self.now = NINE_O_CLOCK

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture
async def world() -> Any:
    async with opened() as found:
        await found.register("1.0.0", "2.0.0", "3.0.0")
        yield found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(world: World, clock: Clock) -> Directory:
    return Directory(world.routing, clock=clock)


def reason(directory: Directory, key: str = "u", **attributes: str) -> Any:
    found = directory.evaluate("acme", endpoint="chat", key=key, attributes=attributes)
    assert found is not None
    return (found.version, found.reason, found.rule)


async def test_a_rule_of_the_clock_holds_to_the_minute(
    world: World, directory: Directory, clock: Clock
):
    await world.create("1.0.0")
    morning = When(from_="08:00", to="09:30", timezone="UTC")
    await world.set_policy(
        Policy(
            split={"1.0.0": 1},
            rules=(Rule(name="morning", when=morning, split={"2.0.0": 1, "3.0.0": 0}),),
        )
    )
    assert reason(directory) == ("2.0.0", "TARGETING_MATCH", "morning")
    clock.now = NINE_O_CLOCK + 30 * 60 - 1
    assert reason(directory) == ("2.0.0", "TARGETING_MATCH", "morning")
    clock.now = NINE_O_CLOCK + 30 * 60
    assert reason(directory) == ("1.0.0", "STATIC", None)


async def test_a_weight_of_zero_is_no_split(world: World, directory: Directory):
    await world.create("1.0.0")
    await world.set_policy(Policy(split={"1.0.0": 1, "2.0.0": 0}))
    assert reason(directory) == ("1.0.0", "STATIC", None)
    await world.set_policy(Policy(split={"1.0.0": 1, "2.0.0": 1}))
    assert {reason(directory, f"u{n}") for n in range(50)} == {
        ("1.0.0", "SPLIT", None),
        ("2.0.0", "SPLIT", None),
    }


async def test_endpoints_of_others_and_of_nobody_are_not_there(world: World, directory: Directory):
    await world.create("1.0.0")
    assert directory.evaluate("acme", endpoint="x", key="u", attributes={}) is None
    assert directory.evaluate("globex", endpoint="chat", key="u", attributes={}) is None
    assert directory.evaluate_all("globex", key="u", attributes={}) == []
    assert directory.endpoint("globex", "chat") is None
    assert directory.index("globex") == []


async def test_an_endpoint_holds_what_it_routes_to_and_the_ways_it_may_go(
    world: World, directory: Directory
):
    await world.join("n1", "1.0.0", "2.0.0")
    await world.create("1.0.0")
    await world.move("2.0.0", "s1")
    await world.swap("3.0.0", "s2")
    found = directory.endpoint("acme", "chat")
    assert found is not None
    assert dict(found.versions) == dict.fromkeys(("1.0.0", "2.0.0", "3.0.0"), "echo")
    assert (found.active, found.taking, found.model) == ("2.0.0", {"2.0.0"}, "fraud")
    assert found.resident == {"1.0.0", "2.0.0"}


async def test_versions_of_rules_take_traffic_and_shadows_do_not(
    world: World, directory: Directory
):
    await world.create("1.0.0")
    beta = When(attributes={"tier": "beta"})
    await world.set_policy(
        Policy(
            split={"1.0.0": 1},
            rules=(Rule(name="beta", when=beta, split={"2.0.0": 1}),),
            shadow=(Shadow(version="3.0.0", fraction=1.0),),
        )
    )
    found = directory.endpoint("acme", "chat")
    assert found is not None
    assert found.taking == {"1.0.0", "2.0.0"}
    assert set(found.versions) == {"1.0.0", "2.0.0", "3.0.0"}


def states(directory: Directory) -> dict[str, tuple[str, str]]:
    return {e.version: (e.state, e.reason) for e in directory.index("acme")}


async def test_the_index_says_where_each_version_stands(world: World, directory: Directory):
    await world.create("1.0.0")
    not_loaded = ("UNAVAILABLE", "not loaded")
    assert states(directory) == {
        "1.0.0": ("LOADING", ""),
        "2.0.0": not_loaded,
        "3.0.0": not_loaded,
    }
    await world.join("n1")
    await world.load_failed("n1", "1.0.0")
    assert states(directory)["1.0.0"] == ("UNAVAILABLE", "runtime: boom")
    await world.loaded("n1", "1.0.0")
    assert states(directory)["1.0.0"] == ("READY", "")
    await world.do(FRAUD, model.RetireVersion(version="3.0.0", routed_by=frozenset()))
    assert states(directory)["3.0.0"] == ("UNAVAILABLE", "retired")


async def test_the_last_failure_counts_and_a_lost_nodes_does_not(
    world: World, directory: Directory
):
    await world.join("n1")
    await world.join("n2")
    for node_id, detail in (("n1", "first"), ("n2", "second")):
        await world.do(
            node_entity(node_id),
            node.ReportLoadFailed(version=ref("2.0.0"), reason="memory", detail=detail),
        )
    assert states(directory)["2.0.0"] == ("UNAVAILABLE", "memory: second")
    await world.do(node_entity("n2"), node.Lose())
    assert states(directory)["2.0.0"] == ("UNAVAILABLE", "memory: first")
    await world.do(node_entity("n1"), node.Lose())
    assert states(directory)["2.0.0"] == ("UNAVAILABLE", "not loaded")


async def test_models_come_by_name_and_one_without_versions_has_no_entry(
    world: World, directory: Directory
):
    for name in ("zebra", "ant"):
        await world.do(EntityId("acme", "model", name), model.RegisterModel(name=name))
    await world.do(
        EntityId("acme", "model", "ant"),
        model.RegisterVersion(version="1.0.0", runtime="echo", runtimes=frozenset({"echo"})),
    )
    assert [entry.name for entry in directory.index("acme")] == ["ant", *["fraud"] * 3]


async def test_a_position_is_waited_for_but_not_for_ever(
    world: World, directory: Directory, monkeypatch: pytest.MonkeyPatch
):
    await directory.reach(world.routing.position)
    monkeypatch.setattr(module, "REACH_SECONDS", 0.01)
    with pytest.raises(StalePosition):
        await directory.reach(world.routing.position + 1)
