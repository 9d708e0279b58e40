"""Rollouts: their rows, what queries show of them, and the one an endpoint is in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from events import Event, Position
from events.catalogue.endpoints import EndpointCreated, PolicySet
from events.memory import MemoryLog
from projections import Pool, Queries
from projections.results import Endpoint, Rollout
from projections.verify import verify
from tests.projections.history import (
    CHAT,
    Writer,
    all_to,
    life,
    requested,
)
from tests.projections.history import completed as swapped
from tests.projections.project import contents, events_of, project
from tests.projections.rollouts import (
    ANALYSIS,
    BAD,
    FAILED,
    GOOD,
    STEPS,
    UNSURE,
    aborted,
    advanced,
    completed,
    held,
    hold_until,
    paused,
    resumed,
    started,
)

CREATED = EndpointCreated(model="fraud", version="1.0.0", policy=all_to("1.0.0"))


class Story:
    """An endpoint's log, projected event by event."""

    def __init__(self, pool: Pool, queries: Queries) -> None:
        self._log = MemoryLog()
        self._writer = Writer(self._log)
        self._pool = pool
        self._queries = queries

    async def tell(self, *events: Event) -> Position:
        position = await self._writer.append(CHAT, *events)
        await project(self._pool, await events_of(self._log, position))
        return position

    async def rollout(self, id: str = "r1") -> Rollout:
        found = await self._queries.rollouts.get("acme", "chat", id)
        assert found is not None
        return found

    async def endpoint(self) -> Endpoint:
        found = await self._queries.endpoints.get("acme", "chat")
        assert found is not None
        return found


@pytest.fixture
async def story(pool: Pool, queries: Queries) -> Story:
    """An endpoint with all traffic on 1.0.0."""
    story = Story(pool, queries)
    await story.tell(CREATED)
    return story


async def test_a_rollout_that_starts_is_in_its_first_step(story: Story) -> None:
    position = await story.tell(started("r1", "1.0.0", "2.0.0"))
    rollout = await story.rollout()
    assert rollout == Rollout(
        id="r1",
        endpoint="chat",
        baseline="1.0.0",
        candidate="2.0.0",
        state="running",
        step=0,
        weight=5.0,
        steps=list(STEPS),
        analysis=ANALYSIS,
        hold_until=hold_until(0),
        held_reason=None,
        reason=None,
        detail=None,
        verdicts=[],
        started_at=rollout.updated_at,
        ended_at=None,
        updated_at=rollout.updated_at,
        position=position,
    )


async def test_a_step_brings_its_weight_and_its_hold(story: Story) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"))
    await story.tell(advanced("r1", 1, "1.0.0", "2.0.0", GOOD))
    rollout = await story.rollout()
    assert (rollout.state, rollout.step, rollout.weight) == ("running", 1, 50.0)
    assert (rollout.hold_until, rollout.verdicts) == (hold_until(1), [GOOD])
    assert rollout.updated_at > rollout.started_at


async def test_verdicts_stay_until_others_come(story: Story) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"))
    await story.tell(held("r1", 0, GOOD, UNSURE))
    await story.tell(advanced("r1", 1, "1.0.0", "2.0.0"))
    assert (await story.rollout()).verdicts == [GOOD, UNSURE]
    await story.tell(paused("r1", 1), resumed("r1", 1))
    assert (await story.rollout()).verdicts == [GOOD, UNSURE]
    await story.tell(aborted("r1", 1, "failed", BAD))
    assert (await story.rollout()).verdicts == [BAD]


@pytest.mark.parametrize(
    ("event", "reason"), [(paused("r1", 0), "paused"), (held("r1", 0, UNSURE), "inconclusive")]
)
async def test_a_held_rollout_says_why_and_has_no_end_of_its_hold(
    story: Story, event: Event, reason: str
) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"), event)
    rollout = await story.rollout()
    assert (rollout.state, rollout.held_reason, rollout.hold_until) == ("held", reason, None)
    assert (rollout.step, rollout.weight) == (0, 5.0)


@pytest.mark.parametrize("event", [resumed("r1", 0), advanced("r1", 1, "1.0.0", "2.0.0")])
async def test_a_held_rollout_goes_on_when_it_is_resumed_or_passes(
    story: Story, event: Any
) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"), held("r1", 0, UNSURE), event)
    rollout = await story.rollout()
    assert (rollout.state, rollout.held_reason) == ("running", None)
    assert rollout.hold_until == event.hold_until


@pytest.mark.parametrize("before", [[], [paused("r1", 0)]], ids=["running", "held"])
async def test_a_completed_rollout_has_all_traffic_whatever_its_last_weight(
    story: Story, before: Sequence[Event]
) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"), *before)
    await story.tell(completed("r1", "1.0.0", "2.0.0", GOOD))
    rollout = await story.rollout()
    assert (rollout.state, rollout.step, rollout.weight) == ("completed", 0, 100.0)
    assert (rollout.reason, rollout.detail, rollout.verdicts) == ("passed", None, [GOOD])
    assert (rollout.hold_until, rollout.held_reason) == (None, None)
    assert rollout.ended_at == rollout.updated_at


async def test_an_aborted_rollout_has_no_traffic_and_says_why(story: Story) -> None:
    for events in FAILED:
        position = await story.tell(*events)
    rollout = await story.rollout()
    assert (rollout.state, rollout.step, rollout.weight) == ("aborted", 1, 0.0)
    assert (rollout.reason, rollout.detail, rollout.verdicts) == ("failed", "it failed", [BAD])
    assert (rollout.hold_until, rollout.held_reason) == (None, None)
    assert rollout.ended_at == rollout.updated_at
    assert rollout.position == position - 1, "the rollback after it is the endpoint's alone"


async def test_what_is_told_of_rollouts_that_never_started_is_passed_over(
    story: Story, pool: Pool
) -> None:
    await story.tell(advanced("r9", 1, "1.0.0", "2.0.0"), held("r9", 1), resumed("r9", 1))
    await story.tell(aborted("r9", 1, "failed"), completed("r9", "1.0.0", "2.0.0"))
    assert (await contents(pool))["rollouts"] == []


async def test_an_endpoint_shows_the_rollout_it_is_in(story: Story) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"))
    endpoint = await story.endpoint()
    assert endpoint.policy.split == {"1.0.0": 95.0, "2.0.0": 5.0}
    assert summary(endpoint) == ("r1", "1.0.0", "2.0.0", "running", 0, 5.0, hold_until(0))
    await story.tell(advanced("r1", 1, "1.0.0", "2.0.0"))
    assert (await story.endpoint()).policy.split == {"1.0.0": 50.0, "2.0.0": 50.0}
    await story.tell(paused("r1", 1))
    endpoint = await story.endpoint()
    assert summary(endpoint) == ("r1", "1.0.0", "2.0.0", "held", 1, 50.0, None)
    await story.tell(resumed("r1", 1))
    endpoint = await story.endpoint()
    assert summary(endpoint) == ("r1", "1.0.0", "2.0.0", "running", 1, 50.0, hold_until(9))


async def test_in_a_step_of_weight_100_the_baseline_is_still_the_active_version(
    story: Story,
) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"), advanced("r1", 2, "1.0.0", "2.0.0"))
    endpoint = await story.endpoint()
    assert endpoint.policy.split == {"1.0.0": 0.0, "2.0.0": 100.0}
    assert (endpoint.active, endpoint.previous) == ("1.0.0", None)


async def test_a_completed_rollout_makes_its_candidate_active(story: Story) -> None:
    position = await story.tell(
        started("r1", "1.0.0", "2.0.0"), completed("r1", "1.0.0", "2.0.0", GOOD)
    )
    endpoint = await story.endpoint()
    assert (endpoint.active, endpoint.previous, endpoint.rollout) == ("2.0.0", "1.0.0", None)
    assert (endpoint.policy, endpoint.position) == (all_to("2.0.0"), position)


async def test_an_aborted_rollout_leaves_the_baseline_active(story: Story) -> None:
    for events in FAILED:
        await story.tell(*events)
    endpoint = await story.endpoint()
    assert (endpoint.active, endpoint.previous, endpoint.rollout) == ("1.0.0", None, None)
    assert endpoint.policy == all_to("1.0.0")


async def test_a_policy_that_supersedes_a_rollout_is_all_that_is_left_of_it(story: Story) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"))
    await story.tell(aborted("r1", 0, "superseded"), PolicySet(policy=all_to("3.0.0")))
    endpoint = await story.endpoint()
    assert (endpoint.active, endpoint.previous, endpoint.rollout) == ("3.0.0", "1.0.0", None)
    assert (await story.rollout()).reason == "superseded"


async def test_a_swap_after_a_rollout_is_as_any_swap(story: Story) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"), completed("r1", "1.0.0", "2.0.0"))
    await story.tell(requested("s1", "2.0.0", "3.0.0"), swapped("s1", "2.0.0", "3.0.0"))
    endpoint = await story.endpoint()
    assert (endpoint.active, endpoint.previous) == ("3.0.0", "2.0.0")
    assert endpoint.swap is not None
    assert (endpoint.swap.id, endpoint.swap.state, endpoint.rollout) == ("s1", "completed", None)


async def test_rollouts_have_the_shape_of_the_contract(story: Story) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"), held("r1", 0, GOOD))
    shown = msgspec.json.decode(msgspec.json.encode(await story.rollout()))
    assert {"id", "state", "step", "weight", "verdicts", "position"} <= shown.keys()
    assert shown["verdicts"] == [
        {
            "metric": "error_rate",
            "outcome": "pass",
            "baseline_samples": 950,
            "candidate_samples": 50,
            "estimate": 0.001,
            "interval": [-0.01, 0.012],
            "e_value": 0.4,
            "alpha": 0.025,
            "threshold": 40.0,
        }
    ]
    endpoint = msgspec.json.decode(msgspec.json.encode(await story.endpoint()))
    assert {"id", "baseline", "candidate", "state", "step", "weight"} <= endpoint["rollout"].keys()


async def test_rollouts_are_listed_newest_first_and_paged_by_id(
    story: Story, queries: Queries
) -> None:
    for number in range(5):
        rollout = f"r{9 - number}"  # an order of their own
        await story.tell(started(rollout, "1.0.0", "2.0.0"), aborted(rollout, 0, "failed"))
    page = await queries.rollouts.list("acme", "chat", limit=2)
    assert [rollout.id for rollout in page.items] == ["r5", "r6"]
    assert page.next == "r6"
    await story.tell(started("late", "1.0.0", "2.0.0"))  # it comes before the first page
    page = await queries.rollouts.list("acme", "chat", after="r6", limit=2)
    assert ([rollout.id for rollout in page.items], page.next) == (["r7", "r8"], "r8")
    await story.tell(held("late", 0))
    page = await queries.rollouts.list("acme", "chat", after="r8", limit=2)
    assert ([rollout.id for rollout in page.items], page.next) == (["r9"], None)


async def test_after_what_is_no_rollout_nothing_comes(story: Story, queries: Queries) -> None:
    await story.tell(started("r1", "1.0.0", "2.0.0"))
    page = await queries.rollouts.list("acme", "chat", after="unheard-of")
    assert (page.items, page.next) == ([], None)
    assert (await queries.rollouts.list("acme", "other")).items == []
    assert await queries.rollouts.get("acme", "chat", "unheard-of") is None
    assert await queries.rollouts.get("acme", "other", "r1") is None


async def test_equal_ids_of_two_tenants_are_two_rollouts(pool: Pool, queries: Queries) -> None:
    log = await life()
    await project(pool, await events_of(log, await log.position()))
    for tenant, expected in {
        "acme": [("r2", "aborted"), ("r1", "aborted")],
        "beta": [("r2", "held"), ("r1", "completed")],
    }.items():
        page = await queries.rollouts.list(tenant, "chat")
        assert [(rollout.id, rollout.state) for rollout in page.items] == expected
    assert all(report.ok for report in await verify(log=log, pool=pool))


def summary(endpoint: Endpoint) -> tuple[Any, ...]:
    """What an endpoint shows of its rollout, but for the steps, which never change."""
    rollout = endpoint.rollout
    assert rollout is not None
    assert rollout.steps == STEPS
    *shown, _ = msgspec.structs.astuple(rollout)
    return tuple(shown)
