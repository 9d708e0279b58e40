"""A whole system: every role in this process, over HTTP, on the session's servers."""

from __future__ import annotations

import msgspec

from switchback.client import Client
from switchback.process import Process
from switchback.settings import Settings


class System(msgspec.Struct, frozen=True, kw_only=True):
    """A running system and a client with all rights on it."""

    settings: Settings
    process: Process
    client: Client
    url: str
    key: str
