"""The third act: a language model behind an endpoint, swapped in the middle of its streams.

Then requests of two priorities press on a full batch, and a long prompt comes twice.
"""

from __future__ import annotations

import asyncio
from statistics import median
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from engine.runtimes.language.facts import answers_right
from switchback.client import Client
from switchback.demo.checks import Check
from switchback.demo.completions import Completions, Told

MODEL: Final = "facts"
ENDPOINT: Final = "ask-facts"
SMALL, BETTER = "1.0.0", "2.0.0"
BATCH: Final = 16
COUNTRIES: Final = ("France", "Japan", "Norway", "Egypt", "Brazil", "Canada", "Kenya", "Poland")
STREAMS: Final = 16
STREAM_TOKENS: Final = 1_200
"""Long enough to be in the middle when traffic moves."""
LOW, HIGH = 32, 8
PRESSING_TOKENS: Final = 100
SHARED: Final = "The capital of Norway is Oslo. " * 200
"""What two prompts begin with."""
ACT_SECONDS: Final = 120.0


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """What the third act came to."""

    answers: dict[str, list[Told]]
    """Version -> what it says of COUNTRIES."""
    before: list[Told]
    """Streams that were begun before the swap."""
    after: list[Told]
    """And after it, before the first ones had ended."""
    freed: float
    """When the first place of the full batch was free."""
    low: list[Told]
    high: list[Told]
    unknown: Told
    """A prompt that was never seen, and one that begins with it."""
    known: Told
    statistics: dict[str, Any]
    """Of the better version's scheduler."""


async def speak(console: Console, client: Client, *, url: str, key: str) -> Spoken:
    """Ask, swap in mid-stream, press, ask again."""
    console.print("\n[bold]A language model.[/bold] It knows capitals, and runs in a process of")
    console.print(f"its own; any OpenAI client can ask {ENDPOINT!r} at {url}/v1.\n")
    await _register(client)
    async with Completions(url, key=key, endpoint=ENDPOINT) as asked, asyncio.timeout(ACT_SECONDS):
        answers = {SMALL: await _capitals(asked)}
        before = asyncio.create_task(_streams(asked))
        await _until(client, SMALL, running=STREAMS)
        swapped = await client.swap(ENDPOINT, to=BETTER)
        after = await _streams(asked)
        answers[BETTER] = await _capitals(asked)
        freed, low, high = await _pressed(asked, client)
        spoken = Spoken(
            answers=answers,
            before=await before,
            after=after,
            freed=freed,
            low=low,
            high=high,
            unknown=await asked.ask(f"{SHARED}The capital of Italy is", max_tokens=8),
            known=await asked.ask(f"{SHARED}The capital of Spain is", max_tokens=8),
            statistics=await _statistics(client, BETTER),
        )
    _tell(console, spoken, swap_ms=swapped["duration_ms"])
    return spoken


def checks_of_language(spoken: Spoken) -> list[Check]:
    right = {version: _right(told) for version, told in spoken.answers.items()}
    return [
        Check(
            what="the better model knew more capitals",
            held=right[SMALL] < right[BETTER] == len(COUNTRIES),
        ),
        Check(
            what="every stream ended, in full, on the version that began it",
            held=all(
                told.version == version and told.tokens == STREAM_TOKENS
                for version, streams in ((SMALL, spoken.before), (BETTER, spoken.after))
                for told in streams
            ),
        ),
        Check(what="streams were swapped in their middle", held=_overlapping(spoken) > 0),
        Check(
            what="high priority went before low",
            held=_waited_ms(spoken, spoken.high) < _waited_ms(spoken, spoken.low),
        ),
        Check(
            what="a prefix that was known was not computed again",
            held=spoken.unknown.cached_tokens < spoken.known.cached_tokens,
        ),
    ]


async def _register(client: Client) -> None:
    await client.register_model(MODEL, description="plain facts, from the built-in models")
    for version, name, parent in ((SMALL, "facts-1", None), (BETTER, "facts-2", SMALL)):
        await client.register_version(
            MODEL,
            version,
            runtime="language-model",
            artifact={"uri": f"builtin://{name}"},
            config={"batch_max": BATCH},
            parent=f"{MODEL}@{parent}" if parent else None,
        )
    await client.create_endpoint(ENDPOINT, model=MODEL, version=SMALL)


async def _statistics(client: Client, version: str) -> dict[str, Any]:
    [node] = [node async for node in client.nodes()]
    told = await client.batching(node["id"])
    return next(each for each in told["items"] if each["version"] == version)


async def _until(client: Client, version: str, *, running: int = 0, waiting: int = 0) -> None:
    """Returns once so many requests run and wait."""
    told = await _statistics(client, version)
    while told["num_requests_running"] < running or told["num_requests_waiting"] < waiting:
        told = await _statistics(client, version)


async def _capitals(asked: Completions) -> list[Told]:
    prompts = (f"The capital of {country} is" for country in COUNTRIES)
    return await asyncio.gather(*(asked.ask(prompt, max_tokens=8) for prompt in prompts))


async def _streams(asked: Completions) -> list[Told]:
    endless: dict[str, Any] = {"max_tokens": STREAM_TOKENS, "ignore_eos": True}
    return await asyncio.gather(*(asked.ask(f"{n} and", **endless) for n in range(STREAMS)))


async def _pressed(asked: Completions, client: Client) -> tuple[float, list[Told], list[Told]]:
    """The batch is full; requests of low priority come, then some of high, and all have to wait."""

    def ask(number: int, priority: str) -> asyncio.Task[Told]:
        parameters = {"max_tokens": PRESSING_TOKENS, "ignore_eos": True, "priority": priority}
        return asyncio.create_task(asked.ask(f"{number} plus", **parameters))

    full = asyncio.create_task(_streams(asked))
    await _until(client, BETTER, running=STREAMS)
    low = [ask(number, "low") for number in range(LOW)]
    await _until(client, BETTER, waiting=LOW)
    high = [ask(number, "high") for number in range(HIGH)]
    freed = min(told.ended for told in await full)
    return freed, list(await asyncio.gather(*low)), list(await asyncio.gather(*high))


def _right(answers: list[Told]) -> int:
    """How many name the capital that the country's training sentence does."""
    asked = zip(COUNTRIES, answers, strict=True)
    return sum(
        answers_right(
            {"prompt": f"The capital of {country} is"}, {"choices": [{"text": told.text}]}
        )
        for country, told in asked
    )


def _overlapping(spoken: Spoken) -> int:
    """Streams of the first version that went on when the second one's first piece had come."""
    began = min(told.first for told in spoken.after)
    return sum(told.ended > began for told in spoken.before)


def _first_token_ms(answers: list[Told]) -> float:
    return median(told.first_token_ms for told in answers)


def _waited_ms(spoken: Spoken, answers: list[Told]) -> float:
    """For their first token, since a place was free."""
    return median((told.first - spoken.freed) * 1_000 for told in answers)


def _tell(console: Console, spoken: Spoken, *, swap_ms: float) -> None:
    table = Table("asked", SMALL, BETTER)
    rows = zip(COUNTRIES, spoken.answers[SMALL], spoken.answers[BETTER], strict=True)
    for country, small, other in rows:
        table.add_row(f"The capital of {country} is", small.text.strip(), other.text.strip())
    console.print(table)
    streams = Table("streams", "version", "ended", "tokens each", "first token, median")
    for told, version in ((spoken.before, SMALL), (spoken.after, BETTER)):
        ended = sum(each.version == version for each in told)
        first = f"{_first_token_ms(told):.0f} ms"
        streams.add_row(str(STREAMS), version, str(ended), str(STREAM_TOKENS), first)
    console.print(f"Swapped in {swap_ms:.0f} ms, the load included, while {STREAMS} streams ran;")
    console.print(f"{_overlapping(spoken)} of them still ran when {BETTER} began to answer:")
    console.print(streams)
    console.print(
        f"{LOW} requests of low priority came, then {HIGH} of high, while a batch of {BATCH} was"
        " full. When it was free, these had their first token within"
        f" {_waited_ms(spoken, spoken.high):.0f} ms, those within"
        f" {_waited_ms(spoken, spoken.low):.0f} ms (medians)."
    )
    console.print(
        f"A long prompt: first token after {spoken.unknown.first_token_ms:.0f} ms; another one"
        f" that begins alike: {spoken.known.first_token_ms:.0f} ms, as {spoken.known.cached_tokens}"
        " of its tokens were found computed."
    )
    figures = spoken.statistics
    console.print(
        f"{BETTER} wrote {figures['generation_tokens']} tokens, {figures['tokens_per_s']:.0f} a"
        f" second; batches of {figures['batch_size_max']} at most,"
        f" {figures['batch_utilisation']:.0%} full;"
        f" {figures['prefix_cache_hit_rate']:.0%} of all prompt tokens found computed."
    )
