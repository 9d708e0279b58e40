"""`switchback demo`: a guided tour that ends by itself, and fails if what it shows did not hold."""

from __future__ import annotations

import uvloop
from rich.console import Console


def run() -> bool:
    """The whole tour, on the terminal; whether everything held."""
    from switchback.demo.tour import tour  # the client process imports this package too, for less

    return uvloop.run(tour(Console()))
