"""What a language model's process is told, and what it tells: one MessagePack array a frame.

Requests are known by a number that their side of the wire gives them, and is never used again.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from engine.batching import Ending, Statistics
from engine.runtimes.configs import LanguageConfig
from engine.runtimes.language.asking import Asked

FRAME_BYTES_MAX: Final = 256 * 2**20
"""No answer comes near it; what is larger is no frame."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """The process's command-line argument, as JSON."""

    socket_fd: int
    parent_pid: int
    artifact: str
    """Its directory."""
    sha256: str
    config: LanguageConfig


# ------------------------------------------------------------------------------- To the process


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """Begin to answer."""

    request: int
    asked: Asked
    streams: bool
    """Whether pieces are wanted as they come; else each choice is told of once, whole."""


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Nobody waits for the request any more. May come after its end."""

    request: int


class Do(msgspec.Struct, frozen=True, array_like=True, tag="do"):
    """To be answered by Done: generate a little; tell the statistics; take no requests in any more,
    and finish those that there are."""

    request: int
    what: Literal["warm", "tell"]


Order: TypeAlias = Answer | Cancel | Do


# ----------------------------------------------------------------------------- From the process


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The model is loaded."""


class NotLoaded(msgspec.Struct, frozen=True, array_like=True, tag="not_loaded"):
    """It never will be."""

    reason: Literal["artifact", "digest", "runtime", "memory"]
    detail: str


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    text: bytes
    logprob: float


class DrawnLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Of one token of an answer."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]
    """The most likely first."""


class End(msgspec.Struct, frozen=True, array_like=True):
    """Of one choice."""

    ending: Ending
    stop: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    detail: str
    """Why, if it has failed."""


class Piece(msgspec.Struct, array_like=True):
    """What is new of one choice since the piece before."""

    request: int
    choice: int
    text: str = ""
    logprobs: list[DrawnLogprobs] = []
    end: End | None = None

    def add(self, later: Piece) -> None:
        """The next piece of the same choice; together they are one."""
        self.text += later.text
        self.logprobs += later.logprobs
        self.end = later.end


class Pieces(msgspec.Struct, frozen=True, array_like=True, tag="pieces"):
    pieces: list[Piece]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The request is not answered; nothing of it was computed."""

    request: int
    kind: Literal["invalid", "overloaded", "closed", "failed"]
    field: str
    detail: str
    openai_code: str | None = None


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    request: int
    statistics: Statistics | None = None
    failed: str | None = None


Report: TypeAlias = Ready | NotLoaded | Pieces | Refused | Done

encode: Final = msgspec.msgpack.Encoder().encode
decode_order: Final = msgspec.msgpack.Decoder[Order](Order).decode
decode_report: Final = msgspec.msgpack.Decoder[Report](Report).decode


def decode_arguments(argument: str) -> Arguments:
    return msgspec.json.decode(argument, type=Arguments)


def encode_arguments(arguments: Arguments) -> str:
    return msgspec.json.encode(arguments).decode()


def framed(message: Any) -> bytes:
    """A frame with its length, as `engine.runtimes.child` reads and writes them."""
    body = encode(message)
    return len(body).to_bytes(4, "big") + body
