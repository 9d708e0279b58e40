"""One request through the gateway: where it goes, how often, what is counted, what is proved."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
import pytest_asyncio

from engine.decisions import endpoint
from engine.routing import open_receipt
from events.catalogue.endpoints import Policy, Rule, When
from events.catalogue.nodes import VersionRef
from handlers import attempts as module
from handlers.executions import (
    DeadlineExceeded,
    EndpointUnknown,
    Executed,
    Execution,
    InferenceFailed,
    NodeDied,
    NotServed,
    VersionFailed,
)
from handlers.questions import Questions
from tests.handlers.asking import SECRET, FakeExecutor, Held, Rig, answers, fails, is_late
from tests.handlers.world import CHAT, World, eventually, opened


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    async with opened() as found:
        await found.register("1.0.0", "2.0.0", "3.0.0")
        await found.create("1.0.0")
        yield found


async def test_an_answer_says_who_gave_it_by_which_event_and_after_how_many_attempts(world: World):
    rig = Rig(world, FakeExecutor(**{"1.0.0": answers}))
    done = await rig.infer()
    assert done.outputs == {"by": "1.0.0", "got": {"x": 1}}
    assert (done.version, done.attempts, done.request_id) == ("1.0.0", 1, "r1")
    assert done.position == world.routing.routes["acme", "chat"].table.position
    assert done.rule is None
    assert await rig.outcomes() == [("1.0.0", "answered")]


async def test_a_request_gets_its_parameters_and_the_time_that_is_left(world: World):
    executor = FakeExecutor(**{"1.0.0": answers})
    await Rig(world, executor).infer(deadline_s=3.0)
    [execution] = executor.executions
    assert execution.parameters == {"p": 2}
    assert 0 < execution.timeout_s <= 3.0


async def test_a_request_nobody_serves_is_tried_until_somebody_does(world: World):
    executor = FakeExecutor()
    rig = Rig(world, executor)
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: len(executor.asked) >= 3)
    executor.behaviours["1.0.0"] = answers
    done = await request
    assert done.attempts == len(executor.asked) >= 4
    assert await rig.outcomes() == [("1.0.0", "answered")]


async def test_a_retry_goes_by_the_table_of_that_moment(world: World):
    executor = FakeExecutor(**{"2.0.0": answers})
    rig = Rig(world, executor)
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: "1.0.0" in executor.asked)
    moved = await world.move("2.0.0", "s1")
    done = await request
    assert (done.version, done.position) == ("2.0.0", moved)
    assert open_receipt(done.receipt, SECRET).version == "2.0.0"
    assert await rig.outcomes() == [("2.0.0", "answered")]


async def test_a_retry_keeps_its_bucket_when_the_request_has_no_key(world: World):
    await world.set_policy(Policy(split={"1.0.0": 1.0, "2.0.0": 1.0}))
    executor = FakeExecutor()
    rig = Rig(world, executor)
    request = asyncio.create_task(rig.infer(key=None))
    await eventually(lambda: len(executor.asked) >= 5)
    executor.behaviours = {"1.0.0": answers, "2.0.0": answers}
    await request
    assert len(set(executor.asked)) == 1


async def test_a_request_nobody_comes_to_serve_fails_at_its_deadline(world: World):
    executor = FakeExecutor()
    rig = Rig(world, executor)
    with pytest.raises(NotServed) as failed:
        await rig.infer(deadline_s=0.05)
    assert failed.value.code == "unavailable"
    assert len(executor.asked) > 1
    assert all(execution.timeout_s > 0 for execution in executor.executions)
    assert await rig.outcomes() == [("1.0.0", "unavailable")]


async def test_a_request_nobody_comes_to_serve_fails_before_a_deadline_far_away(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "NOT_SERVED_SECONDS", 0.02)
    rig = Rig(world, FakeExecutor())
    with pytest.raises(NotServed):
        await rig.infer(deadline_s=3_600)
    assert await rig.outcomes() == [("1.0.0", "unavailable")]


async def test_what_a_node_died_over_is_asked_again_however_long_it_had_it(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    past = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + past[0])
    monkeypatch.setattr(module, "time", clock)

    async def dies(wanted: VersionRef, execution: Execution) -> Executed:
        past[0] += 10 * module.NOT_SERVED_SECONDS
        executor.behaviours["1.0.0"] = answers
        raise NodeDied("killed")

    executor = FakeExecutor(**{"1.0.0": dies})
    rig = Rig(world, executor)
    assert (await rig.infer(deadline_s=3_600)).attempts == 2
    assert await rig.outcomes() == [("1.0.0", "answered")]


async def test_a_request_that_nodes_die_of_does_not_kill_them_all(world: World):
    async def dies(wanted: VersionRef, execution: Execution) -> Executed:
        raise NodeDied("killed")

    executor = FakeExecutor(**{"1.0.0": dies})
    rig = Rig(world, executor)
    with pytest.raises(NodeDied):
        await rig.infer(deadline_s=3_600)
    assert len(executor.asked) == module.NODE_DEATHS_MAX
    assert await rig.outcomes() == [("1.0.0", "unavailable")]
    assert rig.under_way() == {}


@pytest.mark.parametrize(
    ("behaviour", "error"), [(fails, VersionFailed), (is_late, DeadlineExceeded)]
)
async def test_a_version_that_began_is_not_asked_again(world: World, behaviour, error):
    executor = FakeExecutor(**{"1.0.0": behaviour})
    rig = Rig(world, executor)
    with pytest.raises(error):
        await rig.infer()
    assert executor.asked == ["1.0.0"]
    assert await rig.outcomes() == [("1.0.0", error.code)]


async def test_an_endpoint_that_does_not_exist_is_nobodys_traffic(world: World):
    rig = Rig(world, FakeExecutor(**{"1.0.0": answers}))
    with pytest.raises(EndpointUnknown):
        await rig.infer(endpoint="none")
    assert await rig.outcomes() == []


async def test_this_process_is_preferred_and_the_bus_is_the_fallback(world: World):
    local, remote = FakeExecutor(**{"1.0.0": answers}), FakeExecutor(**{"1.0.0": answers})
    rig = Rig(world, local, remote)
    await rig.infer()
    assert (local.asked, remote.asked) == (["1.0.0"], [])
    local.behaviours.clear()
    done = await rig.infer()
    assert remote.asked == ["1.0.0"]
    assert done.attempts == 1
    assert await rig.outcomes() == [("1.0.0", "answered")] * 2


async def test_a_version_that_fails_in_this_process_is_not_tried_on_the_bus(world: World):
    local, remote = FakeExecutor(**{"1.0.0": fails}), FakeExecutor(**{"1.0.0": answers})
    with pytest.raises(VersionFailed):
        await Rig(world, local, remote).infer()
    assert remote.asked == []


async def test_receipts_of_all_answers_verify_and_explain_themselves(world: World):
    policy = Policy(
        split={"1.0.0": 1.0, "2.0.0": 1.0},
        rules=(
            Rule(name="beta", when=When(attributes={"tier": "beta"}), split={"3.0.0": 1.0}),
            Rule(name="later", when=When(from_="10:00", to="11:00"), split={"1.0.0": 1.0}),
        ),
    )
    await world.set_policy(policy)
    executor = FakeExecutor(**dict.fromkeys(("1.0.0", "2.0.0", "3.0.0"), answers))
    rig = Rig(world, executor)
    questions = Questions(
        log=world.log, routing=world.routing, receipt_secret=SECRET, now=world.now
    )
    got: set[tuple[str, str | None]] = set()
    for number in range(30):
        attributes = {"tier": "beta"} if number % 3 == 0 else {}
        done = await rig.infer(key=f"user-{number}", attributes=attributes, request_id=f"r{number}")
        said = open_receipt(done.receipt, SECRET)
        assert (said.tenant, said.endpoint, said.request_id) == ("acme", "chat", f"r{number}")
        assert (said.version, said.position, said.rule) == (done.version, done.position, done.rule)
        assert said.time_ms == int(rig.clock() * 1_000)
        explained = await questions.explain_receipt("acme", receipt=done.receipt)
        assert explained.valid
        assert explained.version == done.version == done.outputs["by"]
        got.add((done.version, done.rule))
    assert got == {("1.0.0", None), ("2.0.0", None), ("3.0.0", "beta")}


async def test_a_rollback_takes_the_next_request_back(world: World):
    await world.move("2.0.0", "s1")
    rig = Rig(world, FakeExecutor(**{"1.0.0": answers, "2.0.0": answers}))
    assert (await rig.infer()).version == "2.0.0"
    await world.do(CHAT, endpoint.RollBack())
    assert (await rig.infer()).version == "1.0.0"


async def test_a_request_is_in_flight_until_it_is_answered(world: World):
    version = Held()
    rig = Rig(world, FakeExecutor(**{"1.0.0": version}))
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: version.begun == 1)
    assert rig.under_way() == {"1.0.0": 1}
    [window] = await rig.next_second()
    assert (window.versions["1.0.0"].requests, window.versions["1.0.0"].in_flight) == (0, 1)
    version.let.set()
    await request
    assert rig.under_way() == {}
    [window] = await rig.next_second()
    assert (window.versions["1.0.0"].requests, window.versions["1.0.0"].in_flight) == (1, 0)
    assert await rig.next_second() == []


async def test_a_request_whose_client_goes_away_is_no_longer_in_flight_and_no_failure(world: World):
    version = Held()
    rig = Rig(world, FakeExecutor(**{"1.0.0": version}))
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: version.begun == 1)
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    assert rig.under_way() == {}
    assert await rig.outcomes() == []
    assert await rig.next_second() == []


async def test_a_client_that_goes_away_between_two_attempts_leaves_nothing_in_flight(world: World):
    executor = FakeExecutor()
    rig = Rig(world, executor)
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: len(executor.asked) >= 2)
    assert rig.under_way() == {"1.0.0": 1}
    request.cancel()
    await asyncio.wait([request])
    assert rig.under_way() == {}


async def test_a_failure_nobody_thought_of_is_counted_as_one(world: World):
    async def breaks(*_: object) -> Executed:
        raise LookupError("a fault in the gateway")

    rig = Rig(world, FakeExecutor(**{"1.0.0": breaks}))
    with pytest.raises(LookupError):
        await rig.infer()
    assert rig.under_way() == {}
    assert await rig.outcomes() == [("1.0.0", "internal")]


@pytest.mark.parametrize("behaviour", [fails, is_late, None])
async def test_a_failure_names_the_version_that_was_chosen(world: World, behaviour):
    behaviours = {} if behaviour is None else {"1.0.0": behaviour}
    with pytest.raises(InferenceFailed) as failed:
        await Rig(world, FakeExecutor(**behaviours)).infer(deadline_s=0.05)
    assert failed.value.version == "1.0.0"


@pytest.mark.parametrize("key", ["user-1", None])
async def test_a_request_that_is_tried_often_is_one_unit(world: World, key: str | None):
    await world.set_policy(Policy(split={"1.0.0": 1.0, "2.0.0": 1.0}))
    executor = FakeExecutor()
    rig = Rig(world, executor)
    request = asyncio.create_task(rig.infer(key=key))
    await eventually(lambda: len(executor.asked) >= 5)
    executor.behaviours = {"1.0.0": answers, "2.0.0": answers}
    done = await request
    assert done.attempts >= 5
    [window] = await rig.next_second()
    assert window.versions[done.version].requests == 1
    assert window.versions[done.version].units.seen == 1


async def test_a_key_that_comes_again_is_no_new_unit_and_a_request_without_one_always_is(
    world: World,
):
    await world.set_policy(Policy(split={"1.0.0": 1.0, "2.0.0": 1.0}))
    rig = Rig(world, FakeExecutor(**{"1.0.0": answers, "2.0.0": answers}))
    for number in range(4):
        await rig.infer(key="user-1", request_id=f"a{number}")
        await rig.infer(key=None, request_id=f"b{number}")
    [window] = await rig.next_second()
    assert sum(seen.requests for seen in window.versions.values()) == 8
    assert sum(seen.units.seen for seen in window.versions.values()) == 1 + 4


async def test_keys_do_not_count_under_a_policy_that_takes_no_notice_of_them(world: World):
    await world.set_policy(Policy(split={"1.0.0": 1.0, "2.0.0": 1.0}, sticky=False))
    rig = Rig(world, FakeExecutor(**{"1.0.0": answers, "2.0.0": answers}))
    for number in range(4):
        await rig.infer(key="user-1", request_id=f"r{number}")
    [window] = await rig.next_second()
    assert sum(seen.units.seen for seen in window.versions.values()) == 4


async def test_a_retry_after_a_new_policy_counts_under_that_policy(world: World):
    executor = FakeExecutor(**{"2.0.0": answers})
    rig = Rig(world, executor)
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: "1.0.0" in executor.asked)
    moved = await world.move("2.0.0", "s1")
    await request
    assert rig.under_way() == {}
    before, after = await rig.next_second()
    assert (before.versions["1.0.0"].requests, before.versions["1.0.0"].in_flight) == (0, 0)
    assert after.policy == moved
    assert after.versions["2.0.0"].requests == 1
