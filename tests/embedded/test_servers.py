"""What each server promises beyond being there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import asyncpg
import msgspec
import nats
import nats.errors
import psutil
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from switchback.embedded import (
    NatsServer,
    PostgresServer,
    RedisServer,
    ServerFailed,
    nats_cluster,
    postgres,
)
from switchback.embedded.processtree import tree

NEVER = Retry(NoBackoff(), 0)


async def test_nats_is_told_to_sync_every_write(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        written = msgspec.json.decode((server.directory / "nats.json").read_bytes())
        assert written["jetstream"]["sync_interval"] == "always"


async def test_every_server_of_a_nats_cluster_is_told_to_sync_every_write(tmp_path: Path) -> None:
    for server in nats_cluster(tmp_path, secret="shared"):
        server.directory.mkdir(parents=True)
        server._prepare()
        written = msgspec.json.decode((server.directory / "nats.json").read_bytes())
        assert written["jetstream"]["sync_interval"] == "always"


async def test_nats_refuses_a_client_without_the_password(nats_server: NatsServer) -> None:
    address = f"nats://127.0.0.1:{nats_server.identity.port}"

    async def refused(error: Exception) -> None:
        assert "authorization" in str(error).lower()

    with pytest.raises((nats.errors.Error, OSError)):
        await nats.connect(address, allow_reconnect=False, error_cb=refused)


async def test_d01_postgres_connects_and_is_version_18(postgres_server: PostgresServer) -> None:
    connection = await asyncpg.connect(postgres_server.url)
    assert connection.get_server_version().major == 18
    await connection.close()


async def test_d02_the_vector_extension_is_present_and_finds_the_nearest(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("CREATE EXTENSION vector")
    await connection.execute("CREATE TABLE points (at vector(2))")
    await connection.execute("INSERT INTO points VALUES ('[0,0]'), ('[3,4]')")
    distances = await connection.fetch("SELECT at <-> '[0,0]' AS d FROM points ORDER BY d")
    assert [row["d"] for row in distances] == [0.0, 5.0]
    await connection.close()


@pytest.mark.slow
async def test_postgres_checks_its_pages_and_syncs_its_commits(tmp_path: Path) -> None:
    async with PostgresServer(tmp_path / "postgres") as server:
        connection = await asyncpg.connect(server.url)
        names = ("data_checksums", "fsync", "full_page_writes", "synchronous_commit")
        shown = [await connection.fetchval(f"SHOW {name}") for name in names]
        assert shown == ["on"] * len(names)
        await connection.close()


async def test_postgres_refuses_a_wrong_password(postgres_server: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres_server.url, password="wrong")


async def test_redis_refuses_a_client_without_the_password(redis_server: RedisServer) -> None:
    async with Redis(host="127.0.0.1", port=redis_server.identity.port, retry=NEVER) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()


@pytest.mark.slow
async def test_an_initdb_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    unfinished = tmp_path / "data.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")  # the first file that initdb writes
    async with PostgresServer(tmp_path) as server:
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    assert not unfinished.exists()
    assert not (tmp_path / "password").exists()


async def test_an_initdb_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    server = PostgresServer(tmp_path)
    (tmp_path / "identity.json").write_text('{"port": 1, "secret": ""}')  # an empty password file
    with pytest.raises(ServerFailed, match=r"initdb failed[\s\S]*password"):
        await server.start()
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
async def test_postgres_waits_for_the_last_session_of_a_killed_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_attached = threading.Event()
    attached = postgres._attached

    def observed(lock_file: list[str]) -> bool:
        if attached(lock_file):
            found_attached.set()
            return True
        return False

    monkeypatch.setattr(postgres, "_attached", observed)
    server = PostgresServer(tmp_path)
    await server.start()
    connection = await asyncpg.connect(server.url)
    session = await connection.fetchval("SELECT pg_backend_pid()")
    [process] = [found for found in tree(server.pid) if found.pid == session]
    process.suspend()  # a session that does not notice that its server is gone
    assert server._process is not None
    server._process.kill()  # the server alone, not its sessions
    server._process.wait()
    server.kill()
    starting = asyncio.create_task(server.start())
    try:
        assert await asyncio.to_thread(found_attached.wait, 20)
        assert not starting.done()
        process.kill()
        await starting
        assert server.running
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        connection.terminate()
        await asyncio.wait({starting})
        await server.stop()


@pytest.mark.slow
async def test_a_frozen_postgres_answers_nobody_and_goes_on_when_thawed(tmp_path: Path) -> None:
    async with PostgresServer(tmp_path) as server:
        connection = await asyncpg.connect(server.url)
        server.freeze()
        query = asyncio.create_task(connection.fetchval("SELECT 7"))
        states = {process.status() for process in tree(server.pid)}
        assert states == {"stopped"}
        server.thaw()
        assert await query == 7
        await connection.close()
