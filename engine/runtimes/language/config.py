"""What a model directory's `config.json` says: sizes of the network, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

Size: TypeAlias = Annotated[int, Meta(ge=1, le=2**20)]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]
NORM_EPSILON: Final = 1e-5


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decoder: root-mean-square norms, rotary positions, many query heads on one head of keys and
    values, rectified hidden layers, no biases, and the embedding used again for the logits."""

    name: Name
    parent: Name | None = None
    """The model that this one was made from, or made to replace."""
    description: str = ""
    vocabulary: Size
    layers: Annotated[int, Meta(ge=1, le=64)]
    width: Size
    """Of the vector that each token is."""
    heads: Annotated[int, Meta(ge=1, le=256)]
    """Of queries."""
    head_width: Annotated[int, Meta(ge=2, le=1_024, multiple_of=2)]
    hidden: Size
    context_tokens: Size
    """The longest text that it takes, prompt and answer together."""
    turn_base: Annotated[float, Meta(gt=1)] = 10_000.0
    """Of rotary positions: pair i of w turns by `turn_base ** (-i / w)` from token to token."""

    @property
    def query_width(self) -> int:
        return self.heads * self.head_width


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of everything that is learnt. Matrices stand to the right of the values."""
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocabulary, config.width)}
    for layer in range(config.layers):
        shapes |= {
            f"layers.{layer}.attention_norm": (config.width,),
            f"layers.{layer}.attention_in": (
                config.width,
                config.query_width + 2 * config.head_width,
            ),
            f"layers.{layer}.attention_out": (config.query_width, config.width),
            f"layers.{layer}.hidden_norm": (config.width,),
            f"layers.{layer}.hidden_in": (config.width, config.hidden),
            f"layers.{layer}.hidden_out": (config.hidden, config.width),
        }
    return shapes | {"norm": (config.width,)}
