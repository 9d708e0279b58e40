"""What tests ask of a NATS server behind the log's back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import nats
from nats.aio.client import Client

EVENTS_STREAM = "EVENTS"


async def ask(client: Client, call: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One call of the JetStream API, refusals included."""
    payload = b"" if body is None else json.dumps(body).encode()
    reply = await client.request(f"$JS.API.{call}", payload, timeout=10)
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


async def delete_stream(url: str, name: str) -> None:
    client = await nats.connect(url.split(","))
    try:
        answer = await ask(client, f"STREAM.DELETE.{name}")
        assert answer.get("success") or answer["error"]["code"] == 404, answer
    finally:
        await client.close()
