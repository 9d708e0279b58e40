"""What language versions are asked and what they answer: OpenAI's documents without the envelope.

- Inputs have one member, which tells what is asked for: `messages` (chat), `prompt` (text) or
  `input` (embeddings).
- Parameters are all other members of OpenAI's body that bear on the answer: `max_tokens`,
  `temperature`, `stop`, `n`... A version refuses those that it does not know.
- Outputs are the document that OpenAI's protocol answers, without `id`, `object`, `created` and
  `model`, which belong to who was asked: `choices` or `data`, `usage`, and whatever else there is.
- Chunks are the documents of a stream, likewise. Choices hold what is added, by `index`, and a
  `finish_reason` when there is no more; the last chunk of a stream holds the `usage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec

Kind: TypeAlias = Literal["chat", "text", "embeddings"]
_Inner = TypeVar("_Inner", dict[str, Any], list[Any])

INPUTS: Final[Mapping[str, Kind]] = MappingProxyType(
    {"messages": "chat", "prompt": "text", "input": "embeddings"}
)
"""The member of the inputs -> what is asked for."""
ENVELOPE: Final = frozenset({"id", "object", "created", "model"})
"""What outputs and chunks are without."""
CONTEXT_EXCEEDED: Final = "context_length_exceeded"
"""The protocol's name for a request that is longer than the model's context."""
ASSEMBLED_CHARS_MAX: Final = 1_000_000
TOKENS_TOLD_MAX: Final = 1_000_000_000
"""Of one request; versions answer freely."""

Tokens: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_TOLD_MAX)]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens, as the version counts them."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    total_tokens: Tokens = 0


def kind_of(inputs: Any) -> Kind | None:
    """What inputs ask for; None if they are no language version's."""
    if not isinstance(inputs, dict) or len(inputs) != 1:
        return None
    return INPUTS.get(next(iter(inputs)))


def usage_of(outputs: Any) -> Usage | None:
    """The tokens that outputs, or a chunk, tell of; None if they tell of none, or of what is no
    count of tokens. Versions answer freely, so anything may be given."""
    usage = outputs.get("usage") if isinstance(outputs, dict) else None
    if not isinstance(usage, dict):
        return None
    try:
        return msgspec.convert(usage, Usage)
    except msgspec.ValidationError:
        return None


class Assembly:
    """Chunks, put together to the outputs that a whole answer would have been.

    Texts are joined; what a later chunk says again is as it says last. An answer of more than
    `ASSEMBLED_CHARS_MAX` characters is not kept. Of chunks that are none of the protocol's, what
    has no place in an answer is left out.
    """

    def __init__(self) -> None:
        self._outputs: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._only: Any = None
        self._chunks = 0
        self._chars = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing had to be left out."""
        return self._chars <= ASSEMBLED_CHARS_MAX

    def add(self, chunk: Any) -> None:
        """The next chunk."""
        self._chunks += 1
        self._only = chunk if self._chunks == 1 else None
        if not self.is_whole or not isinstance(chunk, dict):
            return
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and isinstance(choice.get("index", 0), int):
                self._add_choice(choice)
        self._outputs |= {name: chunk[name] for name in chunk.keys() - {"choices"}}

    def outputs(self) -> Any:
        """As far as chunks have come. The only chunk of a version that does not stream is it."""
        if self._chunks == 1 and not self._choices:
            return self._only
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {"choices": choices, **self._outputs}

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        index = choice.get("index", 0)
        known = self._choices.setdefault(index, {"index": index})
        for name, value in choice.items():
            if name == "delta":
                self._merge(_inner(known, "message", {}), value if isinstance(value, dict) else {})
            elif name == "text":
                known["text"] = self._joined(known.get("text"), value)
            elif value is not None or name not in known:
                known[name] = value

    def _merge(self, message: dict[str, Any], delta: Mapping[str, Any]) -> None:
        for name, value in delta.items():
            if name == "role":
                message.setdefault(name, value)
            elif isinstance(value, str):
                message[name] = self._joined(message.get(name), value)
            elif isinstance(value, list):
                parts = _inner(message, name, [])
                for part in value:
                    self._merge_part(parts, part)
            elif value is not None or name not in message:
                message[name] = value

    def _merge_part(self, parts: list[Any], part: Any) -> None:
        """A piece of a list, such as the calls of tools, which come in pieces by their index."""
        if not isinstance(part, dict) or "index" not in part:
            parts.append(part)
            return
        index = part["index"]
        known = next((p for p in parts if isinstance(p, dict) and p.get("index") == index), None)
        if known is None:
            parts.append(known := {"index": index})
        self._merge_members(known, part)

    def _merge_members(self, known: dict[str, Any], part: Mapping[str, Any]) -> None:
        for name, value in part.items():
            if isinstance(value, dict):
                self._merge_members(_inner(known, name, {}), value)
            elif name == "arguments" and isinstance(value, str):
                known[name] = self._joined(known.get(name), value)
            else:
                known[name] = value

    def _joined(self, before: Any, text: Any) -> str:
        added = text if isinstance(text, str) else ""
        self._chars += len(added)
        return (before if isinstance(before, str) else "") + added


def _inner(known: dict[str, Any], name: str, new: _Inner) -> _Inner:
    """The member, if it is of that kind; else the new one in its place."""
    found = known.get(name)
    if isinstance(found, type(new)):
        return found
    known[name] = new
    return new
