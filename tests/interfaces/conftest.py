"""One whole system with its own log and database, for clients that others have written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tritonclient.http import InferenceServerClient

from engine.runtimes.artifacts import describe_artifact
from switchback.embedded import PostgresServer
from tests.interfaces.blocking import OneThread
from tests.interfaces.triton import Triton
from tests.scenarios.standing import standing
from tests.system import System

MEMORY_BYTES = 200_000_000
_RESHAPING = '''
def load(path):
    return predict


def predict(inputs, parameters):
    """The inputs; with `as`, described as tensors of that datatype; with `say`, that itself."""
    if "say" in parameters:
        return parameters["say"]
    if "as" not in parameters:
        return inputs
    return {name: described(value, parameters["as"]) for name, value in inputs.items()}


def described(value, datatype):
    shape = []
    level = [value]
    while level and all(isinstance(each, list) for each in level):
        shape.append(len(level[0]))
        level = [child for each in level for child in each]
    return {"datatype": datatype, "shape": shape, "data": level}
'''


@pytest_asyncio.fixture(scope="session")
async def served(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> AsyncIterator[System]:
    """Endpoint `chat` on model `fraud` of runtime echo, and `shapes`, whose version reshapes."""
    directory = tmp_path_factory.mktemp("interfaces")
    async with standing(directory, postgres_server, node_memory_bytes=MEMORY_BYTES) as system:
        client = system.client
        await client.register_model("fraud")
        for version in ("1.0.0", "2.0.0", "3.0.0"):
            await client.register_version(
                "fraud", version, runtime="echo", config={"answer": version}
            )
        await client.create_endpoint("chat", model="fraud", version="1.0.0")
        await client.register_model("shapes")
        await client.register_version(
            "shapes",
            "1.0.0",
            runtime="python",
            config={"factory": "reshaping:load"},
            artifact=_artifact(system.settings.artifact_roots[0] / "reshaping"),
        )
        await client.create_endpoint("shapes", model="shapes", version="1.0.0")
        yield system


@pytest_asyncio.fixture(scope="session")
async def http(served: System) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {served.key}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, timeout=20) as client:
        yield client


@pytest.fixture
def thread() -> AsyncIterator[OneThread]:
    """For clients that block, and belong to the thread that made them."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield OneThread(pool)


@pytest_asyncio.fixture
async def triton(served: System, thread: OneThread) -> AsyncIterator[Triton]:
    address = served.url.removeprefix("http://")
    client = await thread(InferenceServerClient, address, network_timeout=20.0)
    yield Triton(client, thread, served.key)
    await thread(client.close)


def _artifact(directory: Path) -> dict[str, Any]:
    directory.mkdir(parents=True)
    (directory / "reshaping.py").write_text(_RESHAPING)
    artifact = describe_artifact(directory)
    return {"uri": artifact.uri, "sha256": artifact.sha256, "size_bytes": artifact.size_bytes}
