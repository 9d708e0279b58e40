"""What a reader that is slow, or reads no more, costs: no more than one piece, and not for ever."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from litestar.types import Message
from prometheus_client import CollectorRegistry

from handlers.executions import VersionFailed
from handlers.http.leaving import ClientLeft, Sending, WhileThere
from handlers.http.metering import HttpMetrics
from handlers.http.openai.answers import Envelope
from handlers.http.openai.counting import Counting
from handlers.http.openai.frames import Frames
from handlers.http.openai.streaming import TOGETHER_BYTES, AnswerStream
from handlers.spending import UNBOUNDED
from tests.openai.voices import Voices, delta

LONG_S = 60.0


class Connection:
    """One end of a connection that takes a message when it is let."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.offered = asyncio.Semaphore(0)
        """Released by each message."""
        self.takes = asyncio.Semaphore(0)
        """Release it to take one."""
        self.closed = asyncio.Event()

    async def receive(self) -> Any:
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.offered.release()
        await self.takes.acquire()


def answering(voices: Voices, *, stalled_seconds: float = LONG_S) -> AnswerStream:
    envelope = Envelope(id="i", object="o", created=1, model="chat")
    metrics = HttpMetrics(CollectorRegistry())
    return AnswerStream(
        voices.stream("acme", endpoint="chat", request_id="r"),
        spending=UNBOUNDED,
        frames=Frames("chat", envelope),
        counting=Counting(metrics, tenant="acme", endpoint="chat"),
        stalled_seconds=stalled_seconds,
    )


async def serve(stream: AnswerStream, connection: Connection) -> None:
    async with asyncio.timeout(LONG_S):
        await stream({}, connection.receive, connection.send)  # type: ignore[arg-type]


async def test_the_next_piece_is_not_made_before_the_last_is_taken():
    made: list[int] = []

    class Noting(list[Any]):
        def __iter__(self) -> Any:
            for i, each in enumerate(super().__iter__()):
                made.append(i)
                yield each

    voices, connection = Voices(), Connection()
    voices.says["chat"] = Noting([delta("a"), delta("b"), delta("c")])
    serving = asyncio.create_task(serve(answering(voices), connection))
    await connection.offered.acquire()
    for piece in (0, 1, 2):
        connection.takes.release()  # the head, or the piece before
        await connection.offered.acquire()
        assert made == list(range(piece + 1))
    connection.takes.release()
    connection.takes.release()
    await serving
    assert connection.sent[-1] == {
        "type": "http.response.body",
        "body": b"data: [DONE]\n\n",
        "more_body": False,
    }


def bodies(connection: Connection) -> list[bytes]:
    return [message["body"] for message in connection.sent[1:]]  # type: ignore[typeddict-item]


def texts(body: bytes) -> list[str]:
    """What the frames of a message say."""
    frames = [json.loads(frame[6:]) for frame in body.split(b"\n\n")[:-1]]
    return [frame["choices"][0]["delta"]["content"] for frame in frames if "choices" in frame]


async def test_pieces_that_have_arrived_together_are_sent_together_and_wait_for_no_other():
    voices, connection = Voices(), Connection()
    go_on = asyncio.Event()
    voices.says["chat"] = [(delta("a"), delta("b")), go_on, delta("c"), (delta("d"), delta("e"))]
    for _ in range(9):
        connection.takes.release()
    serving = asyncio.create_task(serve(answering(voices), connection))
    await connection.offered.acquire()
    await connection.offered.acquire()
    assert [texts(body) for body in bodies(connection)] == [["a", "b"]]
    go_on.set()
    await serving
    *said, last = bodies(connection)
    assert [texts(body) for body in said] == [["a", "b"], ["c"], ["d", "e"]]
    assert last == b"data: [DONE]\n\n"


async def test_what_arrived_together_with_a_failure_is_sent_before_it():
    voices, connection = Voices(), Connection()
    voices.says["chat"] = [(delta("a"), delta("b"), VersionFailed("it broke"))]
    for _ in range(9):
        connection.takes.release()
    await serve(answering(voices), connection)
    [body] = bodies(connection)
    assert texts(body) == ["a", "b"]
    assert json.loads(body.split(b"\n\n")[2][6:])["error"]["code"] == "runtime_failed"


async def test_what_is_sent_together_is_bounded():
    voices, connection = Voices(), Connection()
    text = "x" * (TOGETHER_BYTES // 2)
    voices.says["chat"] = [tuple(delta(text) for _ in range(5))]
    for _ in range(9):
        connection.takes.release()
    await serve(answering(voices), connection)
    assert [len(texts(body)) for body in bodies(connection)[:-1]] == [2, 2, 1]


async def test_a_reader_that_takes_nothing_for_too_long_ends_the_work():
    voices, connection = Voices(), Connection()
    voices.says["chat"] = [delta("a"), asyncio.Event()]
    await serve(answering(voices, stalled_seconds=0.01), connection)
    assert voices.cancelled.is_set()
    assert [message["type"] for message in connection.sent] == ["http.response.start"]


async def test_a_version_that_says_nothing_for_long_is_no_stalled_reader(
    monkeypatch: pytest.MonkeyPatch,
):
    looks = asyncio.Semaphore(0)
    look = Sending._look

    def noted(sending: Sending) -> None:
        look(sending)
        looks.release()

    monkeypatch.setattr(Sending, "_look", noted)
    voices, connection = Voices(), Connection()
    go_on = asyncio.Event()
    voices.says["chat"] = [delta("a"), go_on, delta("b")]
    for _ in range(5):
        connection.takes.release()
    serving = asyncio.create_task(serve(answering(voices, stalled_seconds=0.001), connection))
    for _ in range(3):
        await looks.acquire()
    assert not serving.done()
    go_on.set()
    await serving
    assert not voices.cancelled.is_set()
    assert len(connection.sent) == 4


async def test_who_stays_disturbs_nothing():
    connection = Connection()
    async with WhileThere(connection.receive):
        pass
    connection.closed.set()
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_leaves_cancels_the_block_and_nothing_after_it():
    connection = Connection()
    connection.closed.set()
    with pytest.raises(ClientLeft):
        async with WhileThere(connection.receive):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_another_cancellation_stays_one():
    connection = Connection()

    async def hold() -> None:
        async with WhileThere(connection.receive):
            inside.set()
            await asyncio.Event().wait()

    inside = asyncio.Event()
    holding = asyncio.create_task(hold())
    await inside.wait()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding


async def test_a_cancellation_together_with_a_leaving_stays_one():
    connection = Connection()

    async def hold() -> None:
        async with WhileThere(connection.receive) as client:
            client.leave()
            holding.cancel()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    with pytest.raises(asyncio.CancelledError):
        await holding


async def test_a_time_limit_within_stays_a_time_limit():
    connection = Connection()
    with pytest.raises(TimeoutError):
        async with WhileThere(connection.receive), asyncio.timeout(0):
            await asyncio.Event().wait()
