"""From pieces to OpenAI's documents: chunks of a stream, or the outputs as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from engine.batching import Ending
from engine.runtimes.language.asking import Asked
from engine.runtimes.language.wire import DrawnLogprobs, End, Piece, TokenLogprob

FINISH: Final[dict[Ending, str]] = {"stop": "stop", "length": "length", "deadline": "length"}
"""Why an answer ended -> OpenAI's word. The others are failures."""


class Answers:
    """Of one request."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._begun: set[int] = set()
        self._offsets: dict[int, int] = {}
        self._ends: dict[int, End] = {}

    @property
    def complete(self) -> bool:
        """Whether every choice has ended."""
        return len(self._ends) == self._asked.choices

    def chunk(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """What is new, by choice."""
        return {"choices": [self._streamed(piece) for piece in pieces]}

    def usage(self) -> dict[str, Any]:
        """Once complete. A prompt counts once, however many choices it has."""
        firsts = [self._ends[index] for index in range(0, len(self._ends), self._asked.n)]
        prompt_tokens = sum(end.prompt_tokens for end in firsts)
        completion_tokens = sum(end.completion_tokens for end in self._ends.values())
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(end.cached_tokens for end in firsts)},
        }

    def outputs(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """Of whole choices, in any order."""
        choices = [self._whole(piece) for piece in sorted(pieces, key=lambda each: each.choice)]
        return {"choices": choices, "usage": self.usage()}

    def _streamed(self, piece: Piece) -> dict[str, Any]:
        if self._asked.kind == "text":
            return self._choice(piece, {"text": piece.text})
        delta = {"content": piece.text} if piece.text or piece.choice not in self._begun else {}
        if piece.choice not in self._begun:
            self._begun.add(piece.choice)
            delta = {"role": "assistant", **delta}
        return self._choice(piece, {"delta": delta})

    def _whole(self, piece: Piece) -> dict[str, Any]:
        if self._asked.kind == "text":
            return self._choice(piece, {"text": piece.text})
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        return self._choice(piece, {"message": message})

    def _choice(self, piece: Piece, said: dict[str, Any]) -> dict[str, Any]:
        choice = {
            "index": piece.choice,
            **said,
            "logprobs": self._logprobs(piece),
            "finish_reason": None,
        }
        if piece.end is not None:
            self._ends[piece.choice] = piece.end
            choice["finish_reason"] = FINISH[piece.end.ending]
            deadline = piece.end.ending == "deadline"
            choice["stop_reason"] = "deadline" if deadline else piece.end.stop
        return choice

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if self._asked.sampling.logprobs is None:
            return None
        if self._asked.kind == "chat":
            return {"content": [_chat_token(drawn) for drawn in piece.logprobs], "refusal": None}
        return self._text_tokens(piece.choice, piece.logprobs)

    def _text_tokens(self, choice: int, drawn: Sequence[DrawnLogprobs]) -> dict[str, Any]:
        offsets = []
        for each in drawn:
            offsets.append(self._offsets.get(choice, 0))
            self._offsets[choice] = offsets[-1] + len(each.chosen.text.decode(errors="replace"))
        return {
            "tokens": [_shown(each.chosen) for each in drawn],
            "token_logprobs": [each.chosen.logprob for each in drawn],
            "top_logprobs": [{_shown(top): top.logprob for top in each.top} for each in drawn],
            "text_offset": offsets,
        }


def _chat_token(drawn: DrawnLogprobs) -> dict[str, Any]:
    return _told(drawn.chosen) | {"top_logprobs": [_told(top) for top in drawn.top]}


def _told(token: TokenLogprob) -> dict[str, Any]:
    return {"token": _shown(token), "logprob": token.logprob, "bytes": list(token.text)}


def _shown(token: TokenLogprob) -> str:
    """A part of a character is told by its bytes, as OpenAI does."""
    try:
        return token.text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.text)
