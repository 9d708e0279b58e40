"""A Python client of the HTTP API.

    async with Client.from_data_dir(".switchback") as client:
        await client.create_endpoint("chat", model="fraud", version="1.0.0")
        await client.swap("chat", to="2.0.0")
        answer = await client.infer("chat", [1, 2, 3], key="user-17")
        await client.rollback("chat", reason="too many complaints")
        async for event in client.follow_events(after=answer.position): ...

Guarantees: a command happens once, however often the connection is lost while it is sent (each call
carries an idempotency key of its own); a read sees the commands of this client that were answered
before it. Every refusal is a Problem. Inference is sent once: whether to repeat it is the caller's
choice.
"""

from switchback.client.client import Client, Inference
from switchback.client.credentials import Credentials, CredentialsMissing
from switchback.client.problem import Problem

__all__ = ["Client", "Credentials", "CredentialsMissing", "Inference", "Problem"]
