"""A version that fails before it has begun to answer leaves the policy's fallbacks a chance."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from engine.routing import open_receipt
from events.catalogue.endpoints import Policy
from handlers import attempts as module
from handlers.executions import (
    DeadlineExceeded,
    Execution,
    InferenceFailed,
    NotServed,
    RequestRefused,
    RequestTimedOut,
    VersionFailed,
    VersionOverloaded,
    VersionUnavailable,
)
from handlers.questions import Questions
from tests.handlers.asking import SECRET, FakeExecutor, Held, Rig, answers, fails
from tests.handlers.world import World, eventually, opened


def raises(failure: InferenceFailed):
    async def behave(_wanted, _execution: Execution):
        raise failure

    return behave


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    async with opened() as found:
        await found.register("1.0.0", "2.0.0", "3.0.0")
        await found.create("1.0.0")
        await found.set_policy(Policy(split={"2.0.0": 100.0}, fallback=("3.0.0", "1.0.0")))
        yield found


@pytest.mark.parametrize(
    "failure",
    [
        VersionFailed("boom"),
        VersionOverloaded("busy"),
        VersionUnavailable("gone"),
        DeadlineExceeded("its own time is over"),
        NotServed("nowhere"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_the_next_version_answers_and_each_is_counted_for_itself(
    world: World, failure: InferenceFailed
):
    rig = Rig(world, FakeExecutor(**{"2.0.0": raises(failure), "3.0.0": answers}))
    done = await rig.infer()
    assert (done.version, done.attempts) == ("3.0.0", 2)
    assert sorted(await rig.outcomes()) == [("2.0.0", failure.code), ("3.0.0", "answered")]
    assert rig.under_way() == {}


async def test_versions_are_asked_in_the_order_of_the_policy(world: World):
    executor = FakeExecutor(**{"2.0.0": fails, "3.0.0": fails, "1.0.0": answers})
    done = await Rig(world, executor).infer()
    assert executor.asked == ["2.0.0", "3.0.0", "1.0.0"]
    assert (done.version, done.attempts) == ("1.0.0", 3)


async def test_when_all_fail_the_client_is_told_of_the_chosen_one(world: World):
    behaviours = {"2.0.0": raises(VersionOverloaded("busy", retry_after_s=7.0))}
    rig = Rig(world, FakeExecutor(**behaviours, **{"3.0.0": fails, "1.0.0": fails}))
    with pytest.raises(VersionOverloaded) as failed:
        await rig.infer()
    assert (failed.value.version, failed.value.retry_after_s) == ("2.0.0", 7.0)
    [window] = await rig.next_second()
    told = {
        version: (dict(seen.errors), seen.fallbacks, seen.fallbacks_failed)
        for version, seen in window.versions.items()
    }
    assert told == {
        "2.0.0": ({"overloaded": 1}, 0, 0),
        "3.0.0": ({"runtime_failed": 1}, 1, 1),
        "1.0.0": ({"runtime_failed": 1}, 1, 1),
    }


async def test_a_request_that_is_at_fault_goes_nowhere_else_and_counts_against_nobody(world: World):
    executor = FakeExecutor(
        **{"2.0.0": raises(RequestRefused("is empty", field="prompt")), "3.0.0": answers}
    )
    rig = Rig(world, executor)
    with pytest.raises(RequestRefused) as refused:
        await rig.infer()
    assert executor.asked == ["2.0.0"]
    assert refused.value.version == "2.0.0"
    assert await rig.outcomes() == []
    assert rig.under_way() == {}


async def test_a_fallback_that_refuses_leaves_the_next_one_its_chance(world: World):
    executor = FakeExecutor(
        **{"2.0.0": fails, "3.0.0": raises(RequestRefused("too long")), "1.0.0": answers}
    )
    rig = Rig(world, executor)
    done = await rig.infer()
    assert (done.version, done.attempts) == ("1.0.0", 3)
    assert sorted(await rig.outcomes()) == [("1.0.0", "answered"), ("2.0.0", "runtime_failed")]
    assert rig.under_way() == {}


async def test_what_fallbacks_refuse_is_told_as_the_failure_of_the_chosen_one(world: World):
    refuses = raises(RequestRefused("too long"))
    behaviours = {"2.0.0": raises(VersionOverloaded("busy")), "3.0.0": refuses, "1.0.0": refuses}
    rig = Rig(world, FakeExecutor(**behaviours))
    with pytest.raises(VersionOverloaded) as failed:
        await rig.infer()
    assert failed.value.version == "2.0.0"
    assert await rig.outcomes() == [("2.0.0", "overloaded")]
    assert rig.under_way() == {}


async def test_fallbacks_that_failed_or_refused_are_not_asked_again_while_others_are(world: World):
    executor = FakeExecutor(**{"3.0.0": fails, "1.0.0": raises(RequestRefused("too long"))})
    rig = Rig(world, executor)
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: executor.asked.count("2.0.0") >= 3)
    executor.behaviours["2.0.0"] = answers
    done = await request
    assert done.version == "2.0.0"
    assert sorted(version for version in executor.asked if version != "2.0.0") == ["1.0.0", "3.0.0"]
    outcomes = sorted(await rig.outcomes())
    assert outcomes == [("2.0.0", "answered"), ("3.0.0", "runtime_failed")]
    assert rig.under_way() == {}


async def test_a_version_that_took_all_the_time_leaves_none_to_its_fallbacks(world: World):
    async def hangs(_wanted, execution: Execution):
        await asyncio.sleep(execution.timeout_s)
        raise DeadlineExceeded("too late")

    executor = FakeExecutor(**{"2.0.0": hangs, "3.0.0": answers})
    rig = Rig(world, executor)
    with pytest.raises(DeadlineExceeded):
        await rig.infer(deadline_s=0.02)
    assert executor.asked == ["2.0.0"]
    assert await rig.outcomes() == [("2.0.0", "timeout")]


async def test_a_request_whose_own_time_is_over_goes_nowhere_else_and_counts_against_nobody(
    world: World,
):
    executor = FakeExecutor(**{"2.0.0": raises(RequestTimedOut("over")), "3.0.0": answers})
    rig = Rig(world, executor)
    with pytest.raises(RequestTimedOut) as failed:
        await rig.infer()
    assert executor.asked == ["2.0.0"]
    assert (failed.value.version, failed.value.code) == ("2.0.0", "timeout")
    assert await rig.outcomes() == []
    assert rig.under_way() == {}


async def test_a_request_whose_own_time_ends_at_a_fallback_is_told_of_the_chosen_one(world: World):
    behaviours = {"2.0.0": fails, "3.0.0": raises(RequestTimedOut("over")), "1.0.0": answers}
    executor = FakeExecutor(**behaviours)
    rig = Rig(world, executor)
    with pytest.raises(VersionFailed) as failed:
        await rig.infer()
    assert executor.asked == ["2.0.0", "3.0.0"]
    assert failed.value.version == "2.0.0"
    assert await rig.outcomes() == [("2.0.0", "runtime_failed")]
    assert rig.under_way() == {}


async def test_nobody_serving_is_tried_again_with_all_versions_and_counted_once(world: World):
    executor = FakeExecutor()
    rig = Rig(world, executor)
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: len(executor.asked) >= 6)
    executor.behaviours["1.0.0"] = answers
    done = await request
    assert (done.version, done.attempts) == ("1.0.0", len(executor.asked))
    outcomes = sorted(await rig.outcomes())
    assert outcomes == [
        ("1.0.0", "answered"),
        ("2.0.0", "unavailable"),
        ("3.0.0", "unavailable"),
    ]
    assert rig.under_way() == {}


async def test_a_client_that_leaves_a_fallback_is_no_failure_of_it(world: World):
    version = Held()
    rig = Rig(world, FakeExecutor(**{"2.0.0": fails, "3.0.0": version}))
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: version.begun == 1)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert await rig.outcomes() == [("2.0.0", "runtime_failed")]
    assert rig.under_way() == {}


async def test_an_answer_of_a_fallback_is_proved_and_explained(world: World):
    rig = Rig(world, FakeExecutor(**{"2.0.0": fails, "3.0.0": answers}))
    done = await rig.infer()
    said = open_receipt(done.receipt, SECRET)
    assert (said.version, said.instead_of) == ("3.0.0", "2.0.0")
    questions = Questions(
        log=world.log, routing=world.routing, receipt_secret=SECRET, now=world.now
    )
    explained = await questions.explain_receipt("acme", receipt=done.receipt)
    assert explained.valid
    assert (explained.version, explained.instead_of) == ("3.0.0", "2.0.0")


async def test_a_stream_that_cannot_begin_falls_back_too(world: World):
    async def pieces():
        yield {"n": 1}

    async def nothing():
        raise VersionFailed("boom")
        yield

    executor = FakeExecutor()
    executor.streams = {"2.0.0": nothing, "3.0.0": pieces}
    rig = Rig(world, executor)
    async with rig.stream() as stream:
        assert (stream.version, stream.attempts) == ("3.0.0", 2)
        assert [chunk async for chunk in stream.chunks] == [{"n": 1}]
    assert sorted(await rig.outcomes()) == [("2.0.0", "runtime_failed"), ("3.0.0", "answered")]


async def test_a_fallback_is_no_unit_of_a_rollout(world: World):
    await world.set_policy(Policy(split={"1.0.0": 50.0, "2.0.0": 50.0}, fallback=("3.0.0",)))
    rig = Rig(world, FakeExecutor(**{"1.0.0": fails, "2.0.0": fails, "3.0.0": answers}))
    for number in range(20):
        await rig.infer(key=f"user-{number}", request_id=f"r{number}")
    [window] = await rig.next_second()
    assert window.versions["3.0.0"].requests == 20
    assert window.versions["3.0.0"].fallbacks == 20
    assert window.versions["3.0.0"].units.seen == 0
    shared = [window.versions[version] for version in ("1.0.0", "2.0.0")]
    assert sum(version.units.errors for version in shared) == 20
