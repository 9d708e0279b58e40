"""An endpoint whose canary fails: versions to choose from, requests, and who answered them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any, Final

import msgspec

from switchback.bench.endpoints import INPUTS
from switchback.bench.http import Answer, Connection, RequestFailed, Target, connected

BASELINE: Final = "1.0.0"
BASELINE_ERROR_RATE: Final = 0.01
CANDIDATES: Final = MappingProxyType({1.0: "2.0.0", 0.2: "3.0.0", 0.05: "4.0.0"})
"""Error rate -> version."""
WEIGHT: Final = 5
_HOLD_SECONDS: Final = 3600
_MODEL: Final = "failing"


async def make_versions(target: Target, control: Connection) -> None:
    """The model with all of them."""
    await control.ask(target.request("POST", "/api/v1/models", {"name": _MODEL}))
    rates = {BASELINE: BASELINE_ERROR_RATE} | {name: rate for rate, name in CANDIDATES.items()}
    for version, rate in rates.items():
        config = {"error_rate": rate, "seed": 1}
        body = {"version": version, "runtime": "echo", "config": config}
        await control.ask(target.request("POST", f"/api/v1/models/{_MODEL}/versions", body))


class Endpoint:
    """One name, and the commands for it."""

    def __init__(self, name: str, target: Target, control: Connection) -> None:
        self._path = f"/api/v1/endpoints/{name}"
        self._target = target
        self._control = control

    async def make(self) -> None:
        """All traffic on the baseline."""
        await self._ask("PUT", "", {"model": _MODEL, "version": BASELINE})

    async def start_rollout(self, to: str) -> None:
        """In force at every gateway when this returns; its one step does not end by itself."""
        steps = [{"weight": WEIGHT, "hold_s": _HOLD_SECONDS}]
        await self._ask("POST", "/rollouts", {"to": to, "steps": steps})

    async def rolling(self) -> bool:
        """Whether the rollout is under way, as the tables say."""
        return (await self._ask("GET", ""))["rollout"] is not None

    async def roll_back(self) -> None:
        await self._ask("POST", "/rollback", {"reason": "bench"})

    async def raise_alert(self) -> None:
        await self._ask("POST", "/alerts", {"kind": "bench", "severity": "critical"})

    def infer(self, target: Target, key: str) -> bytes:
        """A request to any gateway."""
        return target.request("POST", f"{self._path}/infer", INPUTS | {"key": key})

    async def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = await self._control.ask(self._target.request(method, self._path + path, body))
        return msgspec.json.decode(answer.body, type=dict[str, Any])


@asynccontextmanager
async def connected_to_all(
    targets: Sequence[Target], count: int
) -> AsyncIterator[dict[Connection, Target]]:
    """So many connections to each, in turns, and where each leads."""
    async with AsyncExitStack() as stack:
        each = [await stack.enter_async_context(connected(target, count)) for target in targets]
        yield {
            connection: target
            for turn in zip(*each, strict=True)
            for connection, target in zip(turn, targets, strict=True)
        }


async def version_asked(connection: Connection, request: bytes) -> str:
    """The version that was chosen for a request, whether or not it failed."""
    try:
        return version_in(await connection.ask(request))
    except RequestFailed as error:
        return version_in(error.answer)


def version_in(answer: Answer) -> str:
    """Empty when none was chosen."""
    try:
        return answer.header("switchback-version")
    except KeyError:
        return ""
