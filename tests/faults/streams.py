"""Many streams at once, each read to its end, whatever that is."""

from __future__ import annotations

import asyncio
from typing import Any

import openai

from tests.scenarios.language import Facts

STREAMS = 20


async def begun(asked: Facts, **parameters: Any) -> list[Begun]:
    """Streams of which the first piece is here."""
    counted = {"stream_options": {"include_usage": True}}
    made = await asyncio.gather(*(asked.stream(**parameters, **counted) for _ in range(STREAMS)))
    return [Begun(stream, [await anext(stream)]) for stream in made]


class Begun:
    """A stream that is read as far as `pieces`."""

    def __init__(self, stream: Any, pieces: list[Any]) -> None:
        self.stream = stream
        self.pieces = pieces

    async def end(self) -> tuple[str, int] | str:
        """All of its text and how many tokens it is; or the code it broke with."""
        try:
            self.pieces += [piece async for piece in self.stream]
        except openai.APIError as error:
            assert isinstance(error.body, dict), error
            return str(error.body["code"])
        text = "".join(piece.choices[0].text for piece in self.pieces if piece.choices)
        return text, self.pieces[-1].usage.completion_tokens


def answered(answer: Any) -> tuple[str, int]:
    return answer.choices[0].text, answer.usage.completion_tokens
