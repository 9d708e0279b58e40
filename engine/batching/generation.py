"""One request on its way through the scheduler."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

from engine.batching.blocks import Block
from engine.batching.requests import Priority, Request
from engine.batching.text import Spelling, Vocabulary

Rank: TypeAlias = tuple[float, int]
"""The order in which requests are served, lesser first: arrival and class of priority in seconds,
then number. It never changes, so whoever is preempted keeps its place, and whoever waits long
enough stands before those of a better class that come later."""


class State(IntEnum):
    WAITING = 0
    RUNNING = 1
    ENDED = 2


class Generation:
    """What is known of a request that was taken in. Two numbers say how far it is: `computed`
    tokens have keys and values, of those in `tokens`. Steps make them meet."""

    __slots__ = (
        "admitted_s",
        "arrived_s",
        "blocks",
        "cached",
        "computed",
        "digests",
        "first_s",
        "limit",
        "number",
        "passes",
        "plain",
        "preemptions",
        "prompt_tokens",
        "rank",
        "registered",
        "request",
        "room",
        "sampling",
        "spelling",
        "state",
        "table",
        "tokens",
    )

    def __init__(
        self,
        number: int,
        request: Request,
        *,
        now_s: float,
        ageing_seconds: float,
        vocabulary: Vocabulary,
    ) -> None:
        self.number = number
        self.request = request
        self.sampling = request.sampling
        self.rank: Rank = rank_of(number, request.priority, now_s, ageing_seconds)
        self.state = State.WAITING
        self.tokens: list[int] = list(request.prompt)
        """Prompt and answer so far."""
        self.prompt_tokens = len(self.tokens)
        self.limit = self.prompt_tokens + request.max_tokens
        """Length of `tokens` at which the request ends."""
        self.computed = 0
        self.blocks: list[Block] = []
        self.table: list[int] = []
        """The numbers of `blocks`."""
        self.room = 0
        """Tokens that `blocks` can hold."""
        self.cached = 0
        """Tokens of the prompt that were found computed."""
        self.digests: list[bytes] = []
        self.registered = 0
        """Leading blocks that are shared, or were offered for sharing."""
        self.spelling = Spelling(vocabulary, request.stop)
        self.plain = self.spelling.plain
        """A copy, for the step's innermost loop."""
        self.passes = 0
        """Requests of a worse rank that were admitted while this one did not fit."""
        self.preemptions = 0
        self.arrived_s = now_s
        self.admitted_s: float | None = None
        self.first_s: float | None = None
        """When the first token came."""

    @property
    def answered(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_tokens


def rank_of(number: int, priority: Priority, now_s: float, ageing_seconds: float) -> Rank:
    """The place of a request that arrives now."""
    return now_s + priority * ageing_seconds, number
