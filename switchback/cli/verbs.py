"""Every verb there is, by the module that registers it.

Only the module of the verb that is asked for is imported, which halves the time of most verbs; for
help and for mistakes all of them are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Final

from switchback.cli.application import run_verb

MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "up": "running",
        "serve": "running",
        "models": "models",
        "versions": "models",
        "endpoints": "endpoints",
        "swap": "switching",
        "rollback": "switching",
        "rollout": "rollouts",
        "compare": "comparing",
        "shadow": "comparing",
        "history": "asking",
        "as-of": "asking",
        "explain": "asking",
        "nodes": "nodes",
        "tenants": "access",
        "keys": "access",
        "events": "events",
        "replay": "tables",
        "what-if": "whatif",
        "rebuild": "tables",
        "verify": "tables",
        "doctor": "doctor",
        "demo": "tours",
        "bench": "tours",
    }
)
"""Verb -> module of this package."""


def run(arguments: Sequence[str] | None = None) -> int:
    """One verb; its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    known = MODULES.get(given[0]) if given else None
    for module in dict.fromkeys([known] if known is not None else MODULES.values()):
        import_module(f"switchback.cli.{module}")
    return run_verb(given)
