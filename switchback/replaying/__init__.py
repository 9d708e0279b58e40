"""Logs replayed: folded in memory, or through real servers. For tests, tools and the curious.

Two ways to the same answer: `replay` runs the pure parts alone, `ReplayServers.replay` writes the
log to JetStream and lets the projector fill Postgres. Where the two differ, one of them is wrong.
"""

from switchback.replaying.contents import Tables
from switchback.replaying.memory import (
    EventRefused,
    LoadedLog,
    Replayed,
    read_log,
    read_traffic_log,
    replay,
)
from switchback.replaying.servers import ReplayServers

__all__ = [
    "EventRefused",
    "LoadedLog",
    "ReplayServers",
    "Replayed",
    "Tables",
    "read_log",
    "read_traffic_log",
    "replay",
]
