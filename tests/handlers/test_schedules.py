"""Rules by time: every gateway changes over at the boundary, by its table and the clock alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from events.catalogue.endpoints import Policy, Rule, When
from handlers.questions import Questions
from tests.handlers.asking import SECRET, FakeExecutor, Rig, answers
from tests.handlers.world import World, opened

PARIS = ZoneInfo("Europe/Paris")
NIGHT = Rule(
    name="night",
    when=When(from_="22:00", to="06:00", timezone="Europe/Paris"),
    split={"2.0.0": 1.0},
)
MILLISECOND = timedelta(milliseconds=1)


@pytest_asyncio.fixture
async def world():
    async with opened() as found:
        await found.register("1.0.0", "2.0.0")
        await found.create("1.0.0")
        await found.set_policy(Policy(split={"1.0.0": 100.0}, rules=(NIGHT,)))
        yield found


@pytest.mark.parametrize(
    ("boundary", "before", "after"),
    [
        (datetime(2026, 11, 2, 22, 0, tzinfo=PARIS), "1.0.0", "2.0.0"),
        (datetime(2026, 11, 3, 6, 0, tzinfo=PARIS), "2.0.0", "1.0.0"),
        # The night in which clocks go forward lasts seven hours, the other one nine.
        (datetime(2026, 3, 29, 6, 0, tzinfo=PARIS), "2.0.0", "1.0.0"),
        (datetime(2026, 10, 25, 6, 0, tzinfo=PARIS), "2.0.0", "1.0.0"),
    ],
)
async def test_gateways_change_over_at_the_same_instant_without_an_event(
    world: World, boundary: datetime, before: str, after: str
):
    rigs = [Rig(world, FakeExecutor(**{"1.0.0": answers, "2.0.0": answers})) for _ in range(3)]
    position = await world.log.position()
    questions = Questions(
        log=world.log, routing=world.routing, receipt_secret=SECRET, now=world.now
    )
    for moment, version in ((boundary - MILLISECOND, before), (boundary, after)):
        rule = "night" if version == "2.0.0" else None
        for rig in rigs:
            rig.clock.at = moment.timestamp()
            done = await rig.infer()
            assert (done.version, done.rule) == (version, rule)
            explained = await questions.explain_receipt("acme", receipt=done.receipt)
            assert (explained.valid, explained.rule) == (True, rule)
    assert await world.log.position() == position
