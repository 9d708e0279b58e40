"""Language versions in the process that is asked, while the servers and the model's process die."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import psutil
import pytest
import pytest_asyncio

from events.catalogue.traffic import WindowObserved
from switchback.client import Client
from switchback.settings import Settings
from tests.cli.running import Up
from tests.faults.conftest import SETTLE_SECONDS, Rig, rigged
from tests.faults.roles import models_below
from tests.faults.streams import STREAMS, answered, begun
from tests.scenarios.language import ENDPOINT, FRANCE, Facts, facts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
CLIENTS_LEAVING = 200
ENDLESS: dict[str, Any] = {"max_tokens": 4_000, "ignore_eos": True}
LONG: dict[str, Any] = {"max_tokens": 100, "ignore_eos": True}
SHORT: dict[str, Any] = {"max_tokens": 20, "ignore_eos": True}
BRIEF: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True}
"""Done within the time that a process has to finish, also on a machine with much else to do."""
SLOWLY = {"rehearsal": {"step_ms": 10.0}}


@pytest_asyncio.fixture(scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Facts]:
    """On servers that nobody kills."""
    async with rigged(tmp_path_factory.mktemp("rig")) as rig, facts(rig, **SLOWLY) as asked:
        yield asked


@pytest_asyncio.fixture
async def asked(standing: Facts) -> AsyncIterator[Facts]:
    """On which nothing is left in the end."""
    yield standing
    await nothing_is_left(standing)


async def nothing_is_left(asked: Facts) -> None:
    while await code_of(asked.ask()) is not None:
        pass
    assert (await asked.until_idle())["kv_blocks_used"] == 0
    worker = asked.system.process.worker
    assert worker is not None
    while any(entry.leases for entry in worker._residency._entries.values()):
        await asked.statistics()


def models(asked: Facts, name: str = "facts-2") -> list[psutil.Process]:
    """The processes that compute this one."""
    found = models_below(psutil.Process().pid)
    return [each for each in found if name in " ".join(each.cmdline())]


async def code_of(answering: Any) -> str | None:
    """What it failed with, or None."""
    try:
        await answering
    except openai.APIError as error:
        assert isinstance(error.body, dict), error
        return str(error.body["code"])
    return None


async def test_a_models_process_that_is_killed_fails_all_it_had_and_comes_back(asked: Facts):
    streams = await begun(asked, **ENDLESS)
    whole = [asyncio.create_task(code_of(asked.ask(**ENDLESS))) for _ in range(STREAMS)]
    await asked.when(lambda told: told["num_requests_running"] == 2 * STREAMS)
    [model] = models(asked)
    model.kill()
    codes = await asyncio.gather(*(stream.end() for stream in streams), *whole)
    assert codes == ["runtime_failed"] * 2 * STREAMS
    while await code_of(asked.ask()) is not None:
        pass
    [again] = models(asked)
    assert again.pid != model.pid


async def test_what_has_a_fallback_is_answered_when_its_process_is_killed(asked: Facts):
    """Whole answers have not begun, and go on elsewhere; streams have, and fail."""
    client = asked.system.client
    await asked.register("3.0.0", builtin="facts-1")
    await client.set_policy(ENDPOINT, {"split": {"2.0.0": 100}, "fallback": ["3.0.0"]})
    [model] = models(asked)
    streams = await begun(asked, **ENDLESS)
    whole = [asyncio.create_task(code_of(asked.ask(**LONG))) for _ in range(STREAMS)]
    await asked.when(lambda told: told["num_requests_running"] == 2 * STREAMS)
    model.kill()
    codes = await asyncio.gather(*(stream.end() for stream in streams))
    assert codes == ["runtime_failed"] * STREAMS
    assert await asyncio.gather(*whole) == [None] * STREAMS
    await client.set_policy(ENDPOINT, {"split": {"2.0.0": 100}})


async def test_chats_go_on_without_servers_and_what_they_used_is_told_later(rig: Rig):
    """The node's lease runs out meanwhile."""
    async with facts(rig, **SLOWLY) as asked:
        streams = await begun(asked, max_tokens=300, ignore_eos=True)
        rig.postgres.kill()
        rig.redis.kill()
        rig.nats.freeze()
        [(_, tokens)] = set(await asyncio.gather(*(stream.end() for stream in streams)))
        assert tokens == 300
        more = await asyncio.gather(*(asked.ask(**LONG) for _ in range(STREAMS)))
        [(_, tokens)] = {answered(answer) for answer in more}
        assert tokens == 100
        rig.nats.kill()
        assert await asked.text()
        await asyncio.gather(rig.nats.start(), rig.postgres.start(), rig.redis.start())
        assert await tokens_told(rig) >= STREAMS * (300 + 100)
        assert all(report.ok for report in await rig.verified())
        await nothing_is_left(asked)


async def tokens_told(rig: Rig) -> int:
    """Of all windows, once everything that was asked is in them."""
    async with asyncio.timeout(SETTLE_SECONDS):
        requests = tokens = 0
        subject = f"obs.*.traffic.{ENDPOINT}"
        async for recorded in rig.process.jetstream.traffic.subscribe(subject):
            assert isinstance(recorded.event, WindowObserved)
            seen = recorded.event.versions.values()
            requests += sum(each.requests for each in seen)
            tokens += sum(each.tokens for each in seen)
            if requests >= 2 * STREAMS + 1:
                break
    return tokens


async def test_streams_survive_a_gateway_that_stands_still_for_a_second(asked: Facts):
    streams = await begun(asked, **LONG)
    time.sleep(1.0)  # noqa: ASYNC251 - so that nothing in this process moves
    [(_, tokens)] = set(await asyncio.gather(*(stream.end() for stream in streams)))
    assert tokens == 100


async def connected(asked: Facts, **parameters: Any) -> tuple[asyncio.StreamReader, Any]:
    """A socket on which a stream was asked for; the kernel keeps little for it."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    plain.setblocking(False)
    host, _, port = asked.system.url.removeprefix("http://").partition(":")
    await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=plain, limit=4_096)
    body = json.dumps({"model": ENDPOINT, "prompt": FRANCE, "stream": True, **parameters}).encode()
    lines = (
        "POST /v1/completions HTTP/1.1",
        "Host: switchback",
        f"Authorization: Bearer {asked.system.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    writer.write("\r\n".join((*lines, "", "")).encode() + body)
    await writer.drain()
    return reader, writer


async def test_two_hundred_clients_that_vanish_leave_nothing_behind(asked: Facts):
    async def vanish(number: int) -> None:
        reader, writer = await connected(asked, **ENDLESS)
        if number % 2:
            await reader.readuntil(b"data:")
        if number % 4 < 2:
            writer.transport.abort()
        else:
            writer.close()

    before = (await asked.until_idle())["requests_ended"]
    await asyncio.gather(*map(vanish, range(CLIENTS_LEAVING)))
    after = (await asked.until_idle())["requests_ended"]
    cancelled = after.pop("cancelled") - before.pop("cancelled", 0)
    assert CLIENTS_LEAVING // 2 <= cancelled <= CLIENTS_LEAVING
    assert after == before, "nothing was computed to its end"


async def test_a_reader_that_never_reads_disturbs_nobody(asked: Facts):
    _, silent = await connected(asked, n=8, max_tokens=300, ignore_eos=True)
    await asked.when(lambda told: told["num_requests_running"] == 8)
    before = psutil.Process().memory_info().rss
    assert len({await asked.text(**SHORT) for _ in range(3)}) == 1
    await asked.until_idle()
    assert psutil.Process().memory_info().rss < before + 64 * 2**20
    silent.close()


async def test_a_client_that_closes_its_half_has_left(asked: Facts):
    before = (await asked.until_idle())["requests_ended"].get("cancelled", 0)
    reader, writer = await connected(asked, **ENDLESS)
    await reader.readuntil(b"data:")
    writer.write_eof()
    await asked.when(lambda told: told["requests_ended"].get("cancelled", 0) == before + 1)
    assert b"[DONE]" not in await reader.read()
    writer.close()


async def test_an_up_that_is_told_to_stop_finishes_its_streams(tmp_path: Path):
    up = await asyncio.to_thread(Up, tmp_path)
    try:
        key, url = up.credentials.key, up.credentials.url
        async with Client.connect(url, key=key) as client:
            here = Elsewhere(settings=Settings(data_dir=tmp_path), client=client, url=url, key=key)
            async with facts(here, **SLOWLY) as asked:  # type: ignore[arg-type]
                streams = await begun(asked, **BRIEF)
                stopping = asyncio.create_task(asyncio.to_thread(up.stop))
                [(_, tokens)] = set(await asyncio.gather(*(stream.end() for stream in streams)))
        assert tokens == 60
        assert await stopping == 0
    finally:
        await asyncio.to_thread(up.kill)


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """A system of which this process has only the address."""

    settings: Settings
    client: Client
    url: str
    key: str
