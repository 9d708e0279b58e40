"""The tour's client: a process of its own that sends held-out images at a steady rate.

    python -m switchback.demo.traffic URL KEY ENDPOINT RATE

Writes one line of JSON per request, when it is answered or has failed, until standard input closes;
then finishes what is under way.
"""

from __future__ import annotations

import asyncio
import sys
import time

import httpx
import msgspec
import uvloop

from switchback.client import Client, Problem
from switchback.demo.digits import load_digits


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request. Times are wall-clock seconds since the epoch."""

    sent: float
    answered: float
    version: str = ""
    """Empty when it failed before one was chosen."""
    position: int = 0
    """Of the policy that chose the version; 0 when it failed."""
    correct: bool = False
    receipt: str = ""
    failure: str = ""
    """What went wrong; empty when it was answered."""


class Traffic:
    """Sends images one after the other, whether or not earlier ones are answered."""

    def __init__(self, client: Client, endpoint: str, requests_per_s: float) -> None:
        self._client = client
        self._endpoint = endpoint
        self._interval_s = 1 / requests_per_s
        self._images = load_digits().held_out

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set and every request is answered."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        number = 0
        async with asyncio.TaskGroup() as requests:
            while not stop.is_set():
                requests.create_task(self._send(number % len(self._images.labels), number))
                number += 1
                due += self._interval_s
                await asyncio.sleep(due - loop.time())

    async def _send(self, image: int, number: int) -> None:
        pixels = self._images.pixels[image].tolist()
        sent = time.time()
        try:
            answer = await self._client.infer(self._endpoint, pixels, key=f"user-{number}")
        except (Problem, httpx.TransportError) as error:
            version = error.version if isinstance(error, Problem) else ""
            failed = time.time()
            _tell(Request(sent=sent, answered=failed, version=version, failure=f"{error!r}"))
            return
        _tell(
            Request(
                sent=sent,
                answered=time.time(),
                version=answer.version,
                position=answer.position,
                correct=answer.outputs["label"] == int(self._images.labels[image]),
                receipt=answer.receipt,
            )
        )


def _tell(request: Request) -> None:
    sys.stdout.write(msgspec.json.encode(request).decode() + "\n")
    sys.stdout.flush()


async def _main(url: str, key: str, endpoint: str, requests_per_s: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with Client.connect(url, key=key) as client:
        sending = asyncio.create_task(Traffic(client, endpoint, float(requests_per_s)).run(stop))
        await loop.run_in_executor(None, sys.stdin.read)
        stop.set()
        await sending


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:5]))
