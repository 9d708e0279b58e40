"""Every kind of server: started, killed, started again, left behind, side by side."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import psutil
import pytest

from switchback.embedded import (
    NatsServer,
    PostgresServer,
    RedisServer,
    Server,
    ServerFailed,
)
from switchback.embedded.processtree import ProcessMark, tree
from tests.embedded.clients import read, write
from tests.embedded.conftest import Owner, servers_of


@pytest.mark.slow
async def test_after_kill_9_a_server_comes_back_on_its_port_with_its_data(
    tmp_path: Path, kind: type[Server]
) -> None:
    async with kind(tmp_path / "server") as server:
        url = server.url
        await write(server, "before the crash")
        server.kill()
        assert not server.running
    async with kind(tmp_path / "server") as again:
        assert again.url == url
        expected = None if kind is RedisServer else "before the crash"  # Redis is a cache
        assert await read(again) == expected


@pytest.mark.slow
async def test_after_a_clean_stop_a_server_comes_back_on_its_port_with_its_data(
    tmp_path: Path, kind: type[Server]
) -> None:
    async with kind(tmp_path / "server") as server:
        url = server.url
        await write(server, "before the stop")
    assert not server.running
    async with kind(tmp_path / "server") as again:
        assert again.url == url
        expected = None if kind is RedisServer else "before the stop"
        assert await read(again) == expected


@pytest.mark.slow
async def test_killing_the_owner_takes_its_servers_along(
    tmp_path: Path, start_owner: Owner
) -> None:
    owner = start_owner(tmp_path)
    processes = [found for pid, _ in servers_of(owner).values() for found in tree(pid)]
    assert len(processes) > 3  # Postgres is several
    owner.kill()
    _, alive = psutil.wait_procs(processes, timeout=20)
    survivors = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    for process in survivors:
        process.kill()
    assert survivors == []


async def test_a_server_that_an_earlier_owner_left_behind_is_stopped_first(
    tmp_path: Path, kind: type[Server]
) -> None:
    earlier = kind(tmp_path / "server")
    await earlier.start()
    left_behind = ProcessMark.of(earlier.pid)
    earlier._lock.release()  # what the kernel does when the owner dies; the server lives on
    async with kind(tmp_path / "server") as server:
        assert not left_behind.alive()
        assert server.url == earlier.url
        assert server.running
    earlier.kill()


async def test_a_process_that_only_has_the_same_id_as_an_earlier_server_is_left_alone(
    tmp_path: Path,
) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    mark = ProcessMark.of(stranger.pid)
    (tmp_path / "process.json").write_text(
        f'{{"pid": {mark.pid}, "boot_id": "{mark.boot_id}", "start_ticks": 1}}'
    )
    async with RedisServer(tmp_path):
        assert mark.alive()
    stranger.kill()
    await stranger.wait()


@pytest.mark.slow
async def test_a_second_owner_is_refused_and_disturbs_nothing(
    tmp_path: Path, start_owner: Owner
) -> None:
    owner = start_owner(tmp_path)
    marks = [ProcessMark.of(pid) for pid, _ in servers_of(owner).values()]
    for kind in (NatsServer, PostgresServer, RedisServer):
        with pytest.raises(ServerFailed, match="in use by another process"):
            await kind(tmp_path / kind.name).start()
    assert all(mark.alive() for mark in marks)


@pytest.mark.slow
async def test_two_instances_run_side_by_side(tmp_path: Path, kind: type[Server]) -> None:
    async with kind(tmp_path / "one") as one, kind(tmp_path / "two") as two:
        await write(one, "one")
        await write(two, "two")
        assert (await read(one), await read(two)) == ("one", "two")
        assert one.identity.secret != two.identity.secret


@pytest.mark.slow
async def test_spaces_quotes_and_letters_of_other_alphabets_in_the_path(
    tmp_path: Path, kind: type[Server]
) -> None:
    async with kind(tmp_path / 'a "dir" \\ with späces') as server:
        await write(server, "kept")
        assert await read(server) == "kept"


async def test_a_directory_that_only_its_owner_may_enter(
    tmp_path: Path, kind: type[Server]
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    async with kind(private / "server") as server:
        assert server.running
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


async def test_files_with_credentials_are_readable_by_the_owner_alone(
    tmp_path: Path, kind: type[Server]
) -> None:
    async with kind(tmp_path) as server:
        secret = server.identity.secret.encode()
        modes = _modes_of_files_holding(secret, tmp_path)
        assert "identity.json" in modes
        assert set(modes.values()) == {0o600}


async def test_a_port_taken_by_another_program_fails_the_start_with_the_reason(
    tmp_path: Path, kind: type[Server]
) -> None:
    async with RedisServer(tmp_path / "other") as other:
        server = kind(tmp_path / "server")
        port = other.identity.port
        server.directory.mkdir()
        (server.directory / "identity.json").write_text(f'{{"port": {port}, "secret": "x"}}')
        with pytest.raises(ServerFailed, match=r"(?i)address already in use"):
            await server.start()
        assert not server.running
        assert other.running


async def test_a_start_that_is_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    class NeverReady(RedisServer):
        async def _ready(self) -> bool:
            raise ConnectionError("gave up")

    server = NeverReady(tmp_path)
    with pytest.raises(ConnectionError):
        await server.start()
    assert not server.running
    async with RedisServer(tmp_path) as next_owner:
        assert next_owner.running


def _modes_of_files_holding(secret: bytes, directory: Path) -> dict[str, int]:
    files = [path for path in directory.iterdir() if path.is_file()]
    holding = [path for path in files if secret in path.read_bytes()]
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in holding}
