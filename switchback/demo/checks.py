"""What the tour promises, and whether it held."""

from __future__ import annotations

import msgspec


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Something that had to hold."""

    what: str
    held: bool
