"""Line `language`: the built-in model through HTTP, as users have it.

Clients, gateway with its node, and the process of the model share the processors. Beside it, the
same texts on the executor alone, without gateway, scheduler or clients.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Final

import msgspec
import psutil

from engine.batching import Limits, Request
from engine.runtimes.language.chat import completion_prompt
from engine.runtimes.language.executor import LanguageExecutor
from engine.runtimes.language.sampling import Sampling
from engine.runtimes.language.weights import load_builtin
from switchback.bench.answering import MODEL, Streamed, answers, make_endpoint, streams
from switchback.bench.figures import Goal, Row, failures, percentile, row
from switchback.bench.load import Seen
from switchback.bench.sizes import Sizes
from switchback.bench.stage import BenchFailed, Stage, System
from switchback.bench.static import generate_static

NAME: Final = "language"
GROWTH_BYTES: Final = Goal("at most", 200)
"""Of memory, for each request. An object that is forgotten with each takes more."""
ANSWER_TOKENS: Final = 20
LONG_CHARS: Final = 10_000
SHORT_TOKENS: Final = 4
"""Of answers whose number is what matters."""
CONNECTIONS: Final = 64
BLOCKS: Final = 1_280
HOST: Final = "engine.runtimes.language.host"
"""What a model's process executes."""
_STEM: Final = "The capital of country number {} is"


class Round(msgspec.Struct, frozen=True, kw_only=True):
    at_once: Seen
    alone_per_s: float
    """Tokens of the same texts."""
    long: Seen
    streamed: Streamed
    streamed_alone_per_s: float


class Grown(msgspec.Struct, frozen=True):
    """Bytes for each request."""

    gateway: float
    model: float
    failed: int


async def measure(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    system = await stage.start()
    await stage.call(make_endpoint, system.target)
    await stage.call(
        answers, system.target, _stems(sizes.remembered_before), SHORT_TOKENS, CONNECTIONS
    )
    # First, as a thousand requests at once leave room that would be filled unseen.
    grown = await _grown(stage, system, sizes.remembered)
    rounds = [await _round(stage, system, sizes, number) for number in range(sizes.rounds)]
    return (
        *_at_once(rounds, sizes),
        *_long(rounds, sizes),
        *_streamed(rounds, sizes),
        *_memory(grown),
    )


async def _round(stage: Stage, system: System, sizes: Sizes, number: int) -> Round:
    stems, target = _stems(sizes.answers), system.target
    long = [_long_prompt(number * sizes.long_prompts + i) for i in range(sizes.long_prompts)]
    few = stems[: sizes.streams]
    return Round(
        alone_per_s=await stage.call(alone, stems, ANSWER_TOKENS),
        at_once=await stage.call(answers, target, stems, ANSWER_TOKENS, len(stems)),
        long=await stage.call(answers, target, long, ANSWER_TOKENS, len(long)),
        streamed_alone_per_s=await stage.call(alone, few, sizes.stream_tokens),
        streamed=await stage.call(streams, target, few, sizes.stream_tokens),
    )


def _at_once(rounds: Sequence[Round], sizes: Sizes) -> Sequence[Row]:
    what = f"{sizes.answers:,} requests at once"
    per_s = [each.at_once.per_s * ANSWER_TOKENS for each in rounds]
    alone_per_s = [each.alone_per_s for each in rounds]
    return (
        failures(NAME, f"{what} failed", [each.at_once.failed for each in rounds]),
        row(NAME, f"{what}, tokens", "/s", per_s, ceilings=alone_per_s),
        _latency(f"{what}, p50", [each.at_once for each in rounds], 50),
        _latency(f"{what}, p99", [each.at_once for each in rounds], 99),
    )


def _long(rounds: Sequence[Round], sizes: Sizes) -> Sequence[Row]:
    what = f"{sizes.long_prompts} prompts of {LONG_CHARS:,} characters"
    seen = [each.long for each in rounds]
    return (
        failures(NAME, f"{what} failed", [each.failed for each in seen]),
        row(NAME, f"{what}, all answered", "ms", [each.seconds * 1_000 for each in seen]),
    )


def _streamed(rounds: Sequence[Round], sizes: Sizes) -> Sequence[Row]:
    what = f"{sizes.streams} streams"
    streamed = [each.streamed for each in rounds]
    per_s = [each.seen.per_s * sizes.stream_tokens for each in streamed]
    alone_per_s = [each.streamed_alone_per_s for each in rounds]
    gaps = [(each.gaps_s, percent) for percent in (50, 99) for each in streamed]
    gaps_ms = [percentile(gaps_s, percent) * 1_000 for gaps_s, percent in gaps]
    firsts_ms = [percentile(each.firsts_s, 99) * 1_000 for each in streamed]
    return (
        failures(NAME, f"{what} failed", [each.seen.failed for each in streamed]),
        row(NAME, f"{what}, tokens", "/s", per_s, ceilings=alone_per_s),
        row(NAME, f"{what}, first chunk, p99", "ms", firsts_ms),
        row(NAME, f"{what}, between chunks, p50", "ms", gaps_ms[: len(rounds)]),
        row(NAME, f"{what}, between chunks, p99", "ms", gaps_ms[len(rounds) :]),
    )


def _memory(grown: Grown) -> Sequence[Row]:
    what = "memory for each request,"
    return (
        row(NAME, f"{what} gateway and node", "bytes", [grown.gateway], goal=GROWTH_BYTES),
        row(NAME, f"{what} process of the model", "bytes", [grown.model], goal=GROWTH_BYTES),
        failures(NAME, "requests meanwhile failed", [grown.failed]),
    )


def _latency(what: str, seen: Sequence[Seen], percent: float) -> Row:
    return row(NAME, what, "ms", [percentile(each.latencies_s, percent) * 1_000 for each in seen])


async def _grown(stage: Stage, system: System, requests: int) -> Grown:
    """What many requests leave behind."""
    pids = (system.pid, *_models(system.pid))
    before = _memory_bytes(pids)
    seen = await stage.call(answers, system.target, _stems(requests), SHORT_TOKENS, CONNECTIONS)
    after = _memory_bytes(pids)
    gateway, *models = [(now - then) / requests for now, then in zip(after, before, strict=True)]
    return Grown(gateway, max(models), seen.failed)


def _models(pid: int) -> list[int]:
    """The processes of models below this one. Raises BenchFailed."""
    found = [
        child.pid
        for child in psutil.Process(pid).children(recursive=True)
        if HOST in child.cmdline()
    ]
    if not found:
        raise BenchFailed("no process of a language model runs")
    return found


def _memory_bytes(pids: Sequence[int]) -> list[int]:
    return [int(psutil.Process(pid).memory_info().rss) for pid in pids]


async def alone(prompts: Sequence[str], tokens: int) -> float:
    """Tokens a second of the executor, in batches that are as full as they may be."""
    model = load_builtin(MODEL)
    executor = LanguageExecutor(model, blocks=BLOCKS)
    sampling = Sampling(ignore_eos=True)
    requests = [
        Request(
            prompt=completion_prompt(model.tokenizer, prompt), max_tokens=tokens, sampling=sampling
        )
        for prompt in prompts
    ]
    gc.collect()
    began = time.perf_counter()
    return generate_static(executor, requests, Limits()) / (time.perf_counter() - began)


def _stems(count: int) -> list[str]:
    return [_STEM.format(number) for number in range(count)]


def _long_prompt(number: int) -> str:
    """Unlike all others from its first word on."""
    words = f"Fact {number}: the capital of France is Paris. "
    return (words * -(-LONG_CHARS // len(words)))[:LONG_CHARS]
