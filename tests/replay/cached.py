"""What Redis holds."""

from __future__ import annotations

from typing import Any

import msgspec
from redis.asyncio import Redis


async def cache_entries(url: str) -> dict[str, dict[str, Any]]:
    """Entries of the living generations: key -> position and value; states without their token."""
    found: dict[str, dict[str, Any]] = {}
    async with Redis.from_url(url) as redis:
        keys = sorted([key.decode() async for key in redis.scan_iter("sb:*")])
        values = {key: (await redis.get(key) or b"").decode() for key in keys}
    tokens = {
        key.removesuffix("state"): value.partition(":")[0]
        for key, value in values.items()
        if key.endswith(":state")
    }
    for key, value in values.items():
        token, _, rest = value.partition(":")
        if key.endswith(":state"):
            found[key] = {"position": int(rest)}
        elif token in [alive for prefix, alive in tokens.items() if key.startswith(prefix)]:
            position, _, shown = rest.partition(":")
            found[key] = {"position": int(position), "value": msgspec.json.decode(shown)}
    return found
