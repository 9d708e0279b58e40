"""Budgets: what gateways tell each other of the tokens that keys use. Entity
`<tenant>/budget/<tenant>`, on the stream of traffic.

Reports commute: they are appended UNCHECKED, and readers drop repeated ids.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from events.event import Event


class KeyUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key's tokens at one gateway."""

    settled: int = 0
    """Of requests that have ended since the report before."""
    reserved: int = 0
    """For requests that are under way."""


class TokensUsed(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.budget.tokens_used.v1"
    gateway: str
    """One process: another one has another id, also the same gateway when it starts again."""
    at: datetime
    """UTC, a whole second. What is told as settled was so by its end, and counts from there."""
    keys: dict[str, KeyUse]
    """Key id -> what changed. A key that is not named has settled nothing, and what is reserved
    for it is as the gateway's last report that names it says."""


EVENTS: tuple[type[Event], ...] = (TokensUsed,)
