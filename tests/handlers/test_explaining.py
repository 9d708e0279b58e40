"""Why a request went where it went: by a key at a time, by a position, by a receipt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
import pytest_asyncio

from engine.decisions import endpoint
from engine.routing import Receipt, decide_route, receipt_for, sign
from events import InvalidIdentifier
from events.catalogue.endpoints import Policy, Rule, When
from handlers.questions import KeyDoesNotDecide, NoSuchEndpoint, Questions, ReceiptInvalid
from tests.handlers.world import CHAT, World, opened

SECRET = b"the secret of this installation."
HOUR = timedelta(hours=1)
OFFICE = Rule(name="office", when=When(from_="09:00", to="17:00"), split={"2.0.0": 1.0})


@pytest_asyncio.fixture
async def world():
    async with opened() as found:
        await found.register("1.0.0", "2.0.0", "3.0.0")
        yield found


def asking(world: World) -> Questions:
    return Questions(log=world.log, routing=world.routing, receipt_secret=SECRET, now=world.now)


async def version_at(world: World, at: int | datetime | None, key: str = "user-1") -> str:
    explained = await asking(world).explain_key(
        "acme", endpoint="chat", key=key, attributes={}, at=at
    )
    return explained.version


async def moves(world: World) -> dict[str, tuple[int, datetime]]:
    """One move an hour: where and when."""
    found: dict[str, tuple[int, datetime]] = {}
    found["1.0.0"] = (await world.create("1.0.0"), world.now())
    for number, version in enumerate(("2.0.0", "3.0.0")):
        world.now.at += HOUR
        found[version] = (await world.move(version, f"s{number}"), world.now())
    return found


async def test_a_key_is_explained_by_the_policy_of_that_time(world: World):
    for version, (position, moment) in (await moves(world)).items():
        assert await version_at(world, moment) == version
        assert await version_at(world, moment + HOUR / 2) == version
        assert await version_at(world, position) == version
    assert await version_at(world, None) == "3.0.0"


async def test_the_event_that_made_it_so_is_named(world: World):
    _, (position, moment), _ = (await moves(world)).values()
    explained = await asking(world).explain_key(
        "acme", endpoint="chat", key="user-1", attributes={}, at=position + 1
    )
    [made] = [r async for r in world.log.read(CHAT) if r.position == position]
    assert explained.event is not None
    assert explained.event.id == str(made.id)
    assert explained.event.type == "switchback.endpoint.swap_completed.v1"
    assert (explained.event.time, explained.event.actor) == (moment, "test")
    assert (explained.position, explained.valid) == (position, None)


async def test_before_the_endpoint_there_is_no_answer(world: World):
    created, moment = (await moves(world))["1.0.0"]
    for at in (created - 1, 0, moment - timedelta(microseconds=1)):
        with pytest.raises(NoSuchEndpoint):
            await version_at(world, at)
    with pytest.raises(NoSuchEndpoint):
        await asking(world).explain_key(
            "globex", endpoint="chat", key="user-1", attributes={}, at=None
        )


async def test_a_rule_by_time_is_explained_at_the_time_asked_about(world: World):
    world.now.at = datetime(2026, 3, 2, 8, tzinfo=UTC)
    await world.create("1.0.0")
    position = await world.set_policy(Policy(split={"1.0.0": 1.0}, rules=(OFFICE,)))
    day = datetime(2026, 3, 3, tzinfo=UTC)
    assert await version_at(world, day + 8 * HOUR) == "1.0.0"
    assert await version_at(world, day + 9 * HOUR) == "2.0.0"
    assert await version_at(world, position) == "1.0.0"
    world.now.at = day + 10 * HOUR
    assert await version_at(world, None) == "2.0.0"
    assert await version_at(world, datetime(9999, 12, 31, 23, tzinfo=UTC)) == "1.0.0"


async def test_a_time_in_another_zone_is_the_same_moment(world: World):
    _, (_, moment), _ = (await moves(world)).values()
    assert await version_at(world, moment.astimezone(ZoneInfo("Asia/Tokyo"))) == "2.0.0"


async def test_a_policy_that_is_not_sticky_decides_by_no_key(world: World):
    await world.create("1.0.0")
    await world.set_policy(Policy(split={"1.0.0": 1.0, "2.0.0": 1.0}, sticky=False))
    with pytest.raises(KeyDoesNotDecide):
        await version_at(world, None)


async def test_clocks_that_differ_leave_no_hole_in_a_history(world: World):
    created = world.now()
    await world.create("1.0.0")
    deadline = created + HOUR
    request = endpoint.RequestSwap(
        swap_id="s1", to="2.0.0", deadline=deadline, registered=frozenset({"2.0.0"})
    )
    await world.do(CHAT, request, at=created + timedelta(seconds=5))
    done = endpoint.CompleteSwap(swap_id="s1", resident=frozenset({"2.0.0"}))
    await world.do(CHAT, done, at=created + timedelta(seconds=4))
    between = await asking(world).endpoint_at(
        "acme", endpoint="chat", at=created + timedelta(seconds=4.5)
    )
    assert (between.active, between.swap) == ("1.0.0", None)
    after = await asking(world).endpoint_at(
        "acme", endpoint="chat", at=created + timedelta(seconds=5)
    )
    assert after.active == "2.0.0"
    assert await version_at(world, created + timedelta(seconds=4.5)) == "1.0.0"


# ---- receipts


def receipt(world: World, **changes: object) -> Receipt:
    """Of a decision that was really made, unless changed."""
    table = world.routing.routes["acme", "chat"].table
    now_ms = int(world.now().timestamp() * 1_000)
    decision = decide_route(table, "user-1", now_ms, {})
    made = receipt_for(decision, tenant="acme", endpoint="chat", now_ms=now_ms, request_id="r1")
    return msgspec.structs.replace(made, **changes)


async def test_a_receipt_explains_itself_also_after_the_policy_has_changed(world: World):
    await moves(world)
    text = sign(receipt(world), SECRET)
    await world.do(CHAT, endpoint.RollBack())
    explained = await asking(world).explain_receipt("acme", receipt=text)
    assert (explained.version, explained.valid) == ("3.0.0", True)


CHANGES = {
    "version": {"version": "1.0.0"},
    "rule": {"rule": "office"},
    "bucket": {"bucket": -1},
    "bucket beyond the last": {"bucket": 2**40},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
async def test_a_receipt_that_tells_of_another_decision_is_not_valid_though_it_is_signed(
    world: World, changes: dict[str, object]
):
    await moves(world)
    text = sign(receipt(world, **changes), SECRET)
    explained = await asking(world).explain_receipt("acme", receipt=text)
    assert explained.valid is False
    assert explained.version == "3.0.0"


async def test_a_receipt_of_an_earlier_event_than_the_one_that_set_the_policy_is_not_valid(
    world: World,
):
    found = await moves(world)
    position, _ = found["2.0.0"]
    text = sign(receipt(world, position=position + 1), SECRET)
    explained = await asking(world).explain_receipt("acme", receipt=text)
    assert explained.valid is False
    assert explained.version == "2.0.0"


async def test_a_forged_receipt_is_recomputed_and_not_valid(world: World):
    await moves(world)
    text = sign(receipt(world), b"another secret")
    explained = await asking(world).explain_receipt("acme", receipt=text)
    assert (explained.version, explained.valid) == ("3.0.0", False)


async def test_a_receipt_of_a_fallback_tells_who_answered_and_instead_of_whom(world: World):
    await world.create("1.0.0")
    await world.set_policy(Policy(split={"1.0.0": 1.0}, fallback=("2.0.0", "3.0.0")))
    text = sign(receipt(world, version="3.0.0", instead_of="1.0.0"), SECRET)
    await world.set_policy(Policy(split={"1.0.0": 1.0}))
    explained = await asking(world).explain_receipt("acme", receipt=text)
    assert (explained.version, explained.instead_of) == ("3.0.0", "1.0.0")
    assert explained.valid is True
    assert explained.event.type == "switchback.endpoint.policy_set.v1"


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        ({"version": "3.0.0", "instead_of": "1.0.0"}, SECRET),
        ({"version": "2.0.0", "instead_of": "3.0.0"}, SECRET),
        ({"version": "2.0.0", "instead_of": "1.0.0"}, b"another secret"),
    ],
    ids=["no fallback", "not the chosen version", "forged"],
)
async def test_a_fallback_that_is_not_proved_is_not_told(
    world: World, changes: dict[str, object], secret: bytes
):
    await world.create("1.0.0")
    await world.set_policy(Policy(split={"1.0.0": 1.0}, fallback=("2.0.0",)))
    text = sign(receipt(world, **changes), secret)
    explained = await asking(world).explain_receipt("acme", receipt=text)
    assert (explained.version, explained.instead_of) == ("1.0.0", None)
    assert explained.valid is False


async def test_an_endpoint_shows_its_fallbacks_as_they_were(world: World):
    await world.create("1.0.0")
    first = await world.set_policy(Policy(split={"1.0.0": 1.0}, fallback=("3.0.0", "2.0.0")))
    await world.set_policy(Policy(split={"1.0.0": 1.0}))
    questions = asking(world)
    then = await questions.endpoint_at("acme", endpoint="chat", at=first)
    now = await questions.endpoint_at("acme", endpoint="chat")
    assert (then.policy.fallback, now.policy.fallback) == (("3.0.0", "2.0.0"), ())


@pytest.mark.parametrize("time_ms", [-(2**63), -1, 0, 2**62, 2**64 - 1])
async def test_a_forged_time_has_an_answer(world: World, time_ms: int):
    await world.create("1.0.0")
    await world.set_policy(Policy(split={"1.0.0": 1.0}, rules=(OFFICE,)))
    text = sign(receipt(world, time_ms=time_ms), b"another secret")
    assert (await asking(world).explain_receipt("acme", receipt=text)).valid is False


@pytest.mark.parametrize("position", [0, -1])
async def test_a_receipt_from_before_the_endpoint_has_none(world: World, position: int):
    await world.create("1.0.0")
    text = sign(receipt(world, position=position), SECRET)
    with pytest.raises(NoSuchEndpoint):
        await asking(world).explain_receipt("acme", receipt=text)


@pytest.mark.parametrize("secret", [SECRET, b"another secret"])
async def test_a_receipt_of_another_tenant_tells_nothing(world: World, secret: bytes):
    await world.create("1.0.0")
    text = sign(receipt(world), secret)
    with pytest.raises(NoSuchEndpoint):
        await asking(world).explain_receipt("globex", receipt=text)
    theirs = sign(receipt(world, tenant="globex"), secret)
    with pytest.raises(NoSuchEndpoint):
        await asking(world).explain_receipt("acme", receipt=theirs)


async def test_an_endpoint_that_could_widen_a_subject_is_refused(world: World):
    await world.create("1.0.0")
    for name in ("*", "chat.>", "", "x" * 500):
        text = sign(receipt(world, endpoint=name), b"another secret")
        with pytest.raises((NoSuchEndpoint, InvalidIdentifier)):
            await asking(world).explain_receipt("acme", receipt=text)


@pytest.mark.parametrize("text", ["", "a", "not a receipt", "A" * 2_000, "=" * 8, "\ud800"])
async def test_a_text_that_is_no_receipt_is_refused(world: World, text: str):
    with pytest.raises(ReceiptInvalid) as refused:
        await asking(world).explain_receipt("acme", receipt=text)
    assert set(refused.value.fields) == {"receipt"}


async def test_lists_as_of_a_moment_hold_what_there_was(world: World):
    found = await moves(world)
    created, moment = found["1.0.0"]
    questions = asking(world)
    for at, names in ((created, ["chat"]), (created - 1, []), (moment - HOUR, [])):
        listed = await questions.endpoints_at("acme", at=at, after="", limit=10)
        assert [each.name for each in listed] == names
    assert await questions.endpoints_at("acme", at=created, after="chat", limit=10) == []
    assert await questions.endpoints_at("globex", at=created, after="", limit=10) == []
