"""What every group of calls is made of: one transport, one tenant, JSON in and out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote

import msgspec

from events.errors import MalformedEvent
from switchback.client.transport import JSON, Transport, present

_PAGE_ITEMS: Final = 1000


class Calls:
    """The base of `Client`."""

    def __init__(self, transport: Transport, *, tenant: str | None = None) -> None:
        self._transport = transport
        self._root = "/api/v1" + (f"/tenants/{part(tenant)}" if tenant is not None else "")

    @property
    def min_position(self) -> int:
        """Reads wait until this position is readable; each command raises it to its own.

        Set it to a position learned elsewhere to see that event, or to 0 to take what is there.
        """
        return self._transport.min_position

    @min_position.setter
    def min_position(self, position: int) -> None:
        self._transport.min_position = position

    def events(self, *, after: int = 0, entity: str | None = None) -> AsyncIterator[JSON]:
        """The tenant's events after a position, up to now. `entity` is `<aggregate>/<id>`."""
        return self._items("/events", after=after, entity=entity)

    async def follow_events(
        self, *, after: int = 0, entity: str | None = None
    ) -> AsyncGenerator[JSON, None]:
        """As `events`, then live, for ever, without gap or repeat over lost connections.

        Raises MalformedEvent when the log holds a message that is not an event of ours.
        """
        path = f"{self._root}/events/stream"
        stream = self._transport.follow(path, after=after, entity=entity)
        async with aclosing(stream) as arriving:
            async for sent in arriving:
                if sent.event == "malformed":
                    raise MalformedEvent(int(sent.data), "", "not an event of Switchback")
                yield msgspec.json.decode(sent.data, type=dict[str, Any])

    async def _get(self, path: str, **params: Any) -> JSON:
        return await self._transport.read(self._root + path, **params)

    async def _post(self, path: str, **members: Any) -> JSON:
        return await self._transport.command("POST", self._root + path, present(members))

    async def _put(self, path: str, **members: Any) -> JSON:
        return await self._transport.command("PUT", self._root + path, present(members))

    async def _items(self, path: str, **params: Any) -> AsyncIterator[JSON]:
        """Over all pages."""
        while True:
            page = await self._get(path, limit=_PAGE_ITEMS, **params)
            for item in page["items"]:
                yield item
            if page["next"] is None:
                return
            params["after"] = page["next"]


def part(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")
