"""What callers ask of the scheduler, what they get, and why they are refused."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, Literal, TypeAlias

import msgspec

STOP_STRINGS_MAX: Final = 16
STOP_CHARS_MAX: Final = 256
"""Of one stop string."""


class Priority(IntEnum):
    """How long others may go before: each class is worth `ageing_seconds` of waiting."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


Ending: TypeAlias = Literal["stop", "length", "deadline", "cancelled", "aborted", "failed"]
"""Why a request ended: at the end of its text or at a stop string; after `max_tokens`; at its
deadline; by its caller; because the scheduler was stopped; because it could not be computed."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A text to be continued."""

    prompt: Sequence[int]
    """Tokens."""
    max_tokens: int
    """Of the answer, which has no more than these, and exactly these if nothing ends it before."""
    tenant: str = ""
    """Computed prefixes are shared within a tenant only."""
    priority: Priority = Priority.NORMAL
    stop: tuple[str, ...] = ()
    """The answer ends before the one that is complete first, wherever token borders are."""
    deadline_s: float | None = None
    """On the scheduler's clock. The request ends then, with what it has."""
    sampling: Any = None
    """Handed to the executor."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of an answer. Chunks of a request come in order; the last one has an ending.

    The text lags behind the tokens while it may turn out to be the start of a stop string, or is
    not a whole character. All text together is the answer, without its stop string.
    """

    request: int
    token: int | None
    """None for an ending without a token, such as the end-of-sequence token."""
    text: str
    ending: Ending | None = None
    detail: Any = None
    """What the runtime told of the token; of an ending by failure, what failed."""
    stop: str | None = None
    """The stop string that has ended it, if one has."""
    cached_tokens: int = 0
    """Of the prompt, those that were found computed; told with the ending."""


class Refused(Exception):
    """The request was not taken in, and nothing is kept of it."""


class RequestInvalid(Refused):
    """No scheduler would take it."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class ContextExceeded(Refused):
    """Prompt and answer together are longer than the model's context."""

    def __init__(self, tokens: int, context_tokens: int) -> None:
        super().__init__(f"{tokens} tokens, of at most {context_tokens}")
        self.tokens = tokens
        self.context_tokens = context_tokens


class NeverFits(Refused):
    """It would need more blocks than there are, were it alone."""

    def __init__(self, blocks: int, total: int) -> None:
        super().__init__(f"{blocks} blocks, of {total}")
        self.blocks = blocks
        self.total = total


class QueueFull(Refused):
    """As many requests wait as may wait. Later it may be taken."""

    def __init__(self, waiting_max: int) -> None:
        super().__init__(f"{waiting_max} requests are waiting")
        self.waiting_max = waiting_max


class Closed(Refused):
    """Requests are not taken in any more."""

    def __init__(self) -> None:
        super().__init__("not taking requests")


def check(request: Request) -> None:
    """Raises RequestInvalid."""
    if not request.prompt:
        raise RequestInvalid("prompt", "is empty")
    if request.max_tokens < 1:
        raise RequestInvalid("max_tokens", f"{request.max_tokens} is less than 1")
    if len(request.stop) > STOP_STRINGS_MAX:
        raise RequestInvalid("stop", f"{len(request.stop)} strings, of at most {STOP_STRINGS_MAX}")
    for index, stop in enumerate(request.stop):
        if not 0 < len(stop) <= STOP_CHARS_MAX:
            raise RequestInvalid(
                f"stop[{index}]", f"{len(stop)} characters, not 1 to {STOP_CHARS_MAX}"
            )
