"""Writes docs/scenarios.md from the tests: `python -m tests.scenarios.document`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

DIRECTORY: Final = Path(__file__).parent
DUE: Final = {
    "M": ("Model versions", tuple(f"M{n:02}" for n in range(1, 13))),
    "B": ("Batching", tuple(f"B{n:02}" for n in range(1, 22))),
    "D": ("Pools", tuple(f"D0{n}" for n in range(1, 10))),
    "C": ("Cache", tuple(f"C0{n}" for n in range(1, 9))),
    "P": ("Proof", tuple(f"P0{n}" for n in range(1, 9))),
}
"""What the system must do by now; feedback and clusters bring more."""
_HEAD: Final = """# Acceptance scenarios

Written from the tests by `python -m tests.scenarios.document`; a test holds this page to it. Each
runs on real servers, through HTTP, the command line or NATS where a user would go that way, and in
every run of CI.

| scenario | what holds | test |
|---|---|---|
"""


class Scenario(NamedTuple):
    id: str
    sentence: str
    module: str
    test: str


def scenarios() -> Iterator[Scenario]:
    """Every test that is named by a scenario, in order of ids."""
    found: list[Scenario] = []
    for path in sorted(DIRECTORY.glob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                named = re.match(r"test_([mbdcp]\d\d)_(\w+)", function.name)
                if named:
                    sentence = named[2].replace("_", " ")
                    found.append(Scenario(named[1].upper(), sentence, path.name, function.name))
    order = {id_: place for place, id_ in enumerate(i for _, ids in DUE.values() for i in ids)}
    return iter(sorted(found, key=lambda scenario: order[scenario.id]))


def document() -> str:
    rows = (f"| {s.id} | {s.sentence} | `{s.module}::{s.test}` |\n" for s in scenarios())
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    print(document(), end="")
