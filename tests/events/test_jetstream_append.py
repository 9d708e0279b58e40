"""An append happens once: whatever is lost, whoever leads, however late it is repeated."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import nats
import pytest
import pytest_asyncio

from events import (
    UNCHECKED,
    Append,
    AppendOutcomeUnknown,
    EntityId,
    LogUnavailable,
    Metadata,
    WrongExpectedPosition,
)
from events.codec import encode
from events.jetstream import JetStream, JetStreamLog, failures
from events.jetstream.streams import EVENTS, Declaration, ensure
from switchback.embedded import NatsServer, nats_cluster
from tests.events.answers import LostAnswers
from tests.events.examples import CHAT, FRAUD, SPAM, first, history, moved, registered, until
from tests.events.servers import ask

TINY_WINDOW = Declaration(
    name="EVENTS",
    subjects=EVENTS.subjects,
    settings={**EVENTS.settings, "duplicate_window": 100_000_000},
)


@pytest_asyncio.fixture
async def forgetful(jetstream: JetStream) -> JetStreamLog:
    """A log whose server forgets message ids after a tenth of a second."""
    await jetstream.calls.ask("STREAM.DELETE.EVENTS")
    await ensure(jetstream.calls, TINY_WINDOW, replicas=1)
    return JetStreamLog(jetstream.calls, jetstream.open_channel, TINY_WINDOW)


async def until_forgotten(jetstream: JetStream) -> None:
    """Returns when the server no longer knows a message id written after all others."""
    probe = str(uuid4())
    while True:
        answer = await jetstream.calls.request(
            "evt.probe.model.probe", b"{}", headers={"Nats-Msg-Id": probe}
        )
        if b'"duplicate"' not in answer.data and await written(jetstream, probe) > 1:
            return


async def written(jetstream: JetStream, message_id: str) -> int:
    """How often a message with this id is on the probe's subject."""
    calls, count, after = jetstream.calls, 0, 0
    body = {"next_by_subj": "evt.probe.model.probe"}
    while found := await calls.stored("EVENTS", {**body, "seq": after + 1}):
        after = found.position
        count += found.message_id == message_id
    return count


async def test_a_lost_acknowledgement_is_found_on_the_log(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = LostAnswers(jetstream.calls, count=1)
    monkeypatch.setattr(jetstream.calls, "request", answers)
    assert await jetstream.events.append(FRAUD, [registered()], expected=0) == 1
    assert answers.lost == 1
    assert await jetstream.events.position() == 1


async def test_a_lost_acknowledgement_of_a_batch_is_found_on_the_log(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = LostAnswers(jetstream.calls, count=1)
    monkeypatch.setattr(jetstream.calls, "request", answers)
    parts = [
        Append(entity=FRAUD, events=[registered(), moved("1")], expected=0),
        Append(entity=SPAM, events=[registered("spam")], expected=0),
    ]
    assert await jetstream.events.append_all(parts) == 3
    assert answers.lost == 1
    assert await jetstream.events.position() == 3


async def test_a_lost_acknowledgement_of_an_unchecked_append_does_not_double_it(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = LostAnswers(jetstream.calls, count=2)
    monkeypatch.setattr(jetstream.calls, "request", answers)
    assert await jetstream.events.append(CHAT, [moved("1")], expected=UNCHECKED) == 1
    assert answers.lost == 2
    assert await jetstream.events.position() == 1


async def test_many_lost_acknowledgements_at_once(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = LostAnswers(jetstream.calls, count=10)
    monkeypatch.setattr(jetstream.calls, "request", answers)
    positions = await asyncio.gather(
        *(
            jetstream.events.append(EntityId("acme", "model", f"m{n}"), [moved("1")], expected=0)
            for n in range(100)
        )
    )
    assert answers.lost == 10
    assert sorted(positions) == list(range(1, 101))
    assert await jetstream.events.position() == 100


async def test_an_append_repeated_after_the_dedupe_window_happens_once(
    jetstream: JetStream, forgetful: JetStreamLog
) -> None:
    one, several, together = Metadata(), Metadata(), Metadata()
    parts = [
        Append(entity=SPAM, events=[registered("spam")], expected=0),
        Append(entity=CHAT, events=[moved("1"), moved("2")], expected=0),
    ]
    assert await forgetful.append(FRAUD, [registered()], expected=0, metadata=one) == 1
    events = [moved("1"), moved("2")]
    assert await forgetful.append(FRAUD, events, expected=1, metadata=several) == 3
    assert await forgetful.append_all(parts, metadata=together) == 6
    await forgetful.append(FRAUD, [moved("3")], expected=3)
    await until_forgotten(jetstream)
    position = await forgetful.position()
    assert await forgetful.append(FRAUD, [registered()], expected=0, metadata=one) == 1
    assert await forgetful.append(FRAUD, events, expected=1, metadata=several) == 3
    assert await forgetful.append_all(parts, metadata=together) == 6
    assert await forgetful.position() == position


async def test_a_lost_race_after_the_dedupe_window_is_still_lost(
    jetstream: JetStream, forgetful: JetStreamLog
) -> None:
    await forgetful.append(FRAUD, [registered()], expected=0)
    await until_forgotten(jetstream)
    with pytest.raises(WrongExpectedPosition):
        await forgetful.append(FRAUD, [registered()], expected=0)


async def test_without_ids_a_repeated_message_is_written_twice(nats_url: str) -> None:
    """The negative control: it is the id, and not luck, that keeps appends single."""
    async with JetStream.connect(nats_url) as jetstream:
        body = encode(CHAT, moved("1"), Metadata(), 0)
        for _ in range(2):
            await jetstream.calls.request(CHAT.subject, body)
        assert len({r.position for r in await first(jetstream.events, 2)}) == 2
        assert len({r.id for r in await first(jetstream.events, 2)}) == 1


@pytest.mark.slow
async def test_an_append_repeated_after_a_change_of_leader_happens_once(
    jetstream_three: JetStream,
) -> None:
    log = jetstream_three.events
    one, several = Metadata(), Metadata()
    await log.append(FRAUD, [registered()], expected=0, metadata=one)
    await log.append(FRAUD, [moved("1"), moved("2")], expected=1, metadata=several)
    for _ in range(2):
        await jetstream_three.calls.insist_on("STREAM.LEADER.STEPDOWN.EVENTS")
        assert await log.append(FRAUD, [registered()], expected=0, metadata=one) == 1
        events = [moved("1"), moved("2")]
        assert await log.append(FRAUD, events, expected=1, metadata=several) == 3
    assert await log.position() == 3


@pytest.mark.slow
async def test_lost_acknowledgements_while_the_leader_changes(
    jetstream_three: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = LostAnswers(jetstream_three.calls, count=20)
    monkeypatch.setattr(jetstream_three.calls, "request", answers)
    appends = asyncio.gather(
        *(
            jetstream_three.events.append(
                EntityId("acme", "model", f"m{n}"), [moved("1")], expected=0
            )
            for n in range(300)
        )
    )
    await jetstream_three.calls.insist_on("STREAM.LEADER.STEPDOWN.EVENTS")
    assert sorted(await appends) == list(range(1, 301))
    assert await jetstream_three.events.position() == 300


@pytest.mark.slow
async def test_appends_outlive_the_leader_and_happen_once(tmp_path: Path) -> None:
    servers = nats_cluster(tmp_path, secret="three-servers")
    await asyncio.gather(*(server.start() for server in servers))
    url = ",".join(server.url for server in servers)
    try:
        async with JetStream.connect(url, replicas=3) as jetstream:
            info = await jetstream.calls.insist_on("STREAM.INFO.EVENTS")
            [leader] = [s for i, s in enumerate(servers, 1) if info["cluster"]["leader"] == f"n{i}"]
            commands = {EntityId("acme", "model", f"m{n}"): Metadata() for n in range(200)}
            appends = asyncio.gather(
                *(
                    jetstream.events.append(entity, [moved("1")], expected=0, metadata=command)
                    for entity, command in commands.items()
                )
            )
            leader.kill()
            positions = dict(zip(commands, await appends, strict=True))
            assert sorted(positions.values()) == list(range(1, 201))
            again = [
                await jetstream.events.append(entity, [moved("1")], expected=0, metadata=command)
                for entity, command in commands.items()
            ]
            assert again == list(positions.values())
            assert await jetstream.events.position() == 200
    finally:
        for server in servers:
            server.kill()


@pytest_asyncio.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.mark.slow
async def test_an_outcome_nobody_could_be_asked_about_is_unknown_and_may_be_repeated(
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with JetStream.connect(own_server.url) as jetstream:
        monkeypatch.setattr(failures, "INSIST_SECONDS", 0.0)
        command = Metadata()
        own_server.freeze()
        with pytest.raises(AppendOutcomeUnknown):
            await jetstream.events.append(FRAUD, [registered()], expected=0, metadata=command)
        own_server.thaw()
        monkeypatch.undo()
        append = jetstream.events.append(FRAUD, [registered()], expected=0, metadata=command)
        assert await append == 1
        assert [r.position for r in await history(jetstream.events, FRAUD)] == [1]


async def test_without_a_server_nothing_was_written(
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with JetStream.connect(own_server.url) as jetstream:
        own_server.kill()
        await until(lambda: not jetstream.connected)
        monkeypatch.setattr(failures, "INSIST_SECONDS", 0.0)
        with pytest.raises(LogUnavailable) as unavailable:
            await jetstream.events.append(FRAUD, [registered()], expected=0)
        assert not isinstance(unavailable.value, AppendOutcomeUnknown)


@pytest.mark.slow
async def test_an_acknowledged_append_survives_kill_9(own_server: NatsServer) -> None:
    async with JetStream.connect(own_server.url) as jetstream:
        acknowledged: list[int] = []

        async def appender(worker: int) -> None:
            with contextlib.suppress(LogUnavailable):
                for n in range(10_000):
                    entity = EntityId("acme", "model", f"m{worker}-{n}")
                    acknowledged.append(
                        await jetstream.events.append(entity, [moved("1")], expected=0)
                    )

        workers = [asyncio.create_task(appender(worker)) for worker in range(30)]
        for _ in range(3):
            goal = len(acknowledged) + 200
            await until(lambda: len(acknowledged) >= goal)  # noqa: B023 - awaited in this turn
            own_server.kill()
            await own_server.start()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        last = await jetstream.events.position()
        positions = [r.position for r in await first(jetstream.events, last)]
        assert len(set(acknowledged)) == len(acknowledged)
        assert set(acknowledged) <= set(positions)
        assert positions == list(range(1, last + 1))


async def test_a_message_carries_its_id_its_type_and_nothing_it_does_not_need(
    nats_url: str,
) -> None:
    async with JetStream.connect(nats_url) as jetstream:
        command = Metadata()
        await jetstream.events.append(CHAT, [moved("1")], expected=UNCHECKED, metadata=command)
        client = await nats.connect(nats_url)
        found = await ask(client, "STREAM.MSG.GET.EVENTS", {"seq": 1})
        await client.close()
        assert set(found["message"]) == {"subject", "seq", "hdrs", "data", "time"}
        stored = await jetstream.calls.last_on("EVENTS", CHAT.subject)
        assert stored is not None
        lines = [line.partition(":")[0] for line in stored.headers.split("\r\n")[1:] if line]
        assert lines == ["Nats-Msg-Id", "Content-Type"]
        assert stored.message_id == str(command.event_id(0))


async def test_traffic_goes_to_its_own_stream(jetstream: JetStream) -> None:
    windows = EntityId("acme", "traffic", "chat")
    with pytest.raises(ValueError, match="TRAFFIC"):
        await jetstream.traffic.append(FRAUD, [registered()], expected=0)
    with pytest.raises(ValueError, match="EVENTS"):
        await jetstream.events.append(windows, [registered()], expected=UNCHECKED)
    assert await jetstream.traffic.append(windows, [registered()], expected=UNCHECKED) == 1
    assert [r.entity for r in await first(jetstream.traffic, 1, "obs.>")] == [windows]
    assert await jetstream.events.position() == 0
