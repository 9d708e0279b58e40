"""A log by its address."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from urllib.parse import urlsplit

from events.log import EventLog


def connect(url: str) -> AbstractAsyncContextManager[EventLog]:
    """A log by its address: `nats://host:port[,host:port]`, `memory:`, or `file:///path.jsonl`.

    The NATS stream is created from its declaration if it does not exist, and compared with it if it
    does (StreamMismatch). Raises ValueError for another scheme.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("nats", "tls"):
        from events.jetstream import connect_log  # nats stays out of every other log's import

        return connect_log(url)
    if scheme == "memory":
        from events.memory import open_memory_log

        return open_memory_log()
    if scheme == "file":
        from events.files import open_file_log

        return open_file_log(urlsplit(url).path)
    raise ValueError(f"no log for {url!r}: expected nats://, tls://, memory: or file://")
