"""An endpoint to switch: two echo versions of one model, both resident."""

from __future__ import annotations

from typing import Final

from switchback.bench.http import Connection, Target

VERSIONS: Final = ("1.0.0", "2.0.0")
_MODEL: Final = "bench"
_ENDPOINT: Final = "/api/v1/endpoints/bench"
INPUTS: Final = {"inputs": [1.0, 2.0, 3.0], "key": "user-1"}


async def make_endpoint(target: Target, connection: Connection) -> None:
    """The endpoint with all traffic on the first version, and the other one loaded too."""
    await connection.ask(target.request("POST", "/api/v1/models", {"name": _MODEL}))
    for number, version in enumerate(VERSIONS, start=1):
        body = {"version": version, "runtime": "echo", "config": {"answer": number}}
        path = f"/api/v1/models/{_MODEL}/versions"
        await connection.ask(target.request("POST", path, body))
    body = {"model": _MODEL, "version": VERSIONS[0]}
    await connection.ask(target.request("PUT", _ENDPOINT, body))
    for version in reversed(VERSIONS):
        await connection.ask(swap_request(target, version))


def swap_request(target: Target, to: str) -> bytes:
    """Answered when every gateway sends its traffic there."""
    return target.request("POST", f"{_ENDPOINT}/swap?wait=true", {"to": to})


def rollback_request(target: Target) -> bytes:
    """Likewise."""
    return target.request("POST", f"{_ENDPOINT}/rollback", {"reason": "bench"})


def infer_request(target: Target) -> bytes:
    return target.request("POST", f"{_ENDPOINT}/infer", INPUTS)
