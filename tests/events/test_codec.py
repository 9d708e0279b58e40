"""What was ever written can be read, and what is not an event is refused with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import EntityId, MalformedEvent, Metadata, codec
from events.catalogue import AGGREGATES, BY_TYPE
from events.catalogue.endpoints import Comparison, PolicySet
from events.catalogue.models import AliasMoved, Artifact, VersionRegistered
from events.catalogue.traffic import ShadowWindow, Units, WindowObserved
from events.event import Event
from events.upcasts import UPCASTS
from tests.events.examples import FRAUD, moved
from tests.events.strategies import event_strategy

GOLDEN = Path(__file__).parent / "golden"
MESSAGES = sorted(path.stem for path in GOLDEN.glob("*.json"))
"""`<type>`, or `<type>.<what it shows>` of a type that gained members after the first."""


def type_of(name: str) -> str:
    """The type of a golden message: its name up to the version."""
    matched = re.match(r"(.*\.v[0-9]+)(\.[a-z]+)?\Z", name)
    assert matched is not None, name
    return matched[1]


WRITTEN = {type_of(name) for name in MESSAGES}


def golden(name: str) -> tuple[bytes, str]:
    """A message as it was once written, and its subject."""
    body = (GOLDEN / f"{name}.json").read_bytes()
    envelope = json.loads(body)
    aggregate, _, id = envelope["subject"].partition("/")
    tenant = envelope["source"].removeprefix("/switchback/")
    return body, EntityId(tenant, aggregate, id).subject


def test_there_is_a_golden_message_of_every_type() -> None:
    missing = (BY_TYPE.keys() | UPCASTS.keys()) - set(MESSAGES)
    assert not missing, f"add tests/events/golden/<type>.json for {sorted(missing)}"


def test_no_type_that_was_ever_written_is_forgotten() -> None:
    forgotten = WRITTEN - BY_TYPE.keys() - UPCASTS.keys()
    assert not forgotten, f"these need an upcast: {sorted(forgotten)}"


@pytest.mark.parametrize("name", [name for name in MESSAGES if type_of(name) in BY_TYPE])
def test_a_golden_message_reads_and_writes_the_same(name: str) -> None:
    body, subject = golden(name)
    recorded = codec.decode(body, position=7, subject=subject)
    assert type(recorded.event) is BY_TYPE[type_of(name)]
    assert json.loads(codec.encode_message(recorded)) == json.loads(body)
    assert codec.decode_line(codec.encode_recorded(recorded), position=1) == recorded


@pytest.mark.parametrize("name", [name for name in MESSAGES if type_of(name) in UPCASTS])
def test_a_golden_message_of_an_old_type_reads_as_a_present_one(name: str) -> None:
    body, subject = golden(name)
    assert type(codec.decode(body, position=7, subject=subject).event) in BY_TYPE.values()


def test_the_first_version_registered_reads_with_its_artifact() -> None:
    body, subject = golden("switchback.model.version_registered.v1")
    assert codec.decode(body, position=7, subject=subject).event == VersionRegistered(
        version="0.9.0",
        runtime="python",
        config={"factory": "fraud:load"},
        artifact=Artifact(
            uri="file:///artifacts/fraud",
            sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            size_bytes=1234,
        ),
        parent="fraud@0.8.0",
    )


def test_a_window_from_before_units_and_shadows_reads_without() -> None:
    body, subject = golden("switchback.traffic.window_observed.v1")
    window = codec.decode(body, position=7, subject=subject).event
    assert isinstance(window, WindowObserved)
    assert (window.policy, window.shadows) == (0, {})
    assert [version.units for version in window.versions.values()] == [Units(), Units()]


def test_a_window_reads_with_its_units_and_shadows() -> None:
    body, subject = golden("switchback.traffic.window_observed.v1.units")
    window = codec.decode(body, position=7, subject=subject).event
    assert isinstance(window, WindowObserved)
    assert window.policy == 41
    assert window.versions["1.0.0"].units == Units(seen=120, errors=2, timeouts=1, slow=3)
    assert window.shadows["4.0.0"] == ShadowWindow(mirrored=0, dropped=9)


def test_a_shadow_from_before_comparisons_is_compared_exactly() -> None:
    body, subject = golden("switchback.endpoint.policy_set.v1")
    policy = codec.decode(body, position=7, subject=subject).event
    assert isinstance(policy, PolicySet)
    assert {shadow.compare for shadow in policy.policy.shadow} == {Comparison(kind="exact")}


def test_an_old_version_without_artifact_reads_without() -> None:
    type_, data = UPCASTS["switchback.model.version_registered.v1"](
        {"version": "0.1.0", "runtime": "echo"}
    )
    assert msgspec.convert(data, BY_TYPE[type_]) == VersionRegistered(
        version="0.1.0", runtime="echo"
    )


def test_upcasts_end_at_present_types() -> None:
    for old in UPCASTS:
        assert old not in BY_TYPE
        body, _ = golden(old)
        type_, data = old, json.loads(body)["data"]
        while type_ in UPCASTS:
            type_, data = UPCASTS[type_](data)
        assert type_ in BY_TYPE


def test_every_type_is_named_after_its_aggregate() -> None:
    for aggregate, events in AGGREGATES.items():
        for event in events:
            assert event.type.split(".")[:2] == ["switchback", aggregate]
            assert event.type.rpartition(".v")[2].isdigit()
    assert len(BY_TYPE) == sum(len(events) for events in AGGREGATES.values())


@given(st.one_of([event_strategy(event) for event in BY_TYPE.values()]))
def test_every_event_survives_the_codec(event: Event) -> None:
    metadata = Metadata()
    body = codec.encode(FRAUD, event, metadata, 3)
    recorded = codec.decode(body, position=7, subject=FRAUD.subject)
    assert recorded.event == event
    assert (recorded.id, recorded.time) == (metadata.event_id(3), metadata.time)
    assert codec.encode_message(recorded) == body
    line = codec.encode_recorded(recorded)
    assert b"\n" not in line
    assert codec.decode_line(line, position=1) == recorded


@given(st.binary())
def test_no_bytes_break_the_codec(body: bytes) -> None:
    with pytest.raises(MalformedEvent):
        codec.decode(body, position=1, subject=FRAUD.subject)
    with pytest.raises(MalformedEvent):
        codec.decode_line(body, position=1)


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda envelope: envelope.pop(name)


def _with(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda envelope: envelope.__setitem__(name, value)


@pytest.mark.parametrize(
    "spoil",
    [
        _with("specversion", "0.3"),
        _without("specversion"),
        _without("id"),
        _with("id", "not a uuid"),
        _without("source"),
        _without("actor"),
        _without("data"),
        _with("data", None),
        _with("data", {}),
        _with("data", {"alias": 1, "to_version": "1"}),
        _with("datacontenttype", "text/plain"),
        _with("time", "yesterday"),
        _with("type", "switchback.model.unheard_of.v1"),
        _with("type", "switchback.model.alias_moved.v99"),
        _with("type", "com.example.order.created"),
        _with("source", "/switchback/globex"),
        _with("source", "/elsewhere/acme"),
        _with("subject", "model/spam"),
        _with("subject", "endpoint/fraud"),
    ],
)
def test_a_spoilt_message_is_refused_where_it_stands(
    spoil: Callable[[dict[str, Any]], None],
) -> None:
    envelope = json.loads(codec.encode(FRAUD, moved("1"), Metadata(), 0))
    spoil(envelope)
    with pytest.raises(MalformedEvent) as refused:
        codec.decode(json.dumps(envelope).encode(), position=7, subject=FRAUD.subject)
    assert (refused.value.position, refused.value.subject) == (7, FRAUD.subject)
    assert refused.value.reason


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"1", b'"x"', b"{}", b'{"hello":"world"}', b"\xff\xfe", b"{" * 999],
)
def test_foreign_messages_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedEvent):
        codec.decode(body, position=1, subject=FRAUD.subject)


@pytest.mark.parametrize(
    "subject", ["", "evt.acme", "evt.acme.model.fraud.x", "x.acme.model.fraud"]
)
def test_a_message_on_no_entitys_subject_is_refused(subject: str) -> None:
    body = codec.encode(FRAUD, moved("1"), Metadata(), 0)
    with pytest.raises(MalformedEvent):
        codec.decode(body, position=1, subject=subject)


def test_a_later_writers_optional_members_are_passed_over() -> None:
    envelope = json.loads(codec.encode(FRAUD, moved("1"), Metadata(), 0))
    envelope["dataschema"] = "https://example.test/schema"
    envelope["data"]["added_later"] = True
    recorded = codec.decode(json.dumps(envelope).encode(), position=1, subject=FRAUD.subject)
    assert recorded.event == AliasMoved(alias="live", to_version="1")


def test_a_message_is_a_cloud_event() -> None:
    metadata = Metadata(actor="key:k1")
    envelope = json.loads(codec.encode(FRAUD, moved("1"), metadata, 0))
    assert envelope == {
        "specversion": "1.0",
        "id": str(metadata.event_id(0)),
        "source": "/switchback/acme",
        "type": "switchback.model.alias_moved.v1",
        "subject": "model/fraud",
        "time": metadata.time.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "actor": "key:k1",
        "correlationid": str(metadata.command_id),
        "data": {"alias": "live", "to_version": "1"},
    }
