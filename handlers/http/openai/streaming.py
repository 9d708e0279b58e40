"""Answers that are sent while they are made.

Guarantees: before the first chunk has arrived nothing is sent, so that a failure until then has a
status of its own; a chunk is sent at once, or with those that have arrived together with it, and
waits until the connection takes it, so a slow reader costs bounded memory; a reader that takes
nothing for `STALLED_SECONDS`, or leaves, ends the work.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Final

from litestar import Response
from litestar.types import Receive, Scope, Send

from handlers.http.inference import inference_headers
from handlers.http.inference_ports import StreamedInference
from handlers.http.leaving import ClientLeft, Sending, WhileThere
from handlers.http.openai.counting import Counting
from handlers.http.openai.frames import Frames
from handlers.spending import Spending

STALLED_SECONDS: Final = 30.0
TOGETHER_BYTES: Final = 64 * 2**10
"""Frames of chunks that have arrived together are sent in pieces of about this size at most."""
MEDIA_TYPE: Final = "text/event-stream"
_HEADERS: Final = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class AnswerStream(Response[bytes]):
    """The response that sends one answer. It raises what happens before the first chunk."""

    def __init__(
        self,
        streaming: AbstractAsyncContextManager[StreamedInference],
        *,
        spending: Spending,
        frames: Frames,
        counting: Counting,
        stalled_seconds: float = STALLED_SECONDS,
    ) -> None:
        super().__init__(b"", media_type=MEDIA_TYPE)
        self._streaming = streaming
        self._spending = spending
        self._frames = frames
        self._counting = counting
        self._stalled_seconds = stalled_seconds
        self._begun = False

    def to_asgi_response(self, *_: object, **__: object) -> AnswerStream:  # type: ignore[override]
        return self

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        with self._spending:
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        try:
            async with WhileThere(receive) as client:
                sending = Sending(send, client, stalled_seconds=self._stalled_seconds)
                await self._serve(sending)
        except ClientLeft:
            self._counting.left()
            if not self._begun:
                raise
        except Exception as error:
            self._counting.failed(error)
            raise

    async def _serve(self, sending: Sending) -> None:
        async with self._streaming as stream:
            self._counting.began(stream)
            self._begun = True
            with sending:
                await sending.start(self._answer_headers(stream))
                last = await self._send_chunks(stream, sending)
                await sending.end(last)

    async def _send_chunks(self, stream: StreamedInference, sending: Sending) -> bytes:
        """Returns what is to be sent last."""
        chunks, frames = stream.chunks, b""
        try:
            async for chunk in chunks:
                self._counting.chunk(chunk)
                self._spending.tell(chunk)
                frames += self._frames.of(chunk)
                if frames and not (chunks.is_followed and len(frames) < TOGETHER_BYTES):
                    # Sending takes a fifth of a gateway's time: less in fewer pieces.
                    together, frames = frames, b""
                    await sending.body(together)
        except Exception as error:
            self._counting.failed(error)
            return frames + self._frames.failure(error)
        self._counting.ended()
        return frames + self._frames.end()

    def _answer_headers(self, stream: StreamedInference) -> list[tuple[bytes, bytes]]:
        told = inference_headers(stream) | self._spending.headers()
        return [
            *_HEADERS,
            *((name.lower().encode(), value.encode()) for name, value in told.items()),
        ]
