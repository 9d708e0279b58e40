"""`switchback demo`: the main jobs on real models and real traffic, told as they happen."""

from __future__ import annotations

import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from engine.runtimes import describe_artifact
from switchback.bootstrap import write_credentials
from switchback.client import Client
from switchback.demo.canaries import SAME_LABEL, canaries_told, checks_of_canaries, rehearse
from switchback.demo.digits import TrainedVersion, load_digits, train_all
from switchback.demo.language import checks_of_language, speak
from switchback.demo.moves import checks_of_moves, move_under_load, moves_told
from switchback.demo.report import conclude, explained, verified
from switchback.process import open_process
from switchback.servers import own_servers
from switchback.settings import Settings

MODEL: Final = "digits"


async def tour(console: Console) -> bool:
    """Whether everything held."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="switchback-")))
        settings = Settings(
            data_dir=directory / "data",
            port=0,
            compare_functions={SAME_LABEL: "switchback.demo.digits:same_label"},
        )
        began = time.perf_counter()
        addresses = await stack.enter_async_context(own_servers(settings))
        process = await stack.enter_async_context(open_process(settings, addresses))
        credentials = await write_credentials(settings, process)
        took_s = time.perf_counter() - began
        console.print(f"[bold]Switchback[/bold] is up after {took_s:.1f} s: NATS, Postgres and")
        console.print(f"Redis embedded, state in {settings.data_dir}, HTTP on {credentials.url}.\n")
        url, key = credentials.url, credentials.key
        client = await stack.enter_async_context(Client.connect(url, key=key))
        versions = train_all(load_digits(), settings.data_dir / "artifacts")
        await _register(console, client, versions)
        moved = await move_under_load(console, client, model=MODEL, url=url, key=key)
        await moves_told(console, client, moved)
        rehearsed = await rehearse(console, client, model=MODEL, url=url, key=key)
        canaries_told(console, rehearsed)
        spoken = await speak(console, client, url=url, key=key)
        checks = [
            *checks_of_moves(moved),
            *checks_of_canaries(rehearsed),
            *checks_of_language(spoken),
            await explained(console, client, rehearsed.bad.watch),
            await verified(console, process),
        ]
        return conclude(console, checks)


async def _register(console: Console, client: Client, versions: tuple[TrainedVersion, ...]) -> None:
    console.print("Versions of a classifier of handwritten digits, trained just now:")
    await client.register_model(MODEL, description="handwritten digits, 8 by 8 pixels")
    table = Table("version", "made from", "artifact", "held-out accuracy", "what it is")
    for trained in versions:
        artifact = describe_artifact(trained.directory)
        await client.register_version(
            MODEL,
            trained.version,
            runtime="python",
            config={"factory": trained.factory},
            artifact=msgspec.to_builtins(artifact),
            parent=f"{MODEL}@{trained.parent}" if trained.parent else None,
            metrics={"held_out_accuracy": trained.accuracy},
        )
        digest = f"sha256:{artifact.sha256[:12]}"
        accuracy = f"{trained.accuracy:.1%}"
        table.add_row(trained.version, trained.parent or "", digest, accuracy, trained.description)
    console.print(table)
