"""Executing on versions that are resident in this process, for its own gateway and over the bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from typing import Any, Final

from engine.runtimes import NotResident, Residency, Runtime, RuntimeFailed, Streaming
from events.bus import Bus, Service
from events.catalogue.nodes import VersionRef
from handlers.executions import (
    QUEUE,
    Chunk,
    DeadlineExceeded,
    Executed,
    Execution,
    InferenceFailed,
    NotServed,
    cancel_subject_of,
    decode_execution,
    encode_reply,
    failed,
    failure_of,
    stream_subject_of,
    subject_of,
)

_END: Final = object()


class Served:
    """A version that is answered for on the bus."""

    def __init__(self, services: tuple[Service, ...], *, cancels: Service) -> None:
        self._services = services
        self._cancels = cancels

    async def stop(self) -> None:
        """Take no further request; return when those under way are answered, or not waited for."""
        try:
            await asyncio.gather(*(service.stop() for service in self._services))
        finally:
            await self._cancels.stop()


class LocalExecutor:
    """An Executor over a residency. Whatever it executes keeps its version resident meanwhile."""

    def __init__(self, *, node_id: str, residency: Residency, bus: Bus) -> None:
        self._node_id = node_id
        self._residency = residency
        self._bus = bus
        self._under_way: dict[tuple[VersionRef, str], asyncio.Task[Any]] = {}
        """Requests of others, by their ids."""

    async def execute(self, ref: VersionRef, execution: Execution) -> Executed:
        with self._failures(ref, execution):
            async with self._residency.lease(ref) as runtime:
                began = time.perf_counter()
                async with asyncio.timeout(execution.timeout_s):
                    outputs = await runtime.infer(execution.inputs, execution.parameters)
                return Executed(outputs=outputs, runtime_ms=_since(began))

    async def stream(self, ref: VersionRef, execution: Execution) -> AsyncGenerator[Chunk, None]:
        with self._failures(ref, execution):
            async with self._residency.lease(ref) as runtime:
                began = time.perf_counter()
                async with aclosing(_chunks(runtime, execution)) as chunks:
                    while True:
                        async with asyncio.timeout(execution.timeout_s):
                            outputs = await anext(chunks, _END)
                        if outputs is _END:
                            return
                        yield Chunk(outputs=outputs, runtime_ms=_since(began))

    async def serve(self, ref: VersionRef) -> Served:
        """Answer for the version on the bus until the service is stopped. Raises LogUnavailable;
        then it is not answered for in any way."""
        async with AsyncExitStack() as half_way:
            request = await self._bus.serve(
                subject_of(ref), lambda _, payload: self._answer(ref, payload), queue=QUEUE
            )
            half_way.push_async_callback(request.stop)
            stream = await self._bus.serve_stream(
                stream_subject_of(ref),
                lambda _, payload: self._answer_stream(ref, payload),
                queue=QUEUE,
            )
            half_way.push_async_callback(stream.stop)
            cancel = await self._bus.listen(
                cancel_subject_of(ref), lambda _, payload: self._cancel(ref, payload)
            )
            half_way.pop_all()
        return Served((request, stream), cancels=cancel)

    async def _answer(self, ref: VersionRef, payload: bytes) -> bytes:
        execution = decode_execution(payload)
        with self._noted(ref, execution.request_id):
            try:
                return encode_reply(await self.execute(ref, execution))
            except InferenceFailed as failure:
                return encode_reply(failed(failure))

    async def _answer_stream(self, ref: VersionRef, payload: bytes) -> AsyncIterator[bytes]:
        try:
            async with aclosing(self.stream(ref, decode_execution(payload))) as chunks:
                async for chunk in chunks:
                    yield encode_reply(chunk)
        except InferenceFailed as failure:
            yield encode_reply(failed(failure))

    def _cancel(self, ref: VersionRef, payload: bytes) -> None:
        task = self._under_way.get((ref, payload.decode(errors="replace")))
        if task is not None:
            task.cancel()

    @contextmanager
    def _noted(self, ref: VersionRef, request_id: str) -> Iterator[None]:
        """The present task can be cancelled by the id of its request."""
        task = asyncio.current_task()
        if not request_id or task is None:
            yield
            return
        self._under_way[ref, request_id] = task
        try:
            yield
        finally:
            self._under_way.pop((ref, request_id), None)

    @contextmanager
    def _failures(self, ref: VersionRef, execution: Execution) -> Iterator[None]:
        """Raises InferenceFailed for what residency and runtime raise."""
        try:
            yield
        except NotResident as error:
            raise NotServed(f"{ref} is not resident on {self._node_id}") from error
        except RuntimeFailed as error:
            raise failure_of(error) from error
        except TimeoutError:
            raise DeadlineExceeded(f"{ref} did not answer in {execution.timeout_s:.3f} s") from None


async def _chunks(runtime: Runtime, execution: Execution) -> AsyncGenerator[Any, None]:
    if not isinstance(runtime, Streaming):
        yield await runtime.infer(execution.inputs, execution.parameters)
        return
    async with aclosing(runtime.stream(execution.inputs, execution.parameters)) as chunks:
        async for chunk in chunks:
            yield chunk


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1_000
