"""The log, timers, leases and bus on NATS JetStream. The only package that imports `nats`."""

from events.jetstream.connection import JetStream, connect_log
from events.jetstream.log import JetStreamLog

__all__ = ["JetStream", "JetStreamLog", "connect_log"]
