"""Builds: beside the live tables, switched in one step, dropped afterwards."""

from __future__ import annotations

import asyncio
from types import MappingProxyType

import msgspec
import pytest

from events.catalogue.models import AliasMoved
from events.memory import MemoryLog
from handlers.projector import Projector
from projections import DatabaseUnavailable, Pool, Queries
from projections.builds import State, builds, install
from projections.errors import UnknownProjection
from projections.progress import Progress
from projections.projection import Projection
from projections.rebuild import rebuild
from projections.table import Row, Table
from projections.tables import PROJECTIONS
from projections.verify import verify
from tests.projections.history import FRAUD, life, write_life
from tests.projections.project import contents, events_of, project, projecting, reached
from tests.projections.proxies import LogWithForeignMessage


def with_version(name: str, version: int) -> list[Projection]:
    return [
        msgspec.structs.replace(p, version=version) if p.name == name else p for p in PROJECTIONS
    ]


async def schemas(pool: Pool, name: str) -> list[str]:
    rows = await pool.fetch(
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE $1 ORDER BY nspname", f"sb_{name}_v%"
    )
    return [row["nspname"] for row in rows]


async def test_the_first_build_is_live_at_once_and_installing_again_changes_nothing(
    pool: Pool,
) -> None:
    await asyncio.gather(*(install(pool, PROJECTIONS) for _ in range(4)))
    found = await builds(pool, PROJECTIONS)
    assert {build.state for build in found} == {State.LIVE}
    assert sorted(build.schema for build in found) == sorted(
        f"sb_{projection.name}_v{projection.version}" for projection in PROJECTIONS
    )


async def test_a_new_version_is_built_beside_and_switched_to_when_it_has_caught_up(
    pool: Pool, progress: Progress, queries: Queries
) -> None:
    log = await life()
    await project(pool, await events_of(log, await log.position()))
    before = await contents(pool)
    second = with_version("models", 2)
    await install(pool, second)
    assert await schemas(pool, "models") == ["sb_models_v1", "sb_models_v2"]
    assert (await queries.models.list("acme")).items  # the old tables answer meanwhile
    async with projecting(log, pool, progress, projections=second) as projector:
        position = await log.append(FRAUD, [*_more()], expected=await _last(log))
        await reached(progress, position)
        await until_none_is_building(projector)
    assert await schemas(pool, "models") == ["sb_models_v2"]
    assert (await contents(pool))["versions"] == before["versions"]
    model = await queries.models.get("acme", "fraud", min_position=position)
    assert model is not None
    assert model.aliases == {"live": "2.0.0", "next": "2.0.1"}


async def test_what_the_old_tables_cannot_answer_is_unavailable_until_the_switch(
    pool: Pool, progress: Progress, queries: Queries
) -> None:
    class BeforeRollouts(Row, frozen=True, kw_only=True):
        name: str

    table = Table("endpoints", BeforeRollouts, key=("tenant", "name"))
    old = Projection(name="endpoints", version=1, tables=(table,), on=MappingProxyType({}))
    await install(pool, [old])
    await install(pool, PROJECTIONS)
    with pytest.raises(DatabaseUnavailable, match="another version"):
        await queries.endpoints.get("acme", "chat")
    log = await life()
    async with projecting(log, pool, progress) as projector:
        await reached(progress, await log.position())
        await until_none_is_building(projector)
    endpoint = await queries.endpoints.get("beta", "chat")
    assert endpoint is not None
    assert endpoint.rollout is not None


async def test_a_projector_of_the_old_version_keeps_its_tables_until_the_switch(
    pool: Pool, progress: Progress
) -> None:
    log = MemoryLog()
    async with projecting(log, pool, progress):
        last = await write_life(log)
        await reached(progress, last)
        async with projecting(log, pool, Progress(pool), projections=with_version("lineage", 2)):
            await _until_schemas(pool, "lineage", ["sb_lineage_v2"])
    assert all(
        r.ok for r in await verify(log=log, pool=pool, projections=with_version("lineage", 2))
    )


async def test_a_rebuild_repairs_rows_while_they_are_read_and_written(
    pool: Pool, progress: Progress, queries: Queries
) -> None:
    log = MemoryLog()
    async with projecting(log, pool, progress):
        last = await write_life(log)
        await reached(progress, last)
        await pool.execute("DELETE FROM sb_versions_v1.versions WHERE version = '2.0.1'")
        rebuilt = await rebuild("versions", log=log, pool=pool)
        assert (rebuilt.version, rebuilt.position) == (1, last)
        position = await log.append(FRAUD, _more(), expected=await _last(log))
        await reached(progress, position)
    page = await queries.models.versions("acme", "fraud")
    assert [item.version for item in page.items] == ["1.0.0", "2.0.0", "3.0.0", "2.0.1"]
    assert len(await schemas(pool, "versions")) == 1
    assert all(report.ok for report in await verify(log=log, pool=pool))


async def test_every_projection_can_be_rebuilt_and_reads_the_same(pool: Pool) -> None:
    log = await life()
    await project(pool, await events_of(log, await log.position()))
    before = await contents(pool)
    for projection in PROJECTIONS:
        await rebuild(projection.name, log=log, pool=pool)
    assert await contents(pool) == before


async def test_a_rebuild_that_fails_leaves_the_live_tables_and_nothing_else(pool: Pool) -> None:
    good = await life()
    history = await events_of(good, await good.position())
    await project(pool, history)
    before = await contents(pool)
    bad = LogWithForeignMessage(9)
    await write_life(bad)
    with pytest.raises(Exception, match="not JSON"):
        await rebuild("events", log=bad, pool=pool)
    assert await contents(pool) == before
    assert await schemas(pool, "events") == ["sb_events_v1"]


async def test_an_unknown_projection_cannot_be_rebuilt(pool: Pool) -> None:
    with pytest.raises(UnknownProjection, match="'nonsense'"):
        await rebuild("nonsense", log=MemoryLog(), pool=pool)


async def test_a_switch_waits_for_a_long_read_and_then_happens(pool: Pool) -> None:
    log = await life()
    await project(pool, await events_of(log, await log.position()))
    async with pool.transaction() as reading:
        await reading.fetch("SELECT * FROM switchback.aliases")
        rebuilding = asyncio.create_task(rebuild("aliases", log=log, pool=pool))
        held_up = "SELECT 1 FROM pg_locks WHERE NOT granted"
        while not await pool.fetch(held_up):
            assert not rebuilding.done()
        assert len(await reading.fetch("SELECT * FROM switchback.aliases")) == 1
    await rebuilding
    assert len(await schemas(pool, "aliases")) == 1


def _more() -> list[AliasMoved]:
    return [AliasMoved(alias="next", to_version="2.0.1")]


async def _last(log: MemoryLog) -> int:
    return [recorded.position async for recorded in log.read(FRAUD)][-1]


async def until_none_is_building(projector: Projector) -> None:
    """The switch is in the tables a moment before the projector says so."""
    async with asyncio.timeout(30):
        while (await projector.status()).building:  # noqa: ASYNC110 - it has no signal
            await asyncio.sleep(0)


async def _until_schemas(pool: Pool, name: str, expected: list[str]) -> None:
    async with asyncio.timeout(30):
        found = await schemas(pool, name)
        while found != expected:
            found = await schemas(pool, name)
