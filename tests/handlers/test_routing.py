"""What a fold answers, and whom it wakes."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from engine.decisions import endpoint, model, node
from events.catalogue.endpoints import Policy, Shadow
from events.catalogue.nodes import VersionRef
from handlers import routes
from handlers.routing import Routing
from tests.handlers.world import CHAT, FRAUD, World, node_entity, opened, ref, turns


@pytest_asyncio.fixture
async def world():
    async with opened() as found:
        await found.register("1.0.0", "2.0.0", "3.0.0")
        await found.join("n1", "1.0.0")
        await found.create("1.0.0")
        yield found


async def test_what_is_routed_to_is_pinned_and_nothing_else(world: World):
    assert set(world.routing.pinned) == world.routing.routed() == {ref("1.0.0")}


async def test_a_swap_pins_its_target_before_it_takes_traffic_and_the_old_one_after(world: World):
    await world.swap("2.0.0", "s1")
    assert set(world.routing.pinned) == {ref("1.0.0"), ref("2.0.0")}
    assert world.routing.routed() == {ref("1.0.0")}
    done = endpoint.CompleteSwap(swap_id="s1", resident=frozenset({"2.0.0"}))
    await world.do(CHAT, done)
    assert set(world.routing.pinned) == {ref("1.0.0"), ref("2.0.0")}
    assert world.routing.routed() == {ref("2.0.0")}


async def test_a_swap_that_fails_unpins_its_target(world: World):
    await world.swap("2.0.0", "s1")
    await world.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="timeout"))
    assert set(world.routing.pinned) == {ref("1.0.0")}
    assert world.routing.swapping() == []


async def test_a_version_stays_pinned_while_another_endpoint_needs_it(world: World):
    other = type(CHAT)("acme", "endpoint", "search")
    everything = frozenset({"1.0.0"})
    await world.do(
        other,
        endpoint.CreateEndpoint(
            model="fraud", version="1.0.0", registered=everything, resident=everything
        ),
    )
    await world.move("2.0.0", "s1")
    await world.move("3.0.0", "s2")
    assert set(world.routing.pinned) == {ref("1.0.0"), ref("2.0.0"), ref("3.0.0")}
    assert world.routing.routed_by(ref("1.0.0")) == {"search"}
    assert world.routing.routed_by(ref("2.0.0")) == {"chat"}


async def test_shadows_take_copies_so_they_count_as_routed(world: World):
    await world.set_policy(Policy(split={"1.0.0": 1.0}, shadow=(Shadow(version="3.0.0"),)))
    assert world.routing.routed() == {ref("1.0.0"), ref("3.0.0")}
    assert set(world.routing.pinned) == {ref("1.0.0"), ref("3.0.0")}


async def test_fallbacks_stand_by_so_they_are_held_resident_and_cannot_be_retired(world: World):
    await world.set_policy(Policy(split={"1.0.0": 1.0}, fallback=("3.0.0", "1.0.0")))
    assert world.routing.routed() == {ref("1.0.0"), ref("3.0.0")}
    assert set(world.routing.pinned) == {ref("1.0.0"), ref("3.0.0")}
    routed_by = world.routing.routed_by(ref("3.0.0"))
    assert routed_by == {"chat"}
    with pytest.raises(model.VersionRouted):
        await world.do(FRAUD, model.RetireVersion(version="3.0.0", routed_by=routed_by))
    await world.set_policy(Policy(split={"1.0.0": 1.0}))
    assert set(world.routing.pinned) == {ref("1.0.0")}


async def test_a_rollbacks_target_is_routed_by_its_endpoint(world: World):
    await world.move("2.0.0", "s1")
    assert world.routing.routed_by(ref("1.0.0")) == {"chat"}
    await world.do(CHAT, endpoint.RollBack())
    assert world.routing.routed_by(ref("2.0.0")) == frozenset()


async def test_the_versions_of_another_tenant_are_others(world: World):
    theirs = VersionRef(tenant="globex", model="fraud", version="1.0.0")
    assert world.routing.routed_by(theirs) == frozenset()
    assert world.routing.asked_at(theirs) == 0
    assert world.routing.resident("globex", "fraud") == frozenset()


async def test_resident_is_what_any_node_that_is_there_holds(world: World):
    await world.join("n2", "2.0.0")
    assert world.routing.resident("acme", "fraud") == {"1.0.0", "2.0.0"}
    assert world.routing.resident("acme", "other") == frozenset()
    await world.do(node_entity("n2"), node.Drain())
    assert world.routing.resident("acme", "fraud") == {"1.0.0", "2.0.0"}
    assert [id_ for id_, _ in world.routing.serving_nodes()] == ["n1"]
    await world.do(node_entity("n2"), node.Lose())
    assert world.routing.resident("acme", "fraud") == {"1.0.0"}


async def test_a_node_that_joins_again_holds_nothing(world: World):
    await world.join("n1")
    assert world.routing.resident("acme", "fraud") == frozenset()


async def test_asked_at_is_where_the_pending_swap_stands_whatever_else_happens(world: World):
    position = await world.swap("2.0.0", "s1")
    await world.do(CHAT, endpoint.RaiseAlert(alert_id="a", kind="slow", severity="warning"))
    assert world.routing.asked_at(ref("2.0.0")) == position
    assert world.routing.asked_at(ref("1.0.0")) == 0
    await world.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="timeout"))
    assert world.routing.asked_at(ref("2.0.0")) == 0
    again = await world.swap("2.0.0", "s2")
    assert world.routing.asked_at(ref("2.0.0")) == again > position


async def test_a_failed_load_is_known_by_node_and_version_and_the_last_one_counts(world: World):
    await world.load_failed("n1", "2.0.0")
    last = await world.load_failed("n1", "2.0.0")
    assert list(world.routing.failures) == [("n1", ref("2.0.0"))]
    assert world.routing.failures["n1", ref("2.0.0")].position == last


async def test_retired_is_what_the_model_says(world: World):
    assert not world.routing.is_retired(ref("3.0.0"))
    await world.do(FRAUD, model.RetireVersion(version="3.0.0", routed_by=frozenset()))
    assert world.routing.is_retired(ref("3.0.0"))
    assert not world.routing.is_retired(VersionRef(tenant="acme", model="none", version="3.0.0"))


async def test_a_table_is_compiled_once_for_each_policy(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    compiled: list[int] = []

    def counted(policy, *, salt, position, compile_policy=routes.compile_policy):
        compiled.append(position)
        return compile_policy(policy, salt=salt, position=position)

    monkeypatch.setattr(routes, "compile_policy", counted)
    table = world.routing.routes["acme", "chat"].table
    await world.swap("2.0.0", "s1")
    await world.do(CHAT, endpoint.RaiseAlert(alert_id="a", kind="slow", severity="warning"))
    await world.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="timeout"))
    assert compiled == []
    assert world.routing.routes["acme", "chat"].table is table
    position = await world.set_policy(Policy(split={"1.0.0": 1.0, "2.0.0": 1.0}))
    assert compiled == [position]
    assert world.routing.routes["acme", "chat"].table.position == position


async def test_the_table_stands_where_the_event_that_set_the_policy_stands(world: World):
    moved = await world.move("2.0.0", "s1")
    assert world.routing.routes["acme", "chat"].table.position == moved
    rolled_back = await world.do(CHAT, endpoint.RollBack())
    assert world.routing.routes["acme", "chat"].table.position == rolled_back


async def test_whoever_waits_is_woken_in_order_of_position_and_then_of_asking():
    routing = Routing()
    woken: list[str] = []

    async def wait(name: str, position: int) -> None:
        await routing.reach(position)
        woken.append(name)

    asked = (("third", 5), ("first", 2), ("second", 3), ("fourth", 5))
    tasks = [asyncio.create_task(wait(name, position)) for name, position in asked]
    await turns()
    routing.skip_to(1)
    await turns()
    assert woken == []
    routing.skip_to(3)
    await turns()
    assert woken == ["first", "second"]
    routing.skip_to(5)
    await asyncio.gather(*tasks)
    assert woken == ["first", "second", "third", "fourth"]


async def test_a_position_that_is_folded_already_is_not_waited_for():
    routing = Routing()
    routing.skip_to(4)
    async with asyncio.timeout(0):
        await routing.reach(4)


async def test_who_no_longer_waits_is_forgotten_and_the_others_are_not():
    routing = Routing()
    tasks = [asyncio.create_task(routing.reach(position)) for position in (9, 2, 7, 2, 5)]
    await turns()
    for gone in (0, 1, 2):
        tasks[gone].cancel()
    await asyncio.wait(tasks[:3])
    assert len(routing._waiting) == 2
    routing.skip_to(2)
    await tasks[3]
    assert not tasks[4].done()
    routing.skip_to(5)
    await tasks[4]
    assert routing._waiting == []


async def test_one_who_leaves_as_it_is_woken_takes_nobody_with_it():
    routing = Routing()
    leaving, staying = (asyncio.create_task(routing.reach(1)) for _ in range(2))
    await turns()
    routing.skip_to(1)
    leaving.cancel()
    await asyncio.wait([leaving, staying])
    assert staying.exception() is None


async def test_a_fold_never_goes_back():
    routing = Routing()
    routing.skip_to(7)
    routing.skip_to(3)
    assert routing.position == 7
