"""D01 to D09: the connection pool, on a real Postgres."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from projections import (
    CommitOutcomeUnknown,
    DatabaseRefused,
    DatabaseTimeout,
    DatabaseUnavailable,
    Pool,
    PoolSettings,
)
from switchback.embedded import PostgresServer


@pytest_asyncio.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    async with Pool(PoolSettings(dsn=postgres_dsn)) as pool:
        yield pool


@pytest_asyncio.fixture
async def numbers(pool: Pool) -> Pool:
    await pool.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
    return pool


@pytest_asyncio.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    async with PostgresServer(tmp_path / "postgres") as server:
        yield server


async def count(pool: Pool) -> int:
    return int((await pool.fetch("SELECT count(*) FROM numbers"))[0][0])


async def test_d01_connect(pool: Pool) -> None:
    rows = await pool.fetch("SELECT current_setting('application_name') AS name, $1::int AS n", 7)
    assert [tuple(row.values()) for row in rows] == [("switchback", 7)]


async def test_d01_a_pool_opens_without_a_server_and_says_so_when_used() -> None:
    settings = PoolSettings(dsn="postgresql://nobody:x@127.0.0.1:1/none", connect_timeout_s=1.0)
    async with Pool(settings) as pool:
        with pytest.raises(DatabaseUnavailable):
            await pool.fetch("SELECT 1")


async def test_d02_the_vector_extension_is_present(pool: Pool) -> None:
    await pool.execute("CREATE EXTENSION vector")
    rows = await pool.fetch("SELECT '[1,2,3]'::vector <-> '[1,2,5]'::vector AS distance")
    assert rows[0]["distance"] == 2.0


async def test_d03_forty_callers_at_once_share_the_connections(postgres_dsn: str) -> None:
    async with Pool(PoolSettings(dsn=postgres_dsn, size_max=40)) as pool:
        together = asyncio.Barrier(40)

        async def hold(number: int) -> tuple[int, int]:
            async with pool.acquire() as connection:
                await together.wait()
                pid = await connection.fetchval("SELECT pg_backend_pid()")
                return number, pid

        answers = await asyncio.gather(*(hold(number) for number in range(40)))
    assert [number for number, _ in answers] == list(range(40))
    assert len({pid for _, pid in answers}) == 40


@pytest.mark.slow
async def test_d04_recovers_after_the_server_is_killed_and_started_again(
    own_server: PostgresServer,
) -> None:
    async with Pool(PoolSettings(dsn=own_server.url, size_min=5)) as pool:
        await asyncio.gather(*(pool.fetch("SELECT 1") for _ in range(5)))
        own_server.kill()
        with pytest.raises(DatabaseUnavailable):
            await pool.fetch("SELECT 1")
        await own_server.start()
        answers = await asyncio.gather(*(pool.fetch("SELECT 1 AS n") for _ in range(20)))
    assert [rows[0]["n"] for rows in answers] == [1] * 20


async def test_d04_connections_closed_while_idle_are_replaced(pool: Pool) -> None:
    pids = await asyncio.gather(*(_pid(pool) for _ in range(5)))
    async with pool.acquire() as other:
        await other.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    after = await asyncio.gather(*(_pid(pool) for _ in range(5)))
    assert len(after) == 5
    assert set(after) != set(pids)


async def test_d05_twenty_workers_of_ten_queries(pool: Pool) -> None:
    async def work(worker: int) -> list[int]:
        return [
            (await pool.fetch("SELECT $1::int AS n", worker * 10 + query))[0]["n"]
            for query in range(10)
        ]

    answers = await asyncio.gather(*(work(worker) for worker in range(20)))
    assert [n for answer in answers for n in answer] == list(range(200))


async def test_d06_a_rollback_leaves_nothing(numbers: Pool) -> None:
    with pytest.raises(ZeroDivisionError):
        async with numbers.transaction() as connection:
            await connection.execute("INSERT INTO numbers VALUES (1)")
            raise ZeroDivisionError
    assert await count(numbers) == 0


async def test_d06_a_cancelled_transaction_leaves_nothing_and_the_pool_works(
    numbers: Pool,
) -> None:
    inserted = asyncio.Event()

    async def insert() -> None:
        async with numbers.transaction() as connection:
            await connection.execute("INSERT INTO numbers VALUES (1)")
            inserted.set()
            await connection.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(insert())
    await inserted.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert await count(numbers) == 0


async def test_d06_a_refused_statement_says_why(numbers: Pool) -> None:
    await numbers.execute("INSERT INTO numbers VALUES (1)")
    with pytest.raises(DatabaseRefused, match="duplicate key") as refused:
        async with numbers.transaction() as connection:
            await connection.execute("INSERT INTO numbers VALUES (2), (1)")
    assert refused.value.sqlstate == "23505"
    assert refused.value.about_data
    assert await count(numbers) == 1


async def test_d07_a_commit_is_visible_to_others(numbers: Pool) -> None:
    async with numbers.transaction() as connection:
        await connection.execute("INSERT INTO numbers VALUES (1)")
        assert await count(numbers) == 0
    assert await count(numbers) == 1


async def test_d07_a_connection_lost_before_commit_means_not_committed(numbers: Pool) -> None:
    with pytest.raises(DatabaseUnavailable) as lost:
        async with numbers.transaction() as connection:
            await connection.execute("INSERT INTO numbers VALUES (1)")
            await _terminate(numbers, await connection.fetchval("SELECT pg_backend_pid()"))
            await connection.execute("INSERT INTO numbers VALUES (2)")
    assert not isinstance(lost.value, CommitOutcomeUnknown)
    assert await count(numbers) == 0


async def test_d07_a_connection_lost_at_commit_is_an_unknown_outcome(numbers: Pool) -> None:
    """A deferred trigger ends the backend inside COMMIT itself."""
    await numbers.execute(
        """
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END $$;
        """
    )
    await numbers.execute(
        "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON numbers"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()"
    )
    with pytest.raises(CommitOutcomeUnknown):
        async with numbers.transaction() as connection:
            await connection.execute("INSERT INTO numbers VALUES (1)")
    assert await count(numbers) == 0


async def test_d08_ten_writers_without_conflict(numbers: Pool) -> None:
    async def write(writer: int) -> None:
        for index in range(10):
            async with numbers.transaction() as connection:
                await connection.execute("INSERT INTO numbers VALUES ($1)", writer * 10 + index)

    await asyncio.gather(*(write(writer) for writer in range(10)))
    rows = await numbers.fetch("SELECT n FROM numbers ORDER BY n")
    assert [row["n"] for row in rows] == list(range(100))


async def test_d09_a_slow_statement_is_a_clear_time_out_and_is_ended(pool: Pool) -> None:
    with pytest.raises(DatabaseTimeout, match=r"query took longer than 0\.05 s"):
        await pool.fetch("SELECT pg_sleep(60)", timeout_s=0.05)
    running = (
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state='active'"
    )
    while await pool.fetch(running):
        pass


async def test_d09_waiting_for_a_connection_is_a_clear_time_out(postgres_dsn: str) -> None:
    settings = PoolSettings(dsn=postgres_dsn, size_max=1, acquire_timeout_s=0.05)
    async with Pool(settings) as pool, pool.acquire():
        with pytest.raises(DatabaseTimeout, match=r"waiting for a connection took longer"):
            await pool.fetch("SELECT 1")


async def test_d09_a_frozen_server_is_a_clear_time_out(own_server: PostgresServer) -> None:
    settings = PoolSettings(dsn=own_server.url, statement_timeout_s=0.2, connect_timeout_s=0.5)
    async with Pool(settings) as pool:
        await pool.fetch("SELECT 1")
        backend = await _pid(pool)
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseTimeout):
                await pool.fetch("SELECT 1")
        finally:
            os.kill(backend, signal.SIGCONT)
        assert len(await pool.fetch("SELECT 1")) == 1


async def _pid(pool: Pool) -> int:
    return int((await pool.fetch("SELECT pg_backend_pid()"))[0][0])


async def _terminate(pool: Pool, pid: int) -> None:
    await pool.fetch("SELECT pg_terminate_backend($1, 10000)", pid)
