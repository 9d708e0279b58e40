"""The runtime for language models: a process per version, in which requests share batches.

The artifact is a directory of `config.json`, `tokenizer.json` and `model.safetensors`, or one of
the built-in models. Nothing in it is executed. Inputs and parameters are OpenAI's, see
`engine.runtimes.language.asking`; outputs and chunks are as `engine.runtimes.documents` says.

- Requests wait in a bounded queue, and are computed together, a batch anew for each step.
- Whoever stops listening is computed at most one step longer.
- A slow reader holds up nobody, itself not either: what it has not read is put together, so that
  it gets fewer and larger chunks. At most one answer's text is kept for it, which is bounded by
  `max_tokens_limit`.
- What goes wrong with one request is told to that one; when the process ends, to all.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from engine.batching import Statistics
from engine.runtimes.child import ENVIRONMENT, Child, ChildEnded
from engine.runtimes.configs import LanguageConfig
from engine.runtimes.directories import verified_directory
from engine.runtimes.language import asking, wire
from engine.runtimes.language.answers import FINISH, Answers
from engine.runtimes.language.streams import Stream
from engine.runtimes.runtime import (
    LoadFailed,
    RequestRefused,
    RuntimeFailed,
    RuntimeSettings,
    VersionOverloaded,
    VersionUnavailable,
)
from events.catalogue.models import Artifact

CLOSE_SECONDS: Final = 2.0
"""Grace of the process at closing, before it is killed."""
RETRY_AFTER_SECONDS: Final = 1.0
"""When somebody whom a full queue has refused may ask again."""
_HOST: Final = "engine.runtimes.language.host"
_ROOT: Final = Path(__file__).parents[2]
"""Where our packages lie."""

_log = structlog.get_logger(__name__)


class LanguageRuntime:
    """One version's process."""

    def __init__(
        self, config: LanguageConfig, artifact: Artifact, settings: RuntimeSettings
    ) -> None:
        self._config = config
        self._artifact = artifact
        self._settings = settings
        self._child = Child(
            frame_bytes_max=wire.FRAME_BYTES_MAX,
            close_seconds=CLOSE_SECONDS,
            take=self._take,
            over=self._over,
        )
        self._requests = itertools.count(1)
        self._streams: dict[int, Stream] = {}
        self._loaded: asyncio.Future[wire.Ready | wire.NotLoaded] = (
            asyncio.get_running_loop().create_future()
        )
        self._doing: dict[int, asyncio.Future[wire.Done]] = {}

    async def load(self) -> None:
        # The process compares what it reads with the digest once more, as it reads it.
        path = await verified_directory(self._artifact, self._settings.artifact_roots)
        try:
            await self._child.start(
                lambda fd, _: self._command(path, fd),
                {**ENVIRONMENT, "PYTHONPATH": str(_ROOT)},
            )
        except OSError as error:
            raise LoadFailed("runtime", f"no process could be started: {error}") from error
        loaded = await self._loaded
        if isinstance(loaded, wire.NotLoaded):
            _log.warning("load_failed", error=loaded.detail, output=self._child.output)
            raise LoadFailed(loaded.reason, loaded.detail)

    async def warm(self) -> None:
        try:
            await self._do("warm")
        except RuntimeFailed as error:
            raise LoadFailed("runtime", f"it generates nothing: {error.detail}") from error

    async def infer(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        asked = self._read(inputs, parameters)
        pieces: list[wire.Piece] = []
        async with self._answering(asked, streams=False) as stream:
            while len(pieces) < asked.choices:
                pieces += await stream.read()
        return Answers(asked).outputs(pieces)

    async def stream(self, inputs: Any, parameters: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        asked = self._read(inputs, parameters)
        answers = Answers(asked)
        async with self._answering(asked, streams=True) as stream:
            while not answers.complete:
                yield answers.chunk(await stream.read())
        yield {"choices": [], "usage": answers.usage()}

    async def statistics(self) -> Statistics:
        told = (await self._do("tell")).statistics
        assert told is not None, "statistics were asked for"
        return told

    async def memory_bytes(self) -> int:
        return await self._child.memory_bytes()

    async def failed(self) -> str:
        return await self._child.wait_ended()

    async def close(self) -> None:
        await self._child.close()

    def _read(self, inputs: Any, parameters: Mapping[str, Any]) -> asking.Asked:
        seed = secrets.randbelow(asking.SEEDS)
        return asking.read(inputs, parameters, self._config, seed=seed)

    @asynccontextmanager
    async def _answering(self, asked: asking.Asked, *, streams: bool) -> AsyncIterator[Stream]:
        """Who leaves before the end has it cancelled."""
        request = next(self._requests)
        stream = self._streams[request] = Stream(choices=asked.choices)
        try:
            await self._send(wire.Answer(request, asked, streams))
            yield stream
        finally:
            del self._streams[request]
            if not stream.over:
                self._child.post(wire.encode(wire.Cancel(request)))

    async def _do(self, what: Literal["warm", "tell"]) -> wire.Done:
        request = next(self._requests)
        done: asyncio.Future[wire.Done] = asyncio.get_running_loop().create_future()
        self._doing[request] = done
        try:
            await self._send(wire.Do(request, what))
            told = await done
        finally:
            del self._doing[request]
        if told.failed is not None:
            raise RuntimeFailed(told.failed)
        return told

    async def _send(self, order: wire.Order) -> None:
        try:
            await self._child.send(wire.encode(order))
        except ChildEnded as error:
            raise RuntimeFailed(error.detail) from error

    def _take(self, body: bytes) -> None:
        match wire.decode_report(body):
            case wire.Pieces(pieces):
                for piece in pieces:
                    self._put(piece)
            case wire.Done() as done:
                if (asked := self._doing.get(done.request)) is not None and not asked.done():
                    asked.set_result(done)
            case wire.Refused() as refused:
                if (stream := self._streams.get(refused.request)) is not None:
                    stream.fail(_failure(refused))
            case wire.Ready() | wire.NotLoaded() as loaded:
                if not self._loaded.done():
                    self._loaded.set_result(loaded)

    def _put(self, piece: wire.Piece) -> None:
        stream = self._streams.get(piece.request)
        if stream is None:
            return
        if piece.end is not None and piece.end.ending not in FINISH:
            stream.fail(RuntimeFailed(piece.end.detail or f"the answer was {piece.end.ending}"))
        else:
            stream.put(piece)

    def _over(self, detail: str) -> None:
        if not self._loaded.done():
            self._loaded.set_result(wire.NotLoaded("runtime", detail))
        for stream in self._streams.values():
            stream.fail(RuntimeFailed(detail))
        for asked in self._doing.values():
            if not asked.done():
                asked.set_exception(RuntimeFailed(detail))

    def _command(self, path: Path, fd: int) -> tuple[str, ...]:
        arguments = wire.Arguments(
            socket_fd=fd,
            parent_pid=os.getpid(),
            artifact=str(path),
            sha256=self._artifact.sha256,
            config=self._config,
        )
        # Without what the user or the working directory may hold in the place of our packages.
        return (sys.executable, "-s", "-P", "-m", _HOST, wire.encode_arguments(arguments))


def _failure(refused: wire.Refused) -> RuntimeFailed:
    match refused.kind:
        case "invalid":
            return RequestRefused(refused.field, refused.detail, openai_code=refused.openai_code)
        case "overloaded":
            return VersionOverloaded(refused.detail, retry_after_s=RETRY_AFTER_SECONDS)
        case "closed":
            return VersionUnavailable(refused.detail)
        case "failed":
            return RuntimeFailed(refused.detail)
