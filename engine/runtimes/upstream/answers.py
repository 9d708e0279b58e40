"""What an upstream may answer: whole documents, and chunks in their order. Pure.

Answers are checked and passed on as the bytes that came: what OpenAI's protocol gains reaches
clients without a change here. Checked are the members that the protocol is about, that everything
is UTF-8, and that chunks come in an order that makes sense.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from engine.runtimes.documents import ENVELOPE, Kind, Usage
from engine.runtimes.upstream.errors import BrokenOff, Malformed

STREAM_END: Final = b"[DONE]"

Document = TypeVar("Document")


class Delta(msgspec.Struct, frozen=True):
    """What a chunk adds to a chat message."""

    content: str | list[Any] | None = None
    """Text; of some upstreams, parts of several kinds."""


class Choice(msgspec.Struct, frozen=True):
    """Of a chunk: what it adds to the choice `index`. Chat fills `delta`, completions `text`."""

    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def is_empty(self) -> bool:
        """It adds nothing to read."""
        return not self.text and not (self.delta is not None and self.delta.content)


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream. One without choices brings the usage, which the upstream is asked for
    whether the client wanted it or not."""

    data: bytes
    """The JSON, as it came."""
    choices: tuple[Choice, ...]
    usage: Usage | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    body: bytes
    """The JSON, as it came."""
    usage: Usage | None
    attempts: int
    """Requests that were sent for it."""
    upstream_s: float
    """Spent in the upstream and waiting for it, with failed attempts and the pauses between."""


class _ChunkBody(msgspec.Struct, frozen=True, gc=False):
    choices: tuple[Choice, ...] | None = None
    usage: Usage | None = None
    error: Any = None


class _Message(msgspec.Struct, frozen=True, gc=False):
    """An object; text, parts, calls of tools or a refusal, as it likes."""


class _ChatChoice(msgspec.Struct, frozen=True, gc=False):
    message: _Message


class _TextChoice(msgspec.Struct, frozen=True, gc=False):
    text: str


class _Embedding(msgspec.Struct, frozen=True, gc=False):
    embedding: msgspec.Raw


class _Chat(msgspec.Struct, frozen=True, gc=False):
    choices: tuple[_ChatChoice, ...]
    usage: Usage | None = None

    @property
    def is_empty(self) -> bool:
        return not self.choices


class _Completion(msgspec.Struct, frozen=True, gc=False):
    choices: tuple[_TextChoice, ...]
    usage: Usage | None = None

    @property
    def is_empty(self) -> bool:
        return not self.choices


class _Embeddings(msgspec.Struct, frozen=True, gc=False):
    data: tuple[_Embedding, ...]
    usage: Usage | None = None

    @property
    def is_empty(self) -> bool:
        """A vector is an array, or a string when base64 was asked for."""
        return not self.data or any(bytes(one.embedding)[0] not in b'["' for one in self.data)


_decode_document = msgspec.json.Decoder(dict[str, Any]).decode
_decode_chunk = msgspec.json.Decoder(_ChunkBody).decode
_DOCUMENTS: Final = {
    "chat": msgspec.json.Decoder[_Chat | _Completion | _Embeddings](_Chat),
    "text": msgspec.json.Decoder[_Chat | _Completion | _Embeddings](_Completion),
    "embeddings": msgspec.json.Decoder[_Chat | _Completion | _Embeddings](_Embeddings),
}


def whole_usage(kind: Kind, body: bytes) -> Usage | None:
    """Check a whole answer. Raises Malformed."""
    document = _checked(_DOCUMENTS[kind].decode, body, "the upstream's answer")
    if document.is_empty:
        raise Malformed("the upstream's answer holds no result")
    return document.usage


def chunk_of(data: bytes) -> Chunk:
    """Raises Malformed, and BrokenOff for an error in place of a chunk."""
    body = _checked(_decode_chunk, data, "a chunk of the upstream's stream")
    if body.error is not None:
        raise BrokenOff("the upstream reported an error in the middle of its stream")
    if body.choices is None:
        raise Malformed("a chunk of the upstream's stream has no choices")
    return Chunk(data=data, choices=body.choices, usage=body.usage)


def document_in(data: bytes) -> dict[str, Any]:
    """What a checked answer or chunk says, without the members that belong to who was asked.
    Raises Malformed for what no check had to look at: numbers that no machine holds."""
    document: dict[str, Any] = _checked(_decode_document, data, "the upstream's answer")
    for member in ENVELOPE:
        document.pop(member, None)
    return document


def _checked(decode: Callable[[bytes], Document], data: bytes, what: str) -> Document:
    """That the bytes are UTF-8 is looked at apart: the decoder skips over members that it does not
    keep, and clients are sent all of them."""
    try:
        data.decode()
        return decode(data)
    except UnicodeDecodeError:
        wrong = "is not UTF-8"
    except msgspec.ValidationError as error:
        wrong = f"has another shape: {error}"
    except msgspec.DecodeError:
        wrong = "is not JSON"
    except RecursionError:
        wrong = "is nested too deeply"
    raise Malformed(f"{what} {wrong}")


class Order:
    """Whether the chunks of one stream follow each other as they may."""

    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._finished: set[int] = set()

    def take(self, chunk: Chunk) -> None:
        """Raises Malformed for text of a choice that is finished. Empty chunks may follow: some
        upstreams send usage or the verdict of a filter so."""
        for choice in chunk.choices:
            if choice.index in self._finished and not choice.is_empty:
                raise Malformed(f"the upstream's stream goes on after choice {choice.index} ended")
            self._begun.add(choice.index)
            if choice.finish_reason is not None:
                self._finished.add(choice.index)

    @property
    def is_empty(self) -> bool:
        return not self._begun

    @property
    def is_complete(self) -> bool:
        """Nothing more has to come."""
        return bool(self._begun) and self._begun == self._finished
