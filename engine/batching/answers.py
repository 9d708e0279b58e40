"""What becomes of drawn tokens: text, chunks, endings, and blocks that others may share."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from itertools import repeat
from typing import Any

from engine.batching.composing import Composed, Composer
from engine.batching.executor import Drawn
from engine.batching.generation import Generation, State
from engine.batching.memory import Memory
from engine.batching.recovery import Part
from engine.batching.requests import Chunk, Ending
from engine.batching.statistics import Tally


class Answers:
    """The answers of one scheduler's requests, which it removes as they end."""

    def __init__(
        self,
        generations: MutableMapping[int, Generation],
        *,
        composer: Composer,
        memory: Memory,
        tally: Tally,
        eos: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._generations = generations
        self._composer = composer
        self._memory = memory
        self._tally = tally
        self._eos = eos
        self._clock = clock

    def settle(self, composed: Composed, part: Part, drawn: Drawn, chunks: list[Chunk]) -> None:
        """Take in what a part of a batch has yielded. Requests that have ended since are left."""
        filling = [
            generation
            for index in composed.filling
            if part.begin <= index < part.end
            and (generation := composed.generations[index]).state is State.RUNNING
        ]
        for generation in filling:
            self._memory.share(generation)
        self._draw(
            self._answering(composed, part),
            drawn.tokens,
            repeat(None) if drawn.details is None else drawn.details,
            chunks,
        )
        self._composer.growing += [
            generation
            for generation in filling
            if generation.computed == generation.room and generation.state is State.RUNNING
        ]

    def _answering(self, composed: Composed, part: Part) -> Sequence[Generation]:
        generations = composed.generations
        if len(part.batch.sampled) == len(generations):
            return generations
        return [generations[part.begin + index] for index in part.batch.sampled]

    def last(self, generation: Generation, ending: Ending, detail: Any = None) -> Chunk:
        """End it between two tokens."""
        text = generation.spelling.finish()
        self.drop(generation, ending)
        return _ended(generation, None, text, ending, detail)

    def drop(self, generation: Generation, ending: Ending) -> None:
        """End it without a word; its blocks are free then."""
        self._composer.drop(generation)
        self._tally.end(generation, ending, self._clock())
        del self._generations[generation.number]

    def _draw(
        self,
        answering: Sequence[Generation],
        tokens: Sequence[int],
        details: Sequence[Any] | repeat[None],
        chunks: list[Chunk],
    ) -> None:
        now_s, eos = self._clock(), self._eos
        add = chunks.append
        drawn = 0
        for generation, token, detail in zip(answering, tokens, details, strict=False):
            if generation.state is not State.RUNNING:
                continue
            if generation.first_s is None:
                generation.first_s = now_s
                self._tally.began(generation, now_s)
            if token == eos:
                add(self.last(generation, "stop", detail))
                continue
            drawn += 1
            held = generation.tokens
            held.append(token)
            text = generation.plain.get(token)
            if text is None:
                add(self._spelled(generation, token, detail))
            elif len(held) == generation.limit:
                self.drop(generation, "length")
                add(_ended(generation, token, text, "length", detail))
            else:
                add(Chunk(generation.number, token, text, None, detail))
        self._tally.drew(drawn, now_s)

    def _spelled(self, generation: Generation, token: int, detail: Any) -> Chunk:
        """A token that is new, a part of a character, or maybe one of a stop string."""
        try:
            text, stopped = generation.spelling.add(token)
        except (LookupError, ValueError) as error:
            generation.tokens.pop()
            return self.last(generation, "failed", f"token {token}: {error}")
        generation.plain = generation.spelling.plain
        ending: Ending | None = None
        if stopped:
            ending = "stop"
        elif len(generation.tokens) == generation.limit:
            ending = "length"
            text += generation.spelling.finish()
        if ending is None:
            return Chunk(generation.number, token, text, None, detail)
        self.drop(generation, ending)
        return _ended(generation, token, text, ending, detail)


def _ended(
    generation: Generation, token: int | None, text: str, ending: Ending, detail: Any
) -> Chunk:
    return Chunk(
        generation.number,
        token,
        text,
        ending,
        detail,
        generation.spelling.stop if ending == "stop" else None,
        generation.cached,
    )
