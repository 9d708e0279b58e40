"""Reading one row through the cache."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from events.event import Position
from projections.cache import Cache, Hit
from projections.projection import Projection
from projections.reader import Query, Reader
from projections.table import json_text

T = TypeVar("T", bound=msgspec.Struct)


class CachedRow(Generic[T]):
    """A query for one row by (tenant, id), answered from Redis when that is provably fresh."""

    def __init__(
        self,
        reader: Reader,
        cache: Cache | None,
        *,
        projection: Projection,
        query: Query[T],
        item: type[T],
    ) -> None:
        self._reader = reader
        self._cache = cache
        self._projection = projection
        self._query = query
        self._decode = msgspec.json.Decoder(item).decode

    async def get(self, tenant: str, id: str, *, min_position: Position = 0) -> T | None:
        """Raises as `Reader.rows`. What is not there is not cached."""
        if self._cache is None:
            return await self._read(tenant, id, min_position)
        found = await self._cache.get(self._projection, tenant, id, min_position=min_position)
        if isinstance(found, Hit):
            return None if found.value is None else self._decode(found.value)
        item = await self._read(tenant, id, min_position)
        if item is not None:
            value = shown(item)
            position = item.position  # type: ignore[attr-defined]  # every result has one
            await self._cache.fill(self._projection, found, position=position, value=value)
        return item

    async def _read(self, tenant: str, id: str, min_position: Position) -> T | None:
        return await self._reader.first(self._query, tenant, id, min_position=min_position)


def shown(item: Any) -> bytes:
    """A result as the cache keeps it, with the text that Postgres would have kept."""
    text = json_text(item)
    assert text is not None
    return text.encode()
