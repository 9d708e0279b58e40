"""Policies and tables for the tests of this folder."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from engine.routing import Table, compile_policy, decide_route
from events.catalogue.endpoints import Policy

SALT = "acme/chat"


def policy(**members: Any) -> Policy:
    """A policy from what a client would send."""
    return msgspec.convert(members, Policy)


def table(**members: Any) -> Table:
    return compile_policy(policy(**members), salt=SALT, position=7)


def version_of(compiled: Table, key: str) -> str:
    return decide_route(compiled, key, 0, {}).version


def local_ms(zone: str, text: str, *, fold: int = 0) -> int:
    """Milliseconds since the epoch of a local time; `fold` 1 is its second occurrence."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(local.timestamp() * 1000)


KEYS = [f"user-{i}" for i in range(20_000)]
