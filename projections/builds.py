# ruff: noqa: S608 - identifiers come from projection declarations; values are arguments
"""Builds: the tables of one version of a projection, in a schema of their own, with a checkpoint.

One build of each projection is live: the views in schema `switchback` show it. A new version, or a
rebuild, is built beside it and takes its place in one transaction; the old one is dropped after.

Only a row of `switchback.checkpoint` makes a build real: whoever writes to a build's tables first
takes the lock on that row, by moving it from the position it believes in (compare-and-set).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Final

import msgspec

from events.event import Position
from projections.errors import CheckpointMoved, DatabaseRefused
from projections.pool import Connection, Pool
from projections.projection import Projection
from projections.reader import READER_ROLE

_INSTALL_LOCK: Final = 0x5357_4254
_SWITCH_LOCK_MILLISECONDS: Final = 200
"""Below the server's deadlock time-out (1 s): a switch gives way to readers and is tried again."""
_SWITCH_PAUSE_SECONDS: Final = 0.05
_HELD_UP: Final = ("55P03", "40P01")

_CONTROL: Final = f"""
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER_ROLE}') THEN
            CREATE ROLE {READER_ROLE} NOLOGIN;
        END IF;
        IF NOT pg_has_role(current_user, '{READER_ROLE}', 'MEMBER') THEN
            GRANT {READER_ROLE} TO current_user;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END $$;
    CREATE SCHEMA IF NOT EXISTS switchback;
    CREATE TABLE IF NOT EXISTS switchback.checkpoint (
        schema text PRIMARY KEY,
        name text NOT NULL,
        version bigint NOT NULL,
        position bigint NOT NULL,
        state text NOT NULL CHECK (state IN ('live', 'building', 'retired'))
    );
    CREATE UNIQUE INDEX IF NOT EXISTS checkpoint_live
        ON switchback.checkpoint (name) WHERE state = 'live';
    CREATE SEQUENCE IF NOT EXISTS switchback.build;
    CREATE TABLE IF NOT EXISTS switchback.skipped (
        schema text NOT NULL REFERENCES switchback.checkpoint ON DELETE CASCADE,
        position bigint NOT NULL,
        subject text NOT NULL,
        reason text NOT NULL,
        time timestamptz NOT NULL,
        PRIMARY KEY (schema, position)
    );
    GRANT USAGE ON SCHEMA switchback TO {READER_ROLE};
    GRANT SELECT ON switchback.checkpoint TO {READER_ROLE};
"""
_MOVE: Final = """
    WITH wanted AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) w(schema, expected, target)
    ), locked AS (
        SELECT c.schema FROM switchback.checkpoint c JOIN wanted USING (schema)
         WHERE c.position = expected AND c.state <> 'retired'
         ORDER BY c.schema FOR UPDATE OF c
    )
    UPDATE switchback.checkpoint c SET position = target
      FROM wanted JOIN locked USING (schema)
     WHERE c.schema = wanted.schema AND c.position = expected
"""


class State(Enum):
    LIVE = "live"
    BUILDING = "building"


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """One build and where it stood when it was looked up."""

    projection: Projection
    schema: str
    state: State
    position: Position


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint's next step."""

    schema: str
    expected: Position
    target: Position


async def install(pool: Pool, projections: Sequence[Projection]) -> None:
    """Make what is missing: role, control tables, and a build of each projection's version.

    The first build of a projection is live at once. Any number of processes may call it together.
    """
    async with pool.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _INSTALL_LOCK)
        await connection.execute(_CONTROL)
        rows = await connection.fetch("SELECT name, version, state FROM switchback.checkpoint")
        existing = {(row["name"], row["version"]) for row in rows if row["state"] != "retired"}
        live = {row["name"] for row in rows if row["state"] == "live"}
        for projection in projections:
            if projection.name not in live:
                schema = await _create(connection, projection, State.LIVE)
                await _show(connection, projection, schema)
            elif (projection.name, projection.version) not in existing:
                await _create(connection, projection, State.BUILDING)
    await drop_retired(pool)


async def builds(pool: Pool, projections: Sequence[Projection]) -> list[Build]:
    """The builds of these projections in these versions, with their checkpoints."""
    async with pool.transaction() as connection:
        return await builds_in(connection, projections)


async def builds_in(connection: Connection, projections: Sequence[Projection]) -> list[Build]:
    """As `builds`, within a transaction."""
    rows = await connection.fetch(
        "SELECT schema, name, version, position, state FROM switchback.checkpoint"
        " WHERE state <> 'retired' ORDER BY schema"
    )
    known = {(projection.name, projection.version): projection for projection in projections}
    return [
        Build(
            projection=known[row["name"], row["version"]],
            schema=row["schema"],
            state=State(row["state"]),
            position=row["position"],
        )
        for row in rows
        if (row["name"], row["version"]) in known
    ]


async def skipped(pool: Pool, of: Sequence[Build]) -> int:
    """How many events these builds have passed over."""
    rows = await pool.fetch(
        "SELECT count(*) FROM switchback.skipped WHERE schema = ANY($1)",
        [build.schema for build in of],
    )
    return int(rows[0][0])


async def begin(pool: Pool, projection: Projection) -> Build:
    """A new, empty build beside the live one."""
    async with pool.transaction() as connection:
        schema = await _create(connection, projection, State.BUILDING)
    return Build(projection=projection, schema=schema, state=State.BUILDING, position=0)


async def move(connection: Connection, moves: Sequence[Move]) -> None:
    """Compare-and-set of checkpoints, all or none; the first statement of a batch's transaction.

    Raises CheckpointMoved when one of them is not where it was expected: write nothing then.
    """
    tag = await connection.execute(
        _MOVE,
        [step.schema for step in moves],
        [step.expected for step in moves],
        [step.target for step in moves],
    )
    if tag != f"UPDATE {len(moves)}":
        raise CheckpointMoved(", ".join(f"{step.schema} from {step.expected}" for step in moves))


async def switch(pool: Pool, build: Build) -> bool:
    """Make a build live if it has caught up with the live one; whether it is live now.

    Readers see the old rows or the new ones, never some of each. Gives way to reads that hold a
    view, and tries again when they are done.
    """
    while True:
        try:
            switched = await _switch(pool, build)
        except DatabaseRefused as error:
            if error.sqlstate not in _HELD_UP:
                raise
            await asyncio.sleep(_SWITCH_PAUSE_SECONDS)
        else:
            if switched:
                await drop_retired(pool)
            return switched


async def _switch(pool: Pool, build: Build) -> bool:
    projection = build.projection
    async with pool.transaction() as connection:
        await connection.execute(f"SET LOCAL lock_timeout = '{_SWITCH_LOCK_MILLISECONDS}ms'")
        rows = await connection.fetch(
            "SELECT schema, position, state FROM switchback.checkpoint"
            " WHERE name = $1 AND state <> 'retired' ORDER BY schema FOR UPDATE",
            projection.name,
        )
        position = {row["schema"]: row["position"] for row in rows}
        live = next((row["schema"] for row in rows if row["state"] == "live"), None)
        if build.schema not in position or live == build.schema:
            return live == build.schema
        if live is not None and position[build.schema] < position[live]:
            return False
        await _set_state(connection, live, "retired")
        await _set_state(connection, build.schema, "live")
        await _show(connection, projection, build.schema)
    return True


async def discard(pool: Pool, build: Build) -> None:
    """Give up a build that is not live."""
    async with pool.transaction() as connection:
        await connection.execute(
            "UPDATE switchback.checkpoint SET state = 'retired'"
            " WHERE schema = $1 AND state = 'building'",
            build.schema,
        )
    await drop_retired(pool)


async def drop_retired(pool: Pool) -> None:
    """Remove the tables of builds that nothing shows any more."""
    async with pool.transaction() as connection:
        rows = await connection.fetch(
            "SELECT schema FROM switchback.checkpoint WHERE state = 'retired'"
            " ORDER BY schema FOR UPDATE SKIP LOCKED"
        )
        for row in rows:
            await connection.execute(f'DROP SCHEMA IF EXISTS "{row["schema"]}" CASCADE')
            await connection.execute(
                "DELETE FROM switchback.checkpoint WHERE schema = $1", row["schema"]
            )


async def create_tables(connection: Connection, projection: Projection, schema: str) -> None:
    """A projection's empty tables in a new schema."""
    statements = [
        f'CREATE SCHEMA "{schema}"',
        f'GRANT USAGE ON SCHEMA "{schema}" TO {READER_ROLE}',
        *(line for table in projection.tables for line in table.ddl(schema, READER_ROLE)),
    ]
    await connection.execute(";\n".join(statements))


async def _create(connection: Connection, projection: Projection, state: State) -> str:
    schema = f"sb_{projection.name}_v{projection.version}"
    taken = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema
    )
    if taken:
        number = await connection.fetchval("SELECT nextval('switchback.build')")
        schema = f"{schema}_{number}"
    await create_tables(connection, projection, schema)
    await connection.execute(
        "INSERT INTO switchback.checkpoint (schema, name, version, position, state)"
        " VALUES ($1, $2, $3, 0, $4)",
        schema,
        projection.name,
        projection.version,
        state.value,
    )
    return schema


async def _set_state(connection: Connection, schema: str | None, state: str) -> None:
    await connection.execute(
        "UPDATE switchback.checkpoint SET state = $2 WHERE schema = $1", schema, state
    )


async def _show(connection: Connection, projection: Projection, schema: str) -> None:
    """Point the views at a build's tables; columns may have changed, so they are made anew."""
    for table in projection.tables:
        view = f'switchback."{table.name}"'
        await connection.execute(
            f"DROP VIEW IF EXISTS {view};"
            f" CREATE VIEW {view} WITH (security_invoker = true)"
            f' AS SELECT * FROM "{schema}"."{table.name}";'
            f" GRANT SELECT ON {view} TO {READER_ROLE}"
        )
