"""Line `generation`: what batching gains with a real model, in one process, without HTTP.

The model is the built-in `facts-2`; answers have a length that is drawn beforehand, many short and
few long, as answers are. What is compared runs on the same executor with the same limits, in turns.
Seconds are the processor's: the thread does nothing but this, and others do not count.

- *static batches* keep their shape until their longest answer has ended, see `static`.
- *ended rows left out* is the best that static batches could be: who has ended is not computed on,
  but nobody takes the place. A processor gains little by more than 8 rows in a step, so this loses
  little here; on hardware where a step takes equally long for any number of rows, it loses what
  static batches do.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from time import monotonic, thread_time
from typing import Final

import msgspec
import numpy as np

from engine.batching import Limits, Request, Scheduler
from engine.runtimes.language.executor import LanguageExecutor
from engine.runtimes.language.sampling import Sampling
from engine.runtimes.language.tokenizer import FIRST_MERGED
from engine.runtimes.language.weights import LanguageModel, load_builtin
from switchback.bench.figures import Goal, Row, row
from switchback.bench.sizes import Sizes
from switchback.bench.stage import Clients
from switchback.bench.static import generate_static

NAME: Final = "generation"
BY_STATIC: Final = Goal("at least", 2.0)
BY_ONE: Final = Goal("at least", 4.0)
SOONER: Final = Goal("at least", 5.0)
MODEL: Final = "facts-2"
VOCABULARY: Final = 512
"""Its tokens."""
LIMITS: Final = Limits(waiting_max=100_000)
PROMPT_TOKENS: Final = (4, 64)
ANSWER_TOKENS: Final = (4, 256)
"""Equally many in each octave."""
EVEN_PROMPT_TOKENS: Final = 16
EVEN_ANSWER_TOKENS: Final = 96
SHARED_TOKENS: Final = 512
OWN_TOKENS: Final = 16
"""Of a prompt, behind those that it shares."""
ENDLESS: Final = Sampling(ignore_eos=True)


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """A round: tokens a second in each way, and seconds to first tokens."""

    continuous: float
    static: float
    left_out: float
    one: float
    scheduled: float
    """All answers of one length, as many as a batch holds."""
    alone: float
    """The same without a scheduler."""
    cold_s: float
    """To the first token of a prompt that nobody had before."""
    warm_s: float
    """Of another one that begins with the same 512 tokens."""


async def measure(clients: Clients, sizes: Sizes) -> Sequence[Row]:
    rounds = await clients.call(
        generate, sizes.rounds, sizes.generated, sizes.generated_singly, sizes.prefixes
    )
    return rows(rounds)


def rows(rounds: Sequence[Generated]) -> Sequence[Row]:
    def every(figure: Callable[[Generated], float]) -> list[float]:
        return [figure(each) for each in rounds]

    def compared(what: str, by: Callable[[Generated], float], goal: Goal | None) -> Row:
        times = every(lambda each: each.continuous / by(each))
        return row(NAME, f"continuous by {what}", "times", times, goal=goal)

    scheduled, alone = every(lambda e: e.scheduled), every(lambda e: e.alone)
    continuous, full = every(lambda e: e.continuous), "answers of one length"
    cold_ms, warm_ms = every(lambda e: e.cold_s * 1e3), every(lambda e: e.warm_s * 1e3)
    sooner = every(lambda e: e.cold_s / e.warm_s)
    return (
        row(NAME, f"tokens, {full}", "/s", scheduled, ceilings=alone),
        row(NAME, "tokens, mixed lengths, continuous", "/s", continuous, ceilings=alone),
        row(NAME, "tokens, mixed lengths, static batches", "/s", every(lambda e: e.static)),
        row(NAME, "tokens, mixed lengths, one at a time", "/s", every(lambda e: e.one)),
        compared("static batches", lambda e: e.static, BY_STATIC),
        compared("static batches, ended rows left out", lambda e: e.left_out, None),
        compared("one at a time", lambda e: e.one, BY_ONE),
        row(NAME, f"first token, {SHARED_TOKENS} tokens shared", "ms", warm_ms, ceilings=cold_ms),
        row(NAME, "sooner than the first with these", "times", sooner, goal=SOONER),
    )


async def generate(rounds: int, requests: int, singly: int, prefixes: int) -> list[Generated]:
    """`requests` in batches; `singly` of them one at a time; pairs of prompts with one prefix."""
    model = load_builtin(MODEL)
    longest = PROMPT_TOKENS[1] + ANSWER_TOKENS[1]
    ways = _Ways(model, blocks=LIMITS.batch_max * -(-longest // 16))
    ways.round(_generator(0), requests=min(requests, LIMITS.batch_max), singly=1, prefixes=1)
    return [
        ways.round(_generator(number), requests=requests, singly=singly, prefixes=prefixes)
        for number in range(1, rounds + 1)
    ]


class _Ways:
    """To generate, all on one executor."""

    def __init__(self, model: LanguageModel, *, blocks: int) -> None:
        self._model = model
        self._executor = LanguageExecutor(model, blocks=blocks)

    def round(
        self, generator: np.random.Generator, *, requests: int, singly: int, prefixes: int
    ) -> Generated:
        mixed = [_mixed(generator) for _ in range(requests)]
        even = [
            _request(generator, EVEN_PROMPT_TOKENS, EVEN_ANSWER_TOKENS)
            for _ in range(min(requests, LIMITS.batch_max))
        ]
        cold_s, warm_s = self._first_tokens(generator, prefixes)
        return Generated(
            continuous=_tokens_per_s(self._continuous, mixed),
            static=_tokens_per_s(self._static, mixed),
            left_out=_tokens_per_s(self._left_out, mixed),
            one=_tokens_per_s(self._one, mixed[:singly]),
            scheduled=_tokens_per_s(self._continuous, even),
            alone=_tokens_per_s(self._static, even),
            cold_s=cold_s,
            warm_s=warm_s,
        )

    def _continuous(self, requests: Sequence[Request]) -> int:
        return self._scheduled(requests, LIMITS)

    def _static(self, requests: Sequence[Request]) -> int:
        return generate_static(self._executor, requests, LIMITS)

    def _left_out(self, requests: Sequence[Request]) -> int:
        size = LIMITS.batch_max
        batches = (requests[first : first + size] for first in range(0, len(requests), size))
        return sum(self._scheduled(batch, LIMITS) for batch in batches)

    def _one(self, requests: Sequence[Request]) -> int:
        return self._scheduled(requests, msgspec.structs.replace(LIMITS, batch_max=1))

    def _scheduled(self, requests: Sequence[Request], limits: Limits) -> int:
        scheduler = self._scheduler(limits)
        for request in requests:
            scheduler.submit(request)
        while scheduler.busy:
            scheduler.step()
        return scheduler.statistics().generation_tokens

    def _first_tokens(self, generator: np.random.Generator, pairs: int) -> tuple[float, float]:
        """Seconds to the first tokens of pairs of prompts: of the first ones, of the second."""
        scheduler = self._scheduler(LIMITS)
        seconds = [0.0, 0.0]
        for _ in range(pairs):
            shared = _tokens(generator, SHARED_TOKENS)
            for which in (0, 1):
                prompt = shared + _tokens(generator, OWN_TOKENS)
                began = thread_time()
                scheduler.submit(Request(prompt=prompt, max_tokens=1, sampling=ENDLESS))
                while scheduler.busy:
                    scheduler.step()
                seconds[which] += thread_time() - began
        return seconds[0] / pairs, seconds[1] / pairs

    def _scheduler(self, limits: Limits) -> Scheduler:
        token_bytes = self._model.tokenizer.token_bytes
        return Scheduler(self._executor, token_bytes, limits=limits, clock=monotonic)


def _tokens_per_s(way: Callable[[Sequence[Request]], int], requests: Sequence[Request]) -> float:
    gc.collect()
    began = thread_time()
    tokens = way(requests)
    return tokens / (thread_time() - began)


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _mixed(generator: np.random.Generator) -> Request:
    low, high = ANSWER_TOKENS
    answer = round(math.exp(generator.uniform(math.log(low), math.log(high))))
    return _request(generator, int(generator.integers(*PROMPT_TOKENS, endpoint=True)), answer)


def _request(generator: np.random.Generator, prompt_tokens: int, answer_tokens: int) -> Request:
    prompt = _tokens(generator, prompt_tokens)
    return Request(prompt=prompt, max_tokens=answer_tokens, sampling=ENDLESS)


def _tokens(generator: np.random.Generator, count: int) -> list[int]:
    """Of the tokens that stand for texts rather than for bytes."""
    tokens: list[int] = generator.integers(FIRST_MERGED, VOCABULARY, count).tolist()
    return tokens
