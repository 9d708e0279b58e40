"""The wire between a gateway and the nodes that serve a version."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from events.errors import ReaderTooSlow, RemoteFailure, ServerDied
from handlers.executions import (
    BusExecutor,
    DeadlineExceeded,
    Executed,
    Execution,
    InferenceFailed,
    NodeDied,
    NotServed,
    RequestRefused,
    RequestTimedOut,
    VersionFailed,
    VersionOverloaded,
    VersionUnavailable,
    cancel_subject_of,
    decode_execution,
    encode_reply,
    failed,
    subject_of,
)
from tests.handlers.fakes import FakeBus
from tests.handlers.world import ref

EXECUTION = Execution(inputs=[1, "two"], parameters={"t": 0.5}, timeout_s=5.0)


async def serving(bus: FakeBus, version: str, handler: Any) -> None:
    await bus.serve(subject_of(ref(version)), handler, queue="nodes")


async def test_the_bus_carries_a_request_and_its_answer():
    bus = FakeBus()

    async def handler(_subject: str, payload: bytes) -> bytes:
        got = decode_execution(payload)
        assert got == EXECUTION
        return encode_reply(Executed(outputs={"sum": got.inputs}, runtime_ms=2.5))

    await serving(bus, "1.0.0-rc.1+b.5", handler)
    executed = await BusExecutor(bus).execute(ref("1.0.0-rc.1+b.5"), EXECUTION)
    assert executed == Executed(outputs={"sum": [1, "two"]}, runtime_ms=2.5)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("overloaded", NotServed),
        ("unavailable", NotServed),
        ("internal", VersionFailed),
    ],
)
async def test_what_the_bus_says_decides_whether_another_node_is_asked(code: str, error):
    bus = FakeBus()

    async def handler(subject: str, payload: bytes) -> bytes:
        raise RemoteFailure(subject, code, "as the test wants it")

    await serving(bus, "1.0.0", handler)
    with pytest.raises(error, match="as the test wants it"):
        await BusExecutor(bus).execute(ref("1.0.0"), EXECUTION)


@pytest.mark.parametrize(
    "failure",
    [
        NotServed("not here"),
        DeadlineExceeded("too late"),
        RequestTimedOut("it allowed no more"),
        VersionFailed("its code\nraised"),
        VersionUnavailable("gone"),
        VersionUnavailable("left alone", retry_after_s=12.5),
        VersionOverloaded("busy", retry_after_s=2.5),
        RequestRefused("is empty", field="prompt"),
        RequestRefused("too long", field="prompt", openai_code="context_length_exceeded"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_failure_at_a_node_is_the_same_failure_at_the_gateway(failure: InferenceFailed):
    bus = FakeBus()

    async def handler(_subject: str, _payload: bytes) -> bytes:
        return encode_reply(failed(failure))

    await serving(bus, "1.0.0", handler)
    with pytest.raises(type(failure)) as raised:
        await BusExecutor(bus).execute(ref("1.0.0"), EXECUTION)
    assert str(raised.value) == str(failure)
    assert vars(raised.value) == vars(failure)


async def test_without_a_server_or_a_connection_nothing_was_executed():
    bus = FakeBus()
    with pytest.raises(NotServed):
        await BusExecutor(bus).execute(ref("1.0.0"), EXECUTION)
    bus.away = True
    with pytest.raises(NotServed):
        await BusExecutor(bus).execute(ref("1.0.0"), EXECUTION)


async def test_a_stream_that_is_read_too_slowly_is_nobodys_failure_but_the_readers():
    class SlowlyRead(FakeBus):
        async def stream(self, subject: str, payload: bytes, *, timeout_s: float) -> Any:
            raise ReaderTooSlow(subject, 10_000)
            yield b""

    with pytest.raises(RequestTimedOut, match="slowly"):
        await anext(BusExecutor(SlowlyRead()).stream(ref("1.0.0"), EXECUTION))


async def test_a_node_that_does_not_answer_in_time_is_a_deadline():
    bus = FakeBus()

    async def never(_subject: str, _payload: bytes) -> bytes:
        return await asyncio.Future()

    await serving(bus, "1.0.0", never)
    execution = Execution(inputs=None, parameters={}, timeout_s=0.01)
    with pytest.raises(DeadlineExceeded):
        await BusExecutor(bus).execute(ref("1.0.0"), execution)


def test_no_two_versions_share_a_subject_and_none_adds_a_token():
    versions = ["1.0.0", "1.0.0-rc.1", "1.0.0-rc-1", "1.0.0+1", "1.0.0-1", "10.0.0", "1.00.0"]
    subjects = [subject_of(ref(version)) for version in versions]
    assert len(set(subjects)) == len(versions)
    assert {subject.count(".") for subject in subjects} == {3}


async def test_a_node_that_falls_silent_has_died_and_is_told_that_nobody_waits_should_it_not_have():
    bus = FakeBus()
    told: list[bytes] = []

    async def silent(subject: str, _payload: bytes) -> bytes:
        raise ServerDied(subject, 60.0)

    await serving(bus, "1.0.0", silent)
    await bus.listen(cancel_subject_of(ref("1.0.0")), lambda _, payload: told.append(payload))
    execution = Execution(inputs=None, parameters={}, timeout_s=60.0, request_id="r1")
    with pytest.raises(NodeDied):
        await BusExecutor(bus).execute(ref("1.0.0"), execution)
    assert told == [b"r1"]
