"""LiteLLM's proxy, one worker, in front of the mock upstream."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from switchback.bench.chats import WAYS, ChatConnection, chat_request
from switchback.bench.http import RequestFailed, Target
from switchback.bench.upstreams import ENDPOINT

PROGRAM: Final = Path(".peers/litellm/bin/litellm")
READY_SECONDS_MAX: Final = 120.0
_HOST: Final = "127.0.0.1"
_PROBE: Final = b"GET /health/liveliness HTTP/1.1\r\nhost: peer\r\n\r\n"
_CONFIG: Final = """
model_list:
  - model_name: {name}
    litellm_params: {{model: openai/mock, api_base: "{url}", api_key: none}}
"""
_ENVIRONMENT: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would ask for prices elsewhere
    "LITELLM_LOG": "ERROR",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # on loopback, for a minute
}


@asynccontextmanager
async def litellm_proxy(upstream: Target) -> AsyncIterator[Target]:
    """Where it listens. Raises TimeoutError, or FileNotFoundError when it is not installed."""
    with NamedTemporaryFile("w", suffix=".yaml") as config:
        url = f"http://{upstream.host}:{upstream.port}/v1"
        config.write(_CONFIG.format(name=ENDPOINT, url=url))
        config.flush()
        target = Target(_HOST, _free_port(), "none")
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *("--config", config.name, "--host", _HOST, "--port", str(target.port)),
            *("--num_workers", "1", "--keepalive_timeout", "60"),
            env=os.environ | _ENVIRONMENT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                await _ready(target)
            yield target
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _ready(target: Target) -> None:
    """It answers, and has answered a chat of each way: its first ones take seconds."""
    for request in (_PROBE, *(chat_request(target, ENDPOINT, way) for way in WAYS)):
        while True:
            if await _is_answered(target, request):
                break
            await asyncio.sleep(0.25)


async def _is_answered(target: Target, request: bytes) -> bool:
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(ChatConnection, target.host, target.port)
        await connection.ask(request)
    except (OSError, TimeoutError, RequestFailed):
        return False
    connection.close()
    return True


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind((_HOST, 0))
        port: int = bound.getsockname()[1]
        return port
