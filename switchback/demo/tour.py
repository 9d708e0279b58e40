"""`switchback demo`: the main job on real models and real traffic, told as it happens."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from engine.runtimes import describe_artifact
from switchback.bootstrap import write_credentials
from switchback.client import Client
from switchback.demo.digits import FACTORY, TrainedVersion, load_digits, train_all
from switchback.demo.report import ENDPOINT, Move, report
from switchback.demo.watch import Watch, watched_traffic
from switchback.process import open_process
from switchback.servers import own_servers
from switchback.settings import Settings

MODEL: Final = "digits"
REQUESTS_PER_S: Final = 200
ANSWERS_BETWEEN_STEPS: Final = 400
STEP_SECONDS: Final = 60.0


async def tour(console: Console) -> bool:
    """Whether everything held."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="switchback-")))
        settings = Settings(data_dir=directory / "data", port=0)
        began = time.perf_counter()
        addresses = await stack.enter_async_context(own_servers(settings))
        process = await stack.enter_async_context(open_process(settings, addresses))
        credentials = await write_credentials(settings, process)
        took_s = time.perf_counter() - began
        console.print(f"[bold]Switchback[/bold] is up after {took_s:.1f} s: NATS, Postgres and")
        console.print(f"Redis embedded, state in {settings.data_dir}, HTTP on {credentials.url}.\n")
        client = await stack.enter_async_context(
            Client.connect(credentials.url, key=credentials.key)
        )
        versions = train_all(load_digits(), settings.data_dir / "artifacts")
        await _register(console, client, versions)
        watch, moves = await _switch_under_load(console, client, credentials.url, credentials.key)
        return await report(console, client, process, watch, moves)


async def _register(console: Console, client: Client, versions: tuple[TrainedVersion, ...]) -> None:
    console.print("Three versions of a classifier of handwritten digits, trained just now:")
    await client.register_model(MODEL, description="handwritten digits, 8 by 8 pixels")
    table = Table("version", "made from", "artifact", "held-out accuracy", "what it is")
    for trained in versions:
        artifact = describe_artifact(trained.directory)
        await client.register_version(
            MODEL,
            trained.version,
            runtime="python",
            config={"factory": FACTORY},
            artifact=msgspec.to_builtins(artifact),
            parent=f"{MODEL}@{trained.parent}" if trained.parent else None,
            metrics={"held_out_accuracy": trained.accuracy},
        )
        digest = f"sha256:{artifact.sha256[:12]}"
        accuracy = f"{trained.accuracy:.1%}"
        table.add_row(trained.version, trained.parent or "", digest, accuracy, trained.description)
    console.print(table)


async def _switch_under_load(
    console: Console, client: Client, url: str, key: str
) -> tuple[Watch, list[Move]]:
    first, better, worse = "1.0.0", "2.0.0", "3.0.0"
    moves: list[Move] = []
    await client.create_endpoint(ENDPOINT, model=MODEL, version=first)
    console.print(f"\n{REQUESTS_PER_S} requests/s to endpoint {ENDPOINT!r}, from another process:")
    async with watched_traffic(url, key, ENDPOINT, requests_per_s=REQUESTS_PER_S) as watch:
        with Live(console=console, refresh_per_second=8) as live:

            async def answered_by(version: str, doing: str) -> None:
                seen = len(watch.of(version))
                goal = seen + ANSWERS_BETWEEN_STEPS

                def enough(watch: Watch) -> bool:
                    live.update(_progress(watch, doing))
                    return len(watch.of(version)) >= goal

                async with asyncio.timeout(STEP_SECONDS):
                    await watch.until(enough)

            await answered_by(first, "1.0.0 serves")
            moves.append(await _move("swap", first, better, client.swap(ENDPOINT, to=better)))
            await answered_by(better, "swapped to 2.0.0, the better child")
            moves.append(await _move("swap", better, worse, client.swap(ENDPOINT, to=worse)))
            await answered_by(worse, "swapped to 3.0.0, which went wrong")
            returned = client.rollback(ENDPOINT, reason="accuracy fell")
            moves.append(await _move("rollback", worse, better, returned))
            await answered_by(better, "rolled back to 2.0.0")
    return watch, moves


async def _move(what: str, from_: str, to: str, command: Awaitable[object]) -> Move:
    asked = time.time()
    await command
    return Move(what=what, from_=from_, to=to, asked=asked, answered=time.time())


def _progress(watch: Watch, doing: str) -> Table:
    table = Table("version", "answers", "right", title=doing, title_justify="left")
    for version in sorted({request.version for request in watch.requests if request.version}):
        table.add_row(version, str(len(watch.of(version))), f"{watch.accuracy(version):.1%}")
    table.caption = f"{len(watch.requests)} requests, {len(watch.failed)} failed"
    return table
