"""The command line. One module per group of verbs; `application` ties them together."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script."""
    from switchback.cli import verbs  # nothing is imported before it is needed

    sys.exit(verbs.run())
