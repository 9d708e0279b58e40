"""Load while something breaks: requests that must not fail, commands that must not be lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Self

from switchback.client import Client, Problem


class Load:
    """Inference and commands from a handful of clients for as long as the block lasts."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = asyncio.Event()
        self._grown = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: Counter[str] = Counter()
        """Version -> answers."""
        self.inference_failures: list[Exception] = []
        self.acknowledged: dict[str, int] = {}
        """Model -> position of its registration."""
        self.refused: Counter[str] = Counter()
        """Problem code -> commands that were told so."""

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._infer()) for _ in range(4)]
        self._tasks += [asyncio.create_task(self._command(n)) for n in range(4)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def more(self, answers: int = 50, commands: int = 0) -> None:
        """Return when so many more have been answered and acknowledged from now on."""
        answered, acknowledged = self.answers.total(), len(self.acknowledged)
        async with asyncio.timeout(60):
            while (
                self.answers.total() < answered + answers
                or len(self.acknowledged) < acknowledged + commands
            ):
                self._grown.clear()
                await self._grown.wait()

    async def _infer(self) -> None:
        n = 0
        while not self._stop.is_set():
            n += 1
            try:
                answer = await self._client.infer("scores", [n], key=f"user-{n}")
            except Exception as error:
                self.inference_failures.append(error)
            else:
                self.answers[answer.version] += 1
            self._grown.set()

    async def _command(self, worker: int) -> None:
        n = 0
        while not self._stop.is_set():
            n += 1
            name = f"m-{worker}-{n}"
            try:
                self.acknowledged[name] = (await self._client.register_model(name))["position"]
            except Problem as problem:
                self.refused[problem.code] += 1
            self._grown.set()
