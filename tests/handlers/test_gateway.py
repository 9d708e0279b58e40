"""One request through the gateway: where it goes, how often, what is counted, what is proved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from engine.decisions import endpoint
from engine.routing import open_receipt
from events.catalogue.endpoints import Policy, Rule, When
from events.catalogue.nodes import VersionRef
from events.memory import MemoryLog
from handlers import gateway as module
from handlers.executions import (
    DeadlineExceeded,
    EndpointUnknown,
    Executed,
    Execution,
    NotServed,
    VersionFailed,
)
from handlers.gateway import Gateway, Inference
from handlers.questions import Questions
from handlers.traffic import Windows
from tests.handlers.world import CHAT, World, eventually, opened

SECRET = b"a secret of thirty-two bytes ...."
SECONDS = 1_770_000_000.25
LONG_SECONDS = 30.0

Behaviour = Callable[[VersionRef, Execution], Awaitable[Executed]]


class FakeExecutor:
    """Does per version what the test says; serves nothing else."""

    def __init__(self, **behaviours: Behaviour) -> None:
        self.behaviours = dict(behaviours)
        self.asked: list[str] = []
        self.executions: list[Execution] = []

    async def execute(self, wanted: VersionRef, execution: Execution) -> Executed:
        self.asked.append(wanted.version)
        self.executions.append(execution)
        behaviour = self.behaviours.get(wanted.version)
        if behaviour is None:
            raise NotServed(f"no node serves {wanted}")
        return await behaviour(wanted, execution)


async def answers(wanted: VersionRef, execution: Execution) -> Executed:
    return Executed(outputs={"by": wanted.version, "got": execution.inputs}, runtime_ms=1.0)


async def fails(wanted: VersionRef, execution: Execution) -> Executed:
    raise VersionFailed("boom")


async def is_late(wanted: VersionRef, execution: Execution) -> Executed:
    raise DeadlineExceeded("too late")


class Counted(Windows):
    """Windows that tell what they count."""

    def __init__(self) -> None:
        super().__init__(gateway="g1", log=MemoryLog(), clock=lambda: SECONDS)

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """(version, `answered` or problem code) for each request of this second."""
        found: list[tuple[str, str]] = []
        for lane in self._due:
            assert str(lane.entity) == "acme/traffic/chat"
            for version, tally in lane.versions.items():
                seen = tally.window()
                failed = sum(seen.errors.values())
                found += [(version, "answered")] * (seen.requests - failed)
                found += [(version, code) for code, n in seen.errors.items() for _ in range(n)]
        return found

    @property
    def under_way(self) -> dict[str, int]:
        """Version -> requests in flight."""
        return {version: count for _, version, count in self.in_flight() if count}


class Rig:
    """A gateway whose executors do as they are told."""

    def __init__(self, world: World, *executors: Any) -> None:
        self.world = world
        self.windows = Counted()
        self.gateway = Gateway(
            routing=world.routing,
            executors=executors,
            windows=self.windows,
            receipt_secret=SECRET,
            clock=lambda: SECONDS,
        )

    async def infer(
        self,
        *,
        endpoint: str = "chat",
        key: str | None = "user-1",
        deadline_s: float = LONG_SECONDS,
        attributes: dict[str, str] | None = None,
        request_id: str = "r1",
    ) -> Inference:
        return await self.gateway.infer(
            "acme",
            endpoint=endpoint,
            inputs={"x": 1},
            key=key,
            attributes=attributes or {},
            parameters={"p": 2},
            request_id=request_id,
            deadline_s=deadline_s,
        )


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
    assert rig.windows.outcomes == [("1.0.0", "answered")]


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
    assert rig.windows.outcomes == [("1.0.0", "answered")]


async def test_a_retry_goes_by_the_table_of_that_moment(world: World):
    executor = FakeExecutor(**{"2.0.0": answers})
    rig = Rig(world, executor)
    request = asyncio.create_task(rig.infer())
    await eventually(lambda: "1.0.0" in executor.asked)
    moved = await world.move("2.0.0", "s1")
    done = await request
    assert (done.version, done.position) == ("2.0.0", moved)
    assert open_receipt(done.receipt, SECRET).version == "2.0.0"
    assert rig.windows.outcomes == [("2.0.0", "answered")]


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
    assert rig.windows.outcomes == [("1.0.0", "unavailable")]


async def test_a_request_nobody_comes_to_serve_fails_before_a_deadline_far_away(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "NOT_SERVED_SECONDS", 0.02)
    rig = Rig(world, FakeExecutor())
    with pytest.raises(NotServed):
        await rig.infer(deadline_s=3_600)
    assert rig.windows.outcomes == [("1.0.0", "unavailable")]


@pytest.mark.parametrize(
    ("behaviour", "error"), [(fails, VersionFailed), (is_late, DeadlineExceeded)]
)
async def test_a_version_that_began_is_not_asked_again(world: World, behaviour, error):
    executor = FakeExecutor(**{"1.0.0": behaviour})
    rig = Rig(world, executor)
    with pytest.raises(error):
        await rig.infer()
    assert executor.asked == ["1.0.0"]
    assert rig.windows.outcomes == [("1.0.0", error.code)]


async def test_an_endpoint_that_does_not_exist_is_nobodys_traffic(world: World):
    rig = Rig(world, FakeExecutor(**{"1.0.0": answers}))
    with pytest.raises(EndpointUnknown):
        await rig.infer(endpoint="none")
    assert rig.windows.outcomes == []


async def test_this_process_is_preferred_and_the_bus_is_the_fallback(world: World):
    local, remote = FakeExecutor(**{"1.0.0": answers}), FakeExecutor(**{"1.0.0": answers})
    rig = Rig(world, local, remote)
    await rig.infer()
    assert (local.asked, remote.asked) == (["1.0.0"], [])
    local.behaviours.clear()
    done = await rig.infer()
    assert remote.asked == ["1.0.0"]
    assert done.attempts == 1
    assert rig.windows.outcomes == [("1.0.0", "answered")] * 2


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
        assert said.time_ms == int(SECONDS * 1_000)
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
