"""A fold that begins at a snapshot is the fold of the whole log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.routing import decide_route
from events import EntityId, LogUnavailable, MalformedEvent, Position, Recorded
from events.catalogue.nodes import VersionRef
from events.log import ALL_EVENTS
from events.memory import MemoryLog
from handlers import following
from handlers.following import Follower, decode_snapshot, encode_snapshot
from handlers.routing import Routing
from projections.snapshots import Snapshots
from tests.handlers.histories import TENANTS, VERSIONS, histories
from tests.handlers.world import SOON_SECONDS, World, eventually, running

KEYS = [f"user-{n}" for n in range(20)]


def folded(history: Sequence[Recorded], onto: Routing | None = None) -> Routing:
    routing = onto or Routing()
    for recorded in history:
        routing.apply(recorded)
    return routing


def known(routing: Routing) -> dict[str, Any]:
    """Everything a fold can be asked."""
    refs = [VersionRef(t, "fraud", v) for t in TENANTS for v in VERSIONS]
    return {
        "position": routing.position,
        "last_event": routing.last_event,
        "routes": {
            key: (route.entity, route.state, route.swap_position, route.table.position)
            for key, route in routing.routes.items()
        },
        "decisions": {
            key: [decide_route(route.table, user, 0, {}) for user in KEYS]
            for key, route in routing.routes.items()
        },
        "models": {
            key: (dict(m.versions.items()), dict(m.aliases.items()), dict(m.retired.items()))
            for key, m in routing.models.items()
        },
        "nodes": {
            id_: (state.status, state.memory_budget_bytes, dict(state.resident.items()))
            for id_, state in routing.nodes.items()
        },
        "failures": routing.failures,
        "tenants": {
            name: (dict(state.keys.items()), state.quota)
            for name, state in routing.keyring.tenants.items()
        },
        "holders": routing.keyring._holders,
        "pinned": set(routing.pinned),
        "routed": routing.routed(),
        "swapping": [route.entity for route in routing.swapping()],
        "asked_at": {ref: routing.asked_at(ref) for ref in refs},
        "routed_by": {ref: routing.routed_by(ref) for ref in refs},
        "resident": {(t, "fraud"): routing.resident(t, "fraud") for t in TENANTS},
        "serving": {id_ for id_, _ in routing.serving_nodes()},
        "retired": {ref: routing.is_retired(ref) for ref in refs},
    }


def without_empty_holders(found: dict[str, Any]) -> dict[str, Any]:
    """A digest nobody holds any more says nothing."""
    return found | {"holders": {d: h for d, h in found["holders"].items() if h}}


@given(history=histories(), data=st.data())
def test_a_fold_restored_from_a_snapshot_equals_the_fold_of_the_whole_log(history, data):
    cut = data.draw(st.integers(0, len(history)))
    snapshot = encode_snapshot(folded(history[:cut]).snapshot())
    restored = Routing()
    restored.restore(decode_snapshot(snapshot))
    assert without_empty_holders(known(folded(history[cut:], restored))) == without_empty_holders(
        known(folded(history))
    )


@given(history=histories())
def test_a_snapshot_of_a_restored_fold_says_the_same(history):
    snapshot = decode_snapshot(encode_snapshot(folded(history).snapshot()))
    restored = Routing()
    restored.restore(snapshot)
    again = decode_snapshot(encode_snapshot(restored.snapshot()))
    assert msgspec.json.decode(msgspec.json.encode(sorted_(again))) == msgspec.json.decode(
        msgspec.json.encode(sorted_(snapshot))
    )


def sorted_(snapshot: Any) -> Any:
    """Without the order of maps, which nothing depends on."""
    nodes = [
        msgspec.structs.replace(each, resident=sorted(each.resident)) for each in snapshot.nodes
    ]
    return msgspec.structs.replace(snapshot, nodes=nodes)


@given(history=histories())
def test_everything_pinned_is_what_some_endpoint_may_route_to(history):
    routing = folded(history)
    assert set(routing.pinned) == {
        VersionRef(tenant, route.state.model, version)
        for (tenant, _), route in routing.routes.items()
        for version in route.state.pinned_versions
    }


def test_a_fold_that_has_begun_cannot_be_restored():
    routing = Routing()
    routing.skip_to(1)
    with pytest.raises(AssertionError, match="begun"):
        routing.restore(Routing().snapshot())


class Kept:
    """A place for snapshots, as Redis is one."""

    def __init__(self, position: Position = 0, state: bytes = b"") -> None:
        self.found = (position, state) if position else None
        self.saved: list[Position] = []

    async def load(self) -> tuple[Position, bytes] | None:
        return self.found

    async def save(self, position: Position, state: bytes) -> None:
        self.found = (position, state)
        self.saved.append(position)


class Watched(MemoryLog):
    """Tells where subscriptions began, and breaks as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[Position] = []
        self.failing: list[Exception] = []
        """Raised by the next subscriptions, after what comes before the position they name."""

    async def subscribe_batches(
        self, pattern: str = ALL_EVENTS, *, after: Position = 0, batch_max: int = 500
    ):
        self.begun.append(after)
        error = self.failing.pop(0) if self.failing else None
        last = error.position - 1 if isinstance(error, MalformedEvent) else None
        if error is not None and last is None:
            raise error
        async for batch in super().subscribe_batches(pattern, after=after, batch_max=batch_max):
            wanted = [each for each in batch if last is None or each.position <= last]
            if wanted:
                yield wanted
            if error is not None and (not wanted or wanted[-1].position == last):
                raise error


async def some_log(log: MemoryLog | None = None) -> World:
    world = World()
    if log is not None:
        world.log = log
        world.commands = type(world.commands)(log)
    async with running(Follower(world.routing, world.log).run()):
        await world.register("1.0.0", "2.0.0")
        await world.join("n1", "1.0.0")
        await world.create("1.0.0")
        await world.load_failed("n1", "2.0.0")
    if isinstance(log, Watched):
        log.begun.clear()
    return world


async def caught_up(log: MemoryLog, snapshots: Any = None) -> tuple[Routing, Follower]:
    """A new fold at the head of the log."""
    routing = Routing()
    follower = Follower(routing, log, snapshots=snapshots)
    async with running(follower.run()), asyncio.timeout(SOON_SECONDS):
        await routing.reach(await log.position())
    return routing, follower


async def test_a_restart_begins_at_the_snapshot():
    log = Watched()
    world = await some_log(log)
    at = world.routing.position
    kept = Kept(at, encode_snapshot(world.routing.snapshot()))
    routing = Routing()
    async with running(Follower(routing, log, snapshots=kept).run()):
        await eventually(lambda: at in log.begun)
    assert 0 not in log.begun
    assert without_empty_holders(known(routing)) == without_empty_holders(known(world.routing))


async def test_a_restart_at_the_head_follows_though_nothing_happens():
    world = await some_log()
    kept = Kept(world.routing.position, encode_snapshot(world.routing.snapshot()))
    routing = Routing()
    follower = Follower(routing, world.log, snapshots=kept)
    async with running(follower.run()):
        await eventually(lambda: follower.following)
        assert routing.position == world.routing.position


async def test_a_snapshot_of_another_log_is_not_used():
    ours, theirs = await some_log(), await some_log()
    kept = Kept(theirs.routing.position, encode_snapshot(theirs.routing.snapshot()))
    routing, _ = await caught_up(ours.log, kept)
    assert known(routing) == known(ours.routing)
    assert routing.last_event != theirs.routing.last_event


async def test_a_snapshot_of_a_longer_log_is_not_used():
    longer = await some_log()
    await longer.commands.log.append(
        EntityId("acme", "endpoint", "chat"),
        (await longer.events())[:1],
        expected=(await last_of_chat(longer)),
    )
    routing = folded([r async for batch in upto_head(longer.log) for r in batch])
    kept = Kept(routing.position, encode_snapshot(routing.snapshot()))
    shorter = await some_log()
    found, _ = await caught_up(shorter.log, kept)
    assert found.position == shorter.routing.position < routing.position


async def last_of_chat(world: World) -> Position:
    return [r async for r in world.log.read(EntityId("acme", "endpoint", "chat"))][-1].position


async def upto_head(log: MemoryLog):
    head = await log.position()
    async for batch in log.subscribe_batches():
        yield batch
        if batch[-1].position >= head:
            return


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: b"",
        lambda state: state[:-1],
        lambda state: state.replace(b"acme", b"ac.e"),
        lambda state: state.replace(b"echo", b"ec\xff\xfe"),
        lambda state: state.replace(b"policy", b"polic\xff"),
        lambda state: b"\xa5hello",
        lambda state: state.replace(b"\xa8failures", b"\xa8failunes"),
    ],
    ids=["empty", "cut", "identifier", "text", "name", "shape", "older format"],
)
async def test_a_snapshot_that_cannot_be_read_is_not_used(spoil):
    world = await some_log()
    state = encode_snapshot(world.routing.snapshot())
    spoilt = spoil(state)
    assert spoilt != state
    routing, follower = await caught_up(world.log, Kept(world.routing.position, spoilt))
    assert known(routing) == known(world.routing)
    assert follower.passed_over == 0


async def test_a_snapshot_with_a_policy_that_means_nothing_here_is_not_used():
    world = await some_log()
    saved = world.routing.snapshot()
    [route] = saved.routes
    meaningless = msgspec.structs.replace(route.state.policy, split={"1.0.0": -1.0})
    state = msgspec.structs.replace(route.state, policy=meaningless)
    routes = [route, msgspec.structs.replace(route, state=state)]
    kept = Kept(saved.position, encode_snapshot(msgspec.structs.replace(saved, routes=routes)))
    routing, _ = await caught_up(world.log, kept)
    assert known(routing) == known(world.routing)


async def test_a_snapshot_is_kept_after_so_many_events_and_no_sooner(monkeypatch):
    monkeypatch.setattr(following, "SNAPSHOT_EVENTS", 3)
    world = await some_log()
    kept = Kept()
    head = await world.log.position()
    routing = Routing()
    async with running(Follower(routing, world.log, snapshots=kept).run()):
        await routing.reach(head)
        await eventually(lambda: kept.saved == [head])
        world.routing = routing
        await world.load_failed("n1", "2.0.0")
        await world.load_failed("n1", "2.0.0")
        assert kept.saved == [head]
        await world.load_failed("n1", "2.0.0")
        await eventually(lambda: kept.saved == [head, head + 3])


async def test_no_snapshot_is_kept_of_a_fold_that_passed_over_its_last_event(monkeypatch):
    monkeypatch.setattr(following, "SNAPSHOT_EVENTS", 1)
    world = await some_log()
    head = await world.log.position()
    log = MemoryLog()
    await log.restore([r async for batch in upto_head(world.log) for r in batch])
    kept = Kept()
    routing = Routing()
    follower = Follower(routing, log, snapshots=kept)
    Breaking(routing, head).install(monkeypatch)
    async with running(follower.run()):
        await routing.reach(head)
        await eventually(lambda: follower.passed_over == 1)
        assert kept.saved == []
        world.log, world.commands, world.routing = log, type(world.commands)(log), routing
        await world.load_failed("n1", "2.0.0")
        await eventually(lambda: kept.saved == [head + 1])


class Breaking:
    """Makes one event impossible to fold."""

    def __init__(self, routing: Routing, at: Position) -> None:
        self._apply = routing.apply
        self._routing = routing
        self._at = at

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(self._routing, "apply", self)

    def __call__(self, recorded: Recorded) -> None:
        if recorded.position == self._at:
            raise ZeroDivisionError("as the test wants it")
        self._apply(recorded)


async def test_an_event_that_cannot_be_folded_is_passed_over_and_counted(monkeypatch):
    world = await some_log()
    head = await world.log.position()
    routing = Routing()
    Breaking(routing, head - 2).install(monkeypatch)
    follower = Follower(routing, world.log)
    async with running(follower.run()):
        await routing.reach(head)
    assert follower.passed_over == 1
    assert routing.failures and not routing.nodes["n1"].resident  # the load is what was missed


async def test_a_malformed_message_is_passed_over_and_the_rest_goes_on():
    log = Watched()
    world = await some_log(log)
    log.failing = [MalformedEvent(5, "evt.system.node.n1", "not one of ours")]
    routing, follower = await caught_up(log)
    assert log.begun == [0, 5]
    assert follower.passed_over == 1
    assert routing.position == world.routing.position
    assert not routing.nodes["n1"].resident  # what was passed over
    assert routing.failures == world.routing.failures


async def test_while_the_log_is_away_the_fold_stands_and_then_goes_on(monkeypatch):
    monkeypatch.setattr(following, "RESUBSCRIBE_SECONDS", 0.001)
    log = Watched()
    world = await some_log(log)
    routing = Routing()
    follower = Follower(routing, log)
    async with running(follower.run()):
        await routing.reach(await log.position())
        assert follower.following
        log.failing = [LogUnavailable("away")] * 3
        log._closed = True
        log._wake_subscriptions()
        await eventually(lambda: not follower.following)
        assert routing.position == world.routing.position
        assert routing.routes.keys() == world.routing.routes.keys()
        log._closed = False
        world.routing = routing
        position = await world.load_failed("n1", "2.0.0")
        assert routing.position == position
        assert follower.following
    assert follower.passed_over == 0


async def test_without_redis_the_whole_log_is_folded_and_snapshots_are_no_matter(monkeypatch):
    monkeypatch.setattr(following, "SNAPSHOT_EVENTS", 1)
    world = await some_log()
    nowhere = Snapshots("redis://127.0.0.1:1/0", name="routing", version=1)
    routing, follower = await caught_up(world.log, nowhere)
    await nowhere.close()
    assert known(routing) == known(world.routing)
    assert follower.passed_over == 0


async def test_an_older_snapshot_never_replaces_a_newer_one(redis_url: str):
    snapshots = Snapshots(redis_url, name="routing", version=1)
    await snapshots.save(7, b"seven")
    await snapshots.save(6, b"six")
    await snapshots.save(7, b"another seven")
    assert await snapshots.load() == (7, b"seven")
    await snapshots.save(8, b"eight")
    assert await snapshots.load() == (8, b"eight")
    other_format = Snapshots(redis_url, name="routing", version=2)
    assert await other_format.load() is None
    await other_format.close()
    await snapshots.close()
