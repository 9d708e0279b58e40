"""Copies for shadows: nothing of them reaches the request, and what became of each is counted."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_asyncio

from events import Position
from events.catalogue.endpoints import Comparison, Policy, Rule, Shadow, When
from events.catalogue.traffic import ShadowWindow
from handlers import comparators, shadows
from handlers.executions import BusExecutor, RequestTimedOut, VersionFailed
from tests.handlers.asking import FakeExecutor, Held, Rig, answers, fails, is_late, says
from tests.handlers.nodes import a_worker, serves
from tests.handlers.world import World, eventually, opened, running

ONE = {"1.0.0": 1.0}


@pytest_asyncio.fixture
async def world():
    async with opened() as found:
        await found.register("1.0.0", "2.0.0", "3.0.0")
        await found.create("1.0.0")
        yield found


@pytest_asyncio.fixture
async def shadowed(world: World) -> World:
    await world.set_policy(Policy(split=ONE, shadow=(Shadow(version="2.0.0"),)))
    return world


async def compared_by(world: World, **how: Any) -> Position:
    shadow = Shadow(version="2.0.0", compare=Comparison(**how))
    return await world.set_policy(Policy(split=ONE, shadow=(shadow,)))


async def settled(rig: Rig) -> None:
    """Every copy has come to its end."""
    await eventually(lambda: rig.gateway.shadows.under_way == 0)


async def told(rig: Rig, version: str = "2.0.0") -> ShadowWindow:
    """What one shadow did in the second that is over now."""
    [window] = await rig.next_second()
    return window.shadows[version]


def counts(window: ShadowWindow) -> tuple[int, int, int, int, dict[str, int]]:
    return window.mirrored, window.dropped, window.compared, window.agreed, window.errors


# ---- what a copy does to its request


async def test_the_request_is_answered_while_its_copy_is_held_back(shadowed: World):
    shadow = Held()
    executor = FakeExecutor(**{"1.0.0": answers, "2.0.0": shadow})
    rig = Rig(shadowed, executor)
    done = await rig.infer()
    assert done.version == "1.0.0"
    assert shadow.ended == []
    await eventually(lambda: shadow.begun == 1)
    assert executor.executions[0].inputs == executor.executions[1].inputs
    assert executor.executions[0].parameters == executor.executions[1].parameters
    shadow.let.set()
    await settled(rig)
    assert shadow.ended == ["answered"]


async def test_a_copy_is_neither_a_request_nor_in_flight_nor_a_unit(shadowed: World):
    shadow = Held()
    rig = Rig(shadowed, FakeExecutor(**{"1.0.0": answers, "2.0.0": shadow}))
    await rig.infer()
    await eventually(lambda: shadow.begun == 1)
    assert rig.under_way() == {}
    shadow.let.set()
    await settled(rig)
    [window] = await rig.next_second()
    assert set(window.versions) == {"1.0.0"}
    assert window.versions["1.0.0"].requests == 1
    assert window.versions["1.0.0"].tokens == 0
    assert window.versions["1.0.0"].errors == {}


@pytest.mark.parametrize(
    ("behaviour", "code"), [(fails, "runtime_failed"), (is_late, "timeout"), (None, "unavailable")]
)
async def test_a_shadow_that_fails_fails_nothing_else(shadowed: World, behaviour, code):
    behaviours = {"1.0.0": answers} | ({} if behaviour is None else {"2.0.0": behaviour})
    executor = FakeExecutor(**behaviours)
    rig = Rig(shadowed, executor)
    assert (await rig.infer()).version == "1.0.0"
    await settled(rig)
    assert executor.asked == ["1.0.0", "2.0.0"], "a copy is never tried again"
    [window] = await rig.next_second()
    assert counts(window.shadows["2.0.0"]) == (1, 0, 0, 0, {code: 1})
    assert window.versions["1.0.0"].errors == {}


async def test_a_shadow_that_the_request_gave_too_little_time_has_not_failed(shadowed: World):
    async def has_no_time(*_: object) -> Any:
        raise RequestTimedOut("it allowed no more")

    rig = Rig(shadowed, FakeExecutor(**{"1.0.0": answers, "2.0.0": has_no_time}))
    await rig.infer()
    await settled(rig)
    assert counts(await told(rig)) == (1, 0, 0, 0, {})


async def test_a_shadow_that_fails_as_nobody_thought_of_is_counted(shadowed: World):
    async def breaks(*_: object) -> Any:
        raise LookupError("a fault in the gateway")

    rig = Rig(shadowed, FakeExecutor(**{"1.0.0": answers, "2.0.0": breaks}))
    await rig.infer()
    await settled(rig)
    assert counts(await told(rig)) == (1, 0, 0, 0, {"internal": 1})


async def test_a_shadow_that_hangs_is_given_up_at_a_deadline_of_its_own(
    shadowed: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shadows, "COPY_SECONDS", 0.02)
    shadow = Held()
    executor = FakeExecutor(**{"1.0.0": answers, "2.0.0": shadow})
    rig = Rig(shadowed, executor)
    await rig.infer(deadline_s=3_600.0)
    await settled(rig)
    assert shadow.ended == ["cancelled"]
    assert executor.executions[1].timeout_s == 0.02
    assert counts(await told(rig)) == (1, 0, 0, 0, {"timeout": 1})


async def test_a_request_that_failed_is_not_mirrored(shadowed: World):
    executor = FakeExecutor(**{"1.0.0": fails, "2.0.0": answers})
    rig = Rig(shadowed, executor)
    with pytest.raises(VersionFailed):
        await rig.infer()
    assert executor.asked == ["1.0.0"]
    [window] = await rig.next_second()
    assert window.shadows == {}


async def test_every_shadow_gets_a_copy_but_never_the_version_that_answered(world: World):
    both = (Shadow(version="2.0.0"), Shadow(version="3.0.0"))
    beta = Rule(name="beta", when=When(attributes={"tier": "beta"}), split={"2.0.0": 1.0})
    await world.set_policy(Policy(split=ONE, shadow=both, rules=(beta,)))
    rig = Rig(world, FakeExecutor(**dict.fromkeys(("1.0.0", "2.0.0", "3.0.0"), says(1))))
    await rig.infer()
    await rig.infer(attributes={"tier": "beta"})
    await settled(rig)
    [window] = await rig.next_second()
    assert {version: seen.mirrored for version, seen in window.shadows.items()} == {
        "2.0.0": 1,
        "3.0.0": 2,
    }


async def test_copies_reach_nodes_over_the_bus(staged: World):
    await staged.create("1.0.0")
    await staged.join("elsewhere", "1.0.0", "2.0.0")
    await staged.set_policy(
        Policy(split=ONE, shadow=(Shadow(version="2.0.0", compare=Comparison(kind="exact")),))
    )
    async with running(a_worker(staged).run()):
        await eventually(lambda: serves(staged, "1.0.0") and serves(staged, "2.0.0"))
        rig = Rig(staged, BusExecutor(staged.bus))
        assert (await rig.infer()).outputs == {"by": "1.0.0"}
        await settled(rig)
    assert counts(await told(rig)) == (1, 0, 1, 0, {}), "each answers with its own name"


# ---- how many there may be


async def test_copies_under_way_are_bounded_for_each_version_and_the_rest_is_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shadows, "COPIES_PER_VERSION_MAX", 3)
    both = (Shadow(version="2.0.0"), Shadow(version="3.0.0"))
    await world.set_policy(Policy(split=ONE, shadow=both))
    stuck = Held(1)
    rig = Rig(world, FakeExecutor(**{"1.0.0": says(1), "2.0.0": stuck, "3.0.0": says(1)}))
    for _ in range(5):
        assert (await rig.infer()).version == "1.0.0"
        await eventually(lambda: rig.gateway.shadows.under_way <= stuck.begun)
    [window] = await rig.next_second()
    assert counts(window.shadows["2.0.0"]) == (3, 2, 0, 0, {})
    assert counts(window.shadows["3.0.0"]) == (5, 0, 5, 5, {})
    stuck.let.set()
    await settled(rig)
    await rig.infer()
    await settled(rig)
    assert counts(await told(rig)) == (1, 0, 4, 4, {}), "there is room again"


async def test_copies_under_way_are_bounded_in_all(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shadows, "COPIES_MAX", 2)
    both = (Shadow(version="2.0.0"), Shadow(version="3.0.0"))
    await world.set_policy(Policy(split=ONE, shadow=both))
    stuck = Held()
    rig = Rig(world, FakeExecutor(**{"1.0.0": answers, "2.0.0": stuck, "3.0.0": stuck}))
    for _ in range(3):
        await rig.infer()
    [window] = await rig.next_second()
    assert counts(window.shadows["2.0.0"]) == (1, 2, 0, 0, {})
    assert counts(window.shadows["3.0.0"]) == (1, 2, 0, 0, {})
    await rig.gateway.close()


async def test_closing_lets_copies_go(shadowed: World):
    shadow = Held()
    rig = Rig(shadowed, FakeExecutor(**{"1.0.0": answers, "2.0.0": shadow}))
    await rig.infer()
    await eventually(lambda: shadow.begun == 1)
    await rig.gateway.close()
    assert shadow.ended == ["cancelled"]
    assert counts(await told(rig)) == (1, 0, 0, 0, {})


# ---- what is compared, and where it is told


async def test_agreement_is_tallied(world: World):
    await compared_by(world, kind="numeric", tolerance=0.1)
    given = iter([1.05, 2.0, 0.95])

    async def varies(wanted: Any, execution: Any) -> Any:
        return await says({"score": next(given)})(wanted, execution)

    rig = Rig(world, FakeExecutor(**{"1.0.0": says({"score": 1.0}), "2.0.0": varies}))
    for _ in range(3):
        await rig.infer()
        await settled(rig)
    assert counts(await told(rig)) == (3, 0, 3, 2, {})


async def test_latencies_are_those_of_compared_copies_and_of_their_requests(shadowed: World):
    failing = iter([False, True, False])

    async def sometimes(wanted: Any, execution: Any) -> Any:
        return await (fails if next(failing) else answers)(wanted, execution)

    rig = Rig(shadowed, FakeExecutor(**{"1.0.0": answers, "2.0.0": sometimes}))
    for _ in range(3):
        await rig.infer()
        await settled(rig)
    window = await told(rig)
    assert window.latency is not None
    assert window.primary_latency is not None
    assert sum(window.latency.bins.values()) == sum(window.primary_latency.bins.values()) == 2


async def test_a_copy_is_told_of_when_it_is_sent_and_again_when_it_is_compared(shadowed: World):
    shadow = Held(1)
    rig = Rig(shadowed, FakeExecutor(**{"1.0.0": says(1), "2.0.0": shadow}))
    await rig.infer()
    await eventually(lambda: shadow.begun == 1)
    assert counts(await told(rig)) == (1, 0, 0, 0, {})
    assert await rig.next_second() == [], "a copy that is under way is nobody's traffic"
    shadow.let.set()
    await settled(rig)
    [window] = await rig.next_second()
    assert window.versions == {}
    assert counts(window.shadows["2.0.0"]) == (0, 0, 1, 1, {})


async def test_a_copy_counts_under_the_policy_of_its_request(shadowed: World):
    shadow = Held(1)
    rig = Rig(shadowed, FakeExecutor(**{"1.0.0": says(1), "2.0.0": shadow, "3.0.0": says(1)}))
    position = (await rig.infer()).position
    await eventually(lambda: shadow.begun == 1)
    await shadowed.move("3.0.0", "s1")
    await rig.infer()
    await rig.next_second()
    shadow.let.set()
    await settled(rig)
    [window] = await rig.next_second()
    assert (window.policy, window.shadows["2.0.0"].compared) == (position, 1)


# ---- functions of users


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Lets functions that hang end with the test."""
    let = threading.Event()
    yield let
    let.set()


def same_label(primary: Any, shadow: Any) -> bool:
    return bool(primary["label"] == shadow["label"])


async def compared_with(world: World, function: Any, *, name: str = "mine") -> ShadowWindow:
    """What becomes of one copy that is compared by a function."""
    await compared_by(world, kind="function", name="mine")
    executor = FakeExecutor(**{"1.0.0": says({"label": "cat"}), "2.0.0": says({"label": "cat"})})
    rig = Rig(world, executor, comparators={name: function})
    await rig.infer()
    await settled(rig)
    return await told(rig)


async def test_a_function_says_whether_outputs_agree(world: World):
    assert counts(await compared_with(world, same_label)) == (1, 0, 1, 1, {})
    differ = await compared_with(world, lambda one, other: not same_label(one, other))
    assert counts(differ) == (1, 0, 1, 0, {})


def raises(primary: Any, shadow: Any) -> bool:
    raise KeyError("score")


def exits(primary: Any, shadow: Any) -> bool:
    raise SystemExit(1)


@pytest.mark.parametrize("function", [raises, exits, lambda *_: 1, lambda *_: None])
async def test_a_function_that_raises_or_returns_no_bool_has_failed(world: World, function):
    assert counts(await compared_with(world, function)) == (1, 0, 0, 0, {"compare_failed": 1})


async def test_a_function_that_this_gateway_does_not_know_has_failed(world: World):
    window = await compared_with(world, same_label, name="other")
    assert counts(window) == (1, 0, 0, 0, {"compare_failed": 1})


async def test_a_function_works_beside_the_requests_and_not_before_them(
    world: World, gate: threading.Event
):
    at_work = threading.Event()

    def waits(primary: Any, shadow: Any) -> bool:
        at_work.set()
        return gate.wait()

    await compared_by(world, kind="function", name="mine")
    rig = Rig(
        world, FakeExecutor(**{"1.0.0": says(1), "2.0.0": says(1)}), comparators={"mine": waits}
    )
    await rig.infer()
    await eventually(at_work.is_set)
    assert (await rig.infer()).outputs == 1
    gate.set()
    await settled(rig)
    assert counts(await told(rig)) == (2, 0, 2, 2, {})


async def test_a_function_that_hangs_is_given_up_and_its_thread_is_one_less(
    world: World, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(comparators, "COMPARING_MAX", 1)
    monkeypatch.setattr(comparators, "COMPARE_SECONDS", 0.02)
    begun: list[threading.Thread] = []

    def hangs(primary: Any, shadow: Any) -> bool:
        begun.append(threading.current_thread())
        return gate.wait()

    await compared_by(world, kind="function", name="mine")
    rig = Rig(
        world, FakeExecutor(**{"1.0.0": says(1), "2.0.0": says(1)}), comparators={"mine": hangs}
    )
    for _ in range(2):
        await rig.infer()
        await settled(rig)
    assert counts(await told(rig)) == (2, 0, 0, 0, {"compare_failed": 2})
    await eventually(lambda: begun != [])
    [thread] = begun
    assert thread.daemon, "it must not keep the process from ending"
    monkeypatch.setattr(comparators, "COMPARE_SECONDS", math.inf)
    gate.set()
    await rig.infer()
    await settled(rig)
    assert counts(await told(rig)) == (1, 0, 1, 1, {}), "the thread came back"


async def test_a_function_gets_outputs_of_its_own(world: World):
    def meddles(primary: Any, shadow: Any) -> bool:
        primary.clear()
        return True

    answer = {"label": "cat"}
    await compared_by(world, kind="function", name="mine")
    executor = FakeExecutor(**{"1.0.0": says(answer), "2.0.0": says(answer)})
    rig = Rig(world, executor, comparators={"mine": meddles})
    done = await rig.infer()
    await settled(rig)
    assert done.outputs == {"label": "cat"}
    assert counts(await told(rig)) == (1, 0, 1, 1, {})
