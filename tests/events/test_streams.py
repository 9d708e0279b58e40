"""Streams are what their declarations say, or nothing runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import nats
import pytest

from events.errors import LogUnavailable, StreamMismatch
from events.jetstream import JetStream, connection
from events.jetstream.connection import server_urls
from events.jetstream.streams import EVENTS, TIMERS, TRAFFIC, differences, leases
from switchback.embedded import NatsServer, free_port
from tests.events.servers import ask, delete_stream


async def test_streams_are_created_from_their_declarations(nats_url: str) -> None:
    async with JetStream.connect(nats_url, replicas=1) as jetstream:
        for declaration in (EVENTS, TRAFFIC, TIMERS, leases(ttl_s=3.0)):
            info = await jetstream.calls.insist_on(f"STREAM.INFO.{declaration.name}")
            assert differences(declaration, info["config"]) == {}


async def test_connecting_again_changes_nothing(nats_url: str) -> None:
    async with JetStream.connect(nats_url) as jetstream:
        before = await jetstream.calls.insist_on("STREAM.INFO.EVENTS")
    async with JetStream.connect(nats_url) as jetstream:
        after = await jetstream.calls.insist_on("STREAM.INFO.EVENTS")
    assert (before["created"], before["config"]) == (after["created"], after["config"])


async def test_many_may_connect_to_an_empty_server_at_once(nats_url: str) -> None:
    async def connect() -> None:
        async with JetStream.connect(nats_url):
            pass

    await asyncio.gather(*(connect() for _ in range(8)))


async def test_a_stream_whose_place_on_disk_was_not_free_is_made_a_moment_later(
    tmp_path: Path,
) -> None:
    """The server refuses, and clears the place."""
    async with NatsServer(tmp_path / "nats") as server:
        place = tmp_path / "nats" / "store" / "jetstream" / "$G" / "streams" / "EVENTS"
        place.parent.mkdir(parents=True)
        place.touch()
        async with JetStream.connect(server.url) as jetstream:
            assert await jetstream.events.position() == 0
        assert place.is_dir()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("deny_delete", False),
        ("deny_purge", False),
        ("allow_atomic", False),
        ("allow_direct", False),
        ("allow_msg_ttl", True),
        ("allow_msg_schedules", True),
        ("allow_rollup_hdrs", True),
        ("max_age", 3_600_000_000_000),
        ("max_msgs", 1_000),
        ("max_bytes", 1_000_000),
        ("max_msgs_per_subject", 10),
        ("duplicate_window", 1_000_000_000),
        ("discard", "new"),
        ("storage", "memory"),
        ("subjects", ["evt.acme.>"]),
        ("compression", "s2"),
        ("republish", {"src": "evt.>", "dest": "copy.>"}),
    ],
)
async def test_a_stream_that_differs_is_refused_by_name(
    nats_url: str, setting: str, value: Any
) -> None:
    config = {name: v for name, v in EVENTS.config().items() if v is not None}
    # The server does not allow some settings together; the rest of the declaration gives way.
    if setting in ("allow_msg_schedules", "allow_rollup_hdrs"):
        config["deny_purge"] = False
    client = await nats.connect(nats_url)
    made = await ask(client, "STREAM.CREATE.EVENTS", {**config, setting: value})
    await client.close()
    assert "error" not in made, made
    with pytest.raises(StreamMismatch) as refused:
        async with JetStream.connect(nats_url):
            raise AssertionError("connected")
    assert refused.value.stream == "EVENTS"
    assert setting in refused.value.differences
    assert setting in str(refused.value)


async def test_the_number_of_replicas_is_compared_when_it_is_given(nats_url: str) -> None:
    async with JetStream.connect(nats_url):
        pass
    with pytest.raises(StreamMismatch) as refused:
        async with JetStream.connect(nats_url, replicas=3):
            raise AssertionError("connected")
    assert refused.value.differences == {"num_replicas": (3, 1)}


async def test_a_lease_bucket_with_another_time_is_refused(nats_url: str) -> None:
    async with JetStream.connect(nats_url, lease_ttl_s=3.0):
        pass
    with pytest.raises(StreamMismatch) as refused:
        async with JetStream.connect(nats_url, lease_ttl_s=5.0):
            raise AssertionError("connected")
    assert "max_age" in refused.value.differences


async def test_the_log_can_be_neither_purged_nor_pruned(nats_url: str) -> None:
    async with JetStream.connect(nats_url):
        client = await nats.connect(nats_url)
        purged = await ask(client, "STREAM.PURGE.EVENTS")
        deleted = await ask(client, "STREAM.MSG.DELETE.EVENTS", {"seq": 1})
        await client.close()
    assert "error" in purged
    assert "error" in deleted


async def test_a_stream_deleted_while_nobody_looks_is_made_again_empty(nats_url: str) -> None:
    async with JetStream.connect(nats_url):
        pass
    await delete_stream(nats_url, "EVENTS")
    async with JetStream.connect(nats_url) as jetstream:
        assert await jetstream.events.position() == 0


async def test_no_server_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_CONNECTION_SECONDS", 0.3)
    with pytest.raises(LogUnavailable):
        async with JetStream.connect(f"nats://127.0.0.1:{free_port()}"):
            raise AssertionError("connected")


async def test_wrong_credentials_are_unavailable(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FIRST_CONNECTION_SECONDS", 0.3)
    wrong = "nats://switchback:wrong@" + nats_url.rpartition("@")[2]
    with pytest.raises(LogUnavailable, match=r"(?i)auth"):
        async with JetStream.connect(wrong):
            raise AssertionError("connected")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://a:1", ["nats://a:1"]),
        ("nats://u:p@a:1,b:2", ["nats://u:p@a:1", "nats://u:p@b:2"]),
        ("tls://a:1,b:2", ["tls://a:1", "tls://b:2"]),
        ("nats://u:p@a:1,nats://v:q@b:2", ["nats://u:p@a:1", "nats://v:q@b:2"]),
        ("nats://u:p@a:1,v:q@b:2", ["nats://u:p@a:1", "nats://v:q@b:2"]),
    ],
)
def test_an_address_may_name_several_servers(url: str, expected: list[str]) -> None:
    assert server_urls(url) == expected
