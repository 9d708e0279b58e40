"""What a committed batch means for the cache: the rows it changed, as queries would show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.apply import Applied
from projections.cache import ENTRIES_PER_WRITE_MAX, Cache, Entry
from projections.projection import Cached
from projections.table import json_text


async def write_through(cache: Cache, applied: Sequence[Applied]) -> None:
    """Write the changed rows of cached tables, and how far they reach. Never raises for Redis."""
    for done in applied:
        cached = done.build.projection.cached
        if cached is not None:
            await _write(cache, cached, done)


async def _write(cache: Cache, cached: Cached, done: Applied) -> None:
    projection, position = done.build.projection, done.build.position
    rows = done.rows[cached.table]
    changed, deleted = rows.changed, rows.deleted
    if len(changed) + len(deleted) > ENTRIES_PER_WRITE_MAX:
        await cache.begin(projection, position)
        return
    entries = [_entry(cached, row) for row in changed]
    entries += [Entry(tenant=t, id=id, position=position, value=None) for t, id in deleted]
    await cache.write(projection, entries, expected=done.before, position=position)


def _entry(cached: Cached, row: Any) -> Entry:
    tenant, id = cached.table.key_of(row)
    text = json_text(msgspec.convert(row, cached.shows, from_attributes=True))
    return Entry(tenant=tenant, id=id, position=row.position, value=(text or "").encode())
