"""From what is asked to requests of the scheduler, and from their chunks to pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from engine.batching import Chunk, Ending, Priority, Request, TokenBytes
from engine.runtimes.documents import CONTEXT_EXCEEDED
from engine.runtimes.language.asking import SEEDS, TEXT_TOKENS, Asked
from engine.runtimes.language.chat import chat_prompt, completion_prompt
from engine.runtimes.language.prompting import Prompt
from engine.runtimes.language.sampling import Logprobs
from engine.runtimes.language.tokenizer import Tokenizer
from engine.runtimes.language.wire import DrawnLogprobs, End, Piece, TokenLogprob
from engine.runtimes.runtime import RequestRefused


class Choice:
    """One text in the making."""

    __slots__ = ("_drawn", "_give", "_piece", "_prompt_tokens", "_streams", "_token_bytes")

    def __init__(
        self,
        piece: Piece,
        *,
        prompt_tokens: int,
        streams: bool,
        token_bytes: TokenBytes,
        give: Callable[[Piece], None],
    ) -> None:
        """`piece` is what the answer begins with."""
        self._piece = piece
        self._prompt_tokens = prompt_tokens
        self._streams = streams
        self._token_bytes = token_bytes
        self._give = give
        self._drawn = 0

    def take(self, chunk: Chunk) -> None:
        piece = self._piece
        piece.text += chunk.text
        if chunk.token is not None:
            self._drawn += 1
            if isinstance(chunk.detail, Logprobs):
                piece.logprobs.append(self._logprobs(chunk.token, chunk.detail))
        if chunk.ending is not None:
            piece.end = self._end(chunk, chunk.ending)
        elif not self._streams or not (piece.text or piece.logprobs):
            return
        self._piece = Piece(piece.request, piece.choice)
        self._give(piece)

    def _end(self, chunk: Chunk, ending: Ending) -> End:
        return End(
            ending=ending,
            stop=chunk.stop,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._drawn,
            cached_tokens=chunk.cached_tokens,
            detail=str(chunk.detail)[:1_000] if ending == "failed" else "",
        )

    def _logprobs(self, token: int, known: Logprobs) -> DrawnLogprobs:
        spelled = self._token_bytes
        return DrawnLogprobs(
            TokenLogprob(spelled(token), known.chosen),
            tuple(TokenLogprob(spelled(other), logprob) for other, logprob in known.top),
        )


def tokens_of(prompt: Prompt, tokenizer: Tokenizer, context_tokens: int) -> list[int]:
    """Raises RequestRefused. A megabyte of text takes about a second."""
    if prompt.tokens is not None:
        if max(prompt.tokens) >= tokenizer.vocabulary:
            raise RequestRefused("prompt", f"the tokens are 0 to {tokenizer.vocabulary - 1}")
        return list(prompt.tokens)
    texts = [message.content for message in prompt.messages or ()] or [prompt.text or ""]
    least = sum(map(len, texts)) // tokenizer.token_chars_max
    if least >= context_tokens:  # without taking the time to count
        raise _too_long(_field(prompt), f"more than {least} tokens, of {context_tokens}")
    if prompt.messages is not None:
        return chat_prompt(tokenizer, prompt.messages)
    return completion_prompt(tokenizer, prompt.text or "")


def requests_of(
    asked: Asked,
    prompts: Sequence[Sequence[int]],
    *,
    context_tokens: int,
    max_tokens: int,
    now_s: float,
) -> list[Request]:
    """One for each choice, in order; `max_tokens` is for chats that name none. Raises
    RequestRefused."""
    requests: list[Request] = []
    for prompt, tokens in zip(asked.prompts, prompts, strict=True):
        room = context_tokens - len(tokens)
        if room < 1:
            raise _too_long(
                _field(prompt), f"{len(tokens)} tokens; the context is {context_tokens}"
            )
        if asked.max_tokens is not None and asked.max_tokens > room:
            raise _too_long(
                "max_tokens", f"the prompt leaves room for {room} of {context_tokens} tokens"
            )
        default = TEXT_TOKENS if asked.kind == "text" else max_tokens
        for _ in range(asked.n):
            requests.append(
                Request(
                    prompt=tokens,
                    max_tokens=asked.max_tokens or min(default, room),
                    priority=Priority[asked.priority.upper()],
                    stop=asked.stop,
                    deadline_s=None if asked.timeout_s is None else now_s + asked.timeout_s,
                    sampling=msgspec.structs.replace(
                        asked.sampling, seed=(asked.sampling.seed + len(requests)) % SEEDS
                    ),
                )
            )
    return requests


def _field(prompt: Prompt) -> str:
    return "prompt" if prompt.messages is None else "messages"


def _too_long(field: str, detail: str) -> RequestRefused:
    return RequestRefused(field, detail, openai_code=CONTEXT_EXCEEDED)
