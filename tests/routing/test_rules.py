"""Rules: first match wins; attributes; windows of local time, with both daylight-saving changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.routing import PolicyInvalid, Table, decide_route
from tests.routing.policies import local_ms, table

PARIS, NEW_YORK, LORD_HOWE = "Europe/Paris", "America/New_York", "Australia/Lord_Howe"
MINUTE_MS = 60_000


def ruled(**when: Any) -> Table:
    """Version 2 when the condition holds, else version 1."""
    return table(
        split={"1": 1},
        rules=[{"name": "the rule", "when": when, "split": {"2": 1}}],
    )


def matches(compiled: Table, now_ms: int, **attributes: str) -> bool:
    decision = decide_route(compiled, "anyone", now_ms, attributes)
    assert (decision.rule, decision.version) in {("the rule", "2"), (None, "1")}
    return decision.rule is not None


def open_times(compiled: Table, zone: str, day: str) -> list[str]:
    """The changes between shut and open in 36 hours from a local midnight, as the clock shows them
    with its distance from UTC."""
    start = local_ms(zone, f"{day}T00:00")
    changes, was = [], False
    for now_ms in range(start, start + 36 * 60 * MINUTE_MS, MINUTE_MS):
        now = matches(compiled, now_ms)
        if now != was:
            shown = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(zone))
            changes.append(f"{shown:%d %H:%M%z}")
        was = now
    return changes


# ------------------------------------------------------------------------------------ Windows


def test_from_is_inclusive_and_to_exclusive_to_the_millisecond() -> None:
    office = ruled(**{"from": "09:00", "to": "17:00"}, timezone=PARIS)
    opens, closes = local_ms(PARIS, "2027-06-01T09:00"), local_ms(PARIS, "2027-06-01T17:00")
    assert not matches(office, opens - 1)
    assert matches(office, opens)
    assert matches(office, closes - 1)
    assert not matches(office, closes)


def test_without_a_zone_times_are_utc() -> None:
    assert open_times(ruled(**{"from": "09:00", "to": "17:00"}), "UTC", "2027-06-01") == [
        "01 09:00+0000",
        "01 17:00+0000",
        "02 09:00+0000",
    ]


def test_days_alone_are_whole_local_days() -> None:
    mondays = ruled(days=["mon"], timezone=NEW_YORK)  # 1 February 2027 is a Monday
    assert open_times(mondays, NEW_YORK, "2027-02-01") == ["01 00:00-0500", "02 00:00-0500"]
    assert open_times(mondays, NEW_YORK, "2027-01-31") == ["01 00:00-0500"]
    assert open_times(mondays, NEW_YORK, "2027-02-02") == []


def test_a_window_across_midnight_belongs_to_the_day_it_starts_on() -> None:
    night = ruled(days=["fri"], **{"from": "22:00", "to": "06:00"}, timezone=PARIS)
    thursday, friday, saturday = "2027-06-03", "2027-06-04", "2027-06-05"
    assert open_times(night, PARIS, thursday) == []
    assert open_times(night, PARIS, friday) == ["04 22:00+0200", "05 06:00+0200"]
    assert open_times(night, PARIS, saturday) == ["05 00:00+0200", "05 06:00+0200"]


def test_a_window_to_midnight_ends_with_its_day() -> None:
    evening = ruled(days=["fri"], **{"from": "22:00", "to": "00:00"}, timezone=PARIS)
    assert open_times(evening, PARIS, "2027-06-04") == ["04 22:00+0200", "05 00:00+0200"]


def test_from_alone_lasts_until_midnight_and_to_alone_begins_there() -> None:
    assert open_times(ruled(**{"from": "22:00"}), "UTC", "2027-06-04")[:2] == [
        "04 22:00+0000",
        "05 00:00+0000",
    ]
    assert open_times(ruled(to="02:00"), "UTC", "2027-06-04")[:2] == [
        "04 00:00+0000",
        "04 02:00+0000",
    ]


def test_from_equal_to_to_is_twenty_four_hours() -> None:
    day = ruled(days=["fri"], **{"from": "06:00", "to": "06:00"})
    assert open_times(day, "UTC", "2027-06-04") == ["04 06:00+0000", "05 06:00+0000"]


@pytest.mark.parametrize(
    ("zone", "day", "before", "after"),
    [
        (PARIS, "2027-03-28", "+0100", "+0200"),  # 02:00 -> 03:00
        (PARIS, "2027-10-31", "+0200", "+0100"),  # 03:00 -> 02:00
        (NEW_YORK, "2027-03-14", "-0500", "-0400"),  # 02:00 -> 03:00
        (NEW_YORK, "2027-11-07", "-0400", "-0500"),  # 02:00 -> 01:00
        (LORD_HOWE, "2027-10-03", "+1030", "+1100"),  # 02:00 -> 02:30
        (LORD_HOWE, "2027-04-04", "+1100", "+1030"),  # 02:00 -> 01:30
    ],
)
def test_office_hours_keep_their_local_time_through_a_change(
    zone: str, day: str, before: str, after: str
) -> None:
    month_day = day[-2:]
    assert (
        f"{datetime.fromtimestamp(local_ms(zone, f'{day}T00:00') / 1000, ZoneInfo(zone)):%z}"
        == (before)
    )
    assert open_times(ruled(**{"from": "09:00", "to": "17:00"}, timezone=zone), zone, day)[:2] == [
        f"{month_day} 09:00{after}",
        f"{month_day} 17:00{after}",
    ]


@pytest.mark.parametrize(
    ("zone", "day", "from_", "to", "changes"),
    [
        # Clocks go forward: skipped times do not come.
        (PARIS, "2027-03-28", "02:30", "04:00", ["28 03:00+0200", "28 04:00+0200"]),
        (PARIS, "2027-03-28", "01:30", "02:30", ["28 01:30+0100", "28 03:00+0200"]),
        (PARIS, "2027-03-28", "02:15", "02:45", []),
        (NEW_YORK, "2027-03-14", "02:30", "04:00", ["14 03:00-0400", "14 04:00-0400"]),
        (NEW_YORK, "2027-03-14", "02:00", "03:00", []),
        (LORD_HOWE, "2027-10-03", "02:15", "04:00", ["03 02:30+1100", "03 04:00+1100"]),
        (LORD_HOWE, "2027-10-03", "02:00", "02:30", []),
        # Clocks go back: repeated times come twice.
        (
            PARIS,
            "2027-10-31",
            "02:15",
            "02:45",
            ["31 02:15+0200", "31 02:45+0200", "31 02:15+0100", "31 02:45+0100"],
        ),
        (
            PARIS,
            "2027-10-31",
            "01:00",
            "02:30",
            ["31 01:00+0200", "31 02:30+0200", "31 02:00+0100", "31 02:30+0100"],
        ),
        (PARIS, "2027-10-31", "01:00", "04:00", ["31 01:00+0200", "31 04:00+0100"]),
        (
            NEW_YORK,
            "2027-11-07",
            "01:30",
            "01:45",
            ["07 01:30-0400", "07 01:45-0400", "07 01:30-0500", "07 01:45-0500"],
        ),
        (
            LORD_HOWE,
            "2027-04-04",
            "01:30",
            "01:45",
            ["04 01:30+1100", "04 01:45+1100", "04 01:30+1030", "04 01:45+1030"],
        ),
    ],
)
def test_windows_at_a_change_follow_the_wall_clock(
    zone: str, day: str, from_: str, to: str, changes: list[str]
) -> None:
    window = ruled(**{"from": from_, "to": to}, timezone=zone)
    month_day = day[-2:]
    assert [c for c in open_times(window, zone, day) if c.startswith(month_day)] == changes


@pytest.mark.parametrize(
    ("zone", "saturday", "closes"),
    [
        (PARIS, "2027-03-27", "28 03:00+0200"),  # the night has no 02:30 to close at
        (PARIS, "2027-10-30", "31 02:30+0200"),
    ],
)
def test_a_night_through_a_change_belongs_to_the_evening_before(
    zone: str, saturday: str, closes: str
) -> None:
    night = ruled(days=["sat"], **{"from": "22:00", "to": "02:30"}, timezone=zone)
    opens, first_close = open_times(night, zone, saturday)[:2]
    assert (opens[3:8], first_close) == ("22:00", closes)


def test_every_zone_is_whole_minutes_from_utc_since_1973() -> None:
    """What makes an answer good for a whole minute of the epoch."""
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        for year in range(1973, 2060):
            for month in (1, 7):
                offset = datetime(year, month, 1, tzinfo=UTC).astimezone(zone).utcoffset()
                assert offset is not None
                assert offset.total_seconds() % 60 == 0, name


@given(st.lists(st.integers(1_800_000_000_000, 1_800_600_000_000), min_size=1, max_size=20))
def test_what_was_asked_before_does_not_change_an_answer(moments: list[int]) -> None:
    when = {"days": ["mon", "wed"], "from": "22:10", "to": "06:20", "timezone": PARIS}
    used = ruled(**when)
    assert [matches(used, now) for now in moments] == [
        matches(ruled(**when), now) for now in moments
    ]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"])
@pytest.mark.parametrize("now_ms", [-(2**63), -1, 253_402_300_799_999, 2**63 - 1, 2**64 - 1])
def test_a_moment_outside_every_calendar_still_has_an_answer(zone: str, now_ms: int) -> None:
    assert matches(
        ruled(days=["mon", "tue", "wed", "thu", "fri", "sat", "sun"], timezone=zone), now_ms
    )


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "Europe", "UTC\0"])
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        ruled(timezone=zone, **{"from": "09:00", "to": "17:00"})
    assert caught.value.field == "rules[0].when.timezone"


@pytest.mark.parametrize("time", ["24:00", "9:00", "09:60", "0900", "٠٩:٠٠", "09:00\n"])
def test_a_time_that_does_not_exist_is_refused(time: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        ruled(**{"from": time, "to": "17:00"})
    assert caught.value.field == "rules[0].when.from"


# ---------------------------------------------------------------------------------- Attributes


def test_all_attributes_of_a_rule_must_be_equal() -> None:
    beta = ruled(attributes={"tier": "beta", "region": "eu"})
    assert matches(beta, 0, tier="beta", region="eu", more="x")
    assert not matches(beta, 0, tier="beta")
    assert not matches(beta, 0, tier="beta", region="us")
    assert not matches(beta, 0, tier="Beta", region="eu")
    assert not matches(beta, 0)


def test_a_rule_with_a_window_and_attributes_needs_both() -> None:
    both = ruled(attributes={"tier": "beta"}, **{"from": "09:00", "to": "17:00"})
    noon, midnight = local_ms("UTC", "2027-06-01T12:00"), local_ms("UTC", "2027-06-01T00:00")
    assert matches(both, noon, tier="beta")
    assert not matches(both, midnight, tier="beta")
    assert not matches(both, noon, tier="free")


def test_a_rule_without_conditions_always_matches() -> None:
    assert matches(ruled(), 0)


def test_the_first_rule_that_matches_wins() -> None:
    compiled = table(
        split={"1": 1},
        rules=[
            {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {"2": 1}},
            {"name": "eu", "when": {"attributes": {"region": "eu"}}, "split": {"3": 1}},
        ],
    )

    def rule(**attributes: str) -> str | None:
        return decide_route(compiled, "k", 0, attributes).rule

    assert rule(tier="beta", region="eu") == "beta"
    assert rule(region="eu") == "eu"
    assert rule(region="us") is None


def test_a_rule_name_that_occurs_twice_is_refused() -> None:
    rule = {"name": "x", "when": {}, "split": {"1": 1}}
    with pytest.raises(PolicyInvalid) as caught:
        table(split={"1": 1}, rules=[rule, rule])
    assert caught.value.field == "rules[1]"
