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
from typing import Any, Final, Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["chat", "text", "embeddings"]

INPUTS: Final[Mapping[str, Kind]] = MappingProxyType(
    {"messages": "chat", "prompt": "text", "input": "embeddings"}
)
"""The member of the inputs -> what is asked for."""
ENVELOPE: Final = frozenset({"id", "object", "created", "model"})
"""What outputs and chunks are without."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens, as the version counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


def kind_of(inputs: Any) -> Kind | None:
    """What inputs ask for; None if they are no language version's."""
    if not isinstance(inputs, dict) or len(inputs) != 1:
        return None
    return INPUTS.get(next(iter(inputs)))


def usage_of(outputs: Any) -> Usage | None:
    """The tokens that outputs, or a chunk, tell of. Anything may be given: versions answer freely."""
    usage = outputs.get("usage") if isinstance(outputs, dict) else None
    if not isinstance(usage, dict):
        return None
    try:
        return msgspec.convert(usage, Usage)
    except msgspec.ValidationError:
        return None
