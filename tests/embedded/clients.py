"""What a client of each kind of server does: write a value, read it back."""

from __future__ import annotations

import asyncpg
import nats
from redis.asyncio import Redis

from switchback.embedded import NatsServer, PostgresServer, Server


async def write(server: Server, value: str) -> None:
    if isinstance(server, NatsServer):
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", value.encode())
        await client.close()
    elif isinstance(server, PostgresServer):
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept (value text)")
        await connection.execute("INSERT INTO kept VALUES ($1)", value)
        await connection.close()
    else:
        async with Redis.from_url(server.url) as redis:
            await redis.set("kept", value)


async def read(server: Server) -> str | None:
    if isinstance(server, NatsServer):
        client = await nats.connect(server.url)
        message = await client.jetstream().get_last_msg("KEPT", "kept")
        await client.close()
        return (message.data or b"").decode()
    if isinstance(server, PostgresServer):
        connection = await asyncpg.connect(server.url)
        value = await connection.fetchval("SELECT value FROM kept")
        await connection.close()
        return str(value)
    async with Redis.from_url(server.url) as redis:
        found = await redis.get("kept")
        return None if found is None else str(found.decode())
