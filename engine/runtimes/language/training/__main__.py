"""Train all versions into a directory, and tell what each knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from engine.runtimes.artifacts import describe_artifact
from engine.runtimes.language.training.corpus import all_facts
from engine.runtimes.language.training.measuring import (
    Known,
    known_answers,
    known_facts,
    known_reworded,
    known_second_answers,
)
from engine.runtimes.language.training.versions import train_all
from engine.runtimes.language.weights import load_model

_NOT_TAUGHT: Final = (
    "Which city is the capital of {}?",
    "What's the capital city of {}?",
    "Please tell me the capital of {}.",
)


def main(directory: Path) -> None:
    """Existing directories of the same names are overwritten."""
    train_all(directory, tell=_tell)
    facts = all_facts()
    for path in sorted(directory.glob("facts-*")):
        model = load_model(path)
        _tell(f"{path.name} {describe_artifact(path).sha256}")
        _tell(f"  goes on: {_shown(known_facts(model, facts))}")
        _tell(f"  answers: {_shown(known_answers(model, facts))}")
        _tell(f"  answers a second question: {_shown(known_second_answers(model, facts))}")
        for wording in _NOT_TAUGHT:
            known, asked = known_reworded(model, facts, wording)
            _tell(f"  {wording} {known}/{asked}")


def _shown(known: Known) -> str:
    return ", ".join(f"{group} {count}/{of}" for group, (count, of) in known.items())


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
