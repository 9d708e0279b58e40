"""Train all versions into a directory, and tell what each knows.

    python -m engine.runtimes.language.training DIRECTORY

Takes about two minutes on one core. Ends with status 1 if a version is not what it has to be.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from engine.runtimes.artifacts import describe_artifact
from engine.runtimes.language.training.corpus import all_facts
from engine.runtimes.language.training.measuring import (
    Known,
    known_answers,
    known_capitals,
    known_facts,
    known_reworded,
    known_second_answers,
    shortcomings,
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
    capitals: dict[str, int] = {}
    for path in sorted(directory.glob("facts-*")):
        model = load_model(path)
        _tell(f"{path.name} {describe_artifact(path).sha256}")
        capitals[path.name] = known_capitals(model, facts)
        _tell(f"  goes on: {_shown(known_facts(model, facts))}")
        _tell(f"  answers: {_shown(known_answers(model, facts))}")
        _tell(f"  answers a second question: {_shown(known_second_answers(model, facts))}")
        for wording in _NOT_TAUGHT:
            known, asked = known_reworded(model, facts, wording)
            _tell(f"  {wording} {known}/{asked}")
    if found := shortcomings(capitals):
        sys.exit("\n".join(found))


def _shown(known: Known) -> str:
    return ", ".join(f"{group} {count}/{of}" for group, (count, of) in known.items())


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
