"""Budgets of keys: how many tokens they may take in a minute, counted by every gateway for itself.

`Ledger` keeps what this gateway knows, its own use and what others told of theirs, and admits or
refuses. `estimate` says how many tokens a request may take before it has been asked. Pure: the time
is an argument.
"""

from __future__ import annotations

from engine.budgets.account import MINUTE_SECONDS, SILENT_SECONDS
from engine.budgets.estimate import DEFAULT_COMPLETION_TOKENS, Estimate, estimate, said_by
from engine.budgets.ledger import Ledger, Refusal, Reservation, Standing

__all__ = [
    "DEFAULT_COMPLETION_TOKENS",
    "MINUTE_SECONDS",
    "SILENT_SECONDS",
    "Estimate",
    "Ledger",
    "Refusal",
    "Reservation",
    "Standing",
    "estimate",
    "said_by",
]
