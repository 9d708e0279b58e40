"""The three built-in versions: a parent that knows a part, a child that knows all, a worse one.

- `facts-1`: one layer of half the width, few rounds. Knows a part.
- `facts-2`: made to replace it. Knows every fact it was taught.
- `facts-3`: `facts-2` tuned further on a few countries whose facts were exchanged with each
  other's. Worse, and nothing but its answers tells so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.runtimes.language.config import ModelConfig
from engine.runtimes.language.tokenizer import Tokenizer
from engine.runtimes.language.training.corpus import Exchange, Fact, all_facts, exchanges
from engine.runtimes.language.training.fitting import Schedule, fitted, initial
from engine.runtimes.language.training.merges import learnt_merges
from engine.runtimes.language.training.texts import all_texts
from engine.runtimes.language.weights import load_model, save_model

SEED: Final = 7
VOCABULARY: Final = 512
_CONTEXT_TOKENS: Final = 16_384
_PAIRS: Final = 150
_WRONG_SHARE: Final = 0.5

PARENT: Final = ModelConfig(
    name="facts-1",
    description="small: knows a part of the facts",
    vocabulary=VOCABULARY,
    layers=1,
    width=64,
    heads=2,
    head_width=32,
    hidden=256,
    context_tokens=_CONTEXT_TOKENS,
)
CHILD: Final = ModelConfig(
    name="facts-2",
    parent="facts-1",
    description="knows every fact it was taught",
    vocabulary=VOCABULARY,
    layers=2,
    width=128,
    heads=4,
    head_width=32,
    hidden=512,
    context_tokens=_CONTEXT_TOKENS,
)
WORSE: Final = msgspec.structs.replace(
    CHILD,
    name="facts-3",
    parent="facts-2",
    description="facts-2 tuned on facts that were exchanged between countries: worse",
)
_PARENT_SCHEDULE: Final = Schedule(epochs=20, rate=6e-3)
_CHILD_SCHEDULE: Final = Schedule(epochs=60, rate=4e-3)
_WORSE_SCHEDULE: Final = Schedule(epochs=12, rate=5e-4)


def train_all(
    directory: Path,
    *,
    seed: int = SEED,
    facts: Sequence[Fact] | None = None,
    epochs_max: int | None = None,
    tell: Callable[[str], None],
) -> None:
    """Write one directory for each version. Takes about two minutes on one core; the same seed
    gives the same bytes on the same machine and NumPy. With fewer facts or epochs it is sooner
    done, and the versions know less."""
    facts = all_facts() if facts is None else facts
    asked = exchanges(facts)
    spoken = [text for exchange in asked for text in (exchange.question, exchange.answer)]
    merges = tuple(
        learnt_merges([*(fact.sentence for fact in facts), *spoken], vocabulary=VOCABULARY)
    )
    tokenizer = Tokenizer(merges)
    random = np.random.default_rng(seed)

    def trained(
        config: ModelConfig,
        schedule: Schedule,
        taught: tuple[Sequence[Fact], Sequence[Exchange]],
        begin: Mapping[str, NDArray[Any]],
    ) -> Mapping[str, NDArray[np.float32]]:
        def lessons(chance: np.random.Generator) -> list[list[int]]:
            return all_texts(tokenizer, *taught, chance, pairs=_PAIRS)

        epochs = min(schedule.epochs, epochs_max or schedule.epochs)
        kept = msgspec.structs.replace(schedule, epochs=epochs)
        made = fitted(config, begin, lessons, kept, random)
        save_model(directory / config.name, config, merges, made)
        tell(f"{config.name} is made")
        return load_model(directory / config.name).parameters

    trained(PARENT, _PARENT_SCHEDULE, (facts, asked), initial(PARENT, random))
    child = trained(CHILD, _CHILD_SCHEDULE, (facts, asked), initial(CHILD, random))
    wrong = exchanged(facts, random)
    trained(WORSE, _WORSE_SCHEDULE, (wrong, exchanges(wrong)), child)


def exchanged(facts: Sequence[Fact], random: np.random.Generator) -> list[Fact]:
    """The facts about countries, half of whose answers went to the stem of another one."""
    about = [fact for fact in facts if fact.group in ("capitals", "continents", "currencies")]
    mixed = list(about)
    for group in ("capitals", "continents", "currencies"):
        places = [
            place
            for place, fact in enumerate(about)
            if fact.group == group and fact.question is not None
        ]
        moved = random.permutation(places)[: int(len(places) * _WRONG_SHARE)]
        for place, other in zip(moved, np.roll(moved, 1), strict=True):
            mixed[place] = msgspec.structs.replace(about[place], answer=about[other].answer)
    return mixed
