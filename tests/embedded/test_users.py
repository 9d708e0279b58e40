"""The servers of a root user and of one without rights."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from switchback.embedded import PostgresServer
from tests.embedded.conftest import Owner, servers_of

# The interpreter and the wheels may lie below a directory that only root enters.
AS_NOBODY = (
    *("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"),
    *("--securebits", "+no_setuid_fixup"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A directory of a user without rights, and how to become that user."""
    directory = tmp_path / "private"
    directory.mkdir(mode=0o700)
    if os.geteuid() != 0:
        yield directory, ()
        return
    shutil.chown(directory, "nobody", "nogroup")
    yield directory, AS_NOBODY


@pytest.mark.slow
async def test_all_servers_run_as_a_user_without_rights(
    unprivileged: tuple[Path, tuple[str, ...]], start_owner: Owner
) -> None:
    directory, prefix = unprivileged
    owner = start_owner(directory, prefix=prefix)
    servers = await asyncio.to_thread(servers_of, owner)
    uid = directory.stat().st_uid
    assert uid != 0
    assert {psutil.Process(pid).uids().real for pid, _ in servers.values()} == {uid}
    connection = await asyncpg.connect(servers["postgres"][1])
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    owner.communicate(timeout=30)
    assert owner.returncode == 0


async def test_postgres_never_runs_as_root_and_may_pass_directories_but_not_write(
    postgres_server: PostgresServer,
) -> None:
    process = psutil.Process(postgres_server.pid)
    expected = os.geteuid() or pwd.getpwnam("nobody").pw_uid
    assert set(process.uids()) == {expected}
    assert _effective_capabilities(process.pid) in (
        0,
        1 << 2,
    )  # nothing, or CAP_DAC_READ_SEARCH alone


def _effective_capabilities(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("CapEff:")[2].split()[0], 16)
