"""NATS, Postgres and Redis as child processes, from Python wheels: nothing to install by hand."""

from switchback.embedded.nats import NatsServer, nats_cluster
from switchback.embedded.ports import free_port
from switchback.embedded.postgres import PostgresServer
from switchback.embedded.process import Server, ServerFailed
from switchback.embedded.redis import RedisServer

__all__ = [
    "NatsServer",
    "PostgresServer",
    "RedisServer",
    "Server",
    "ServerFailed",
    "free_port",
    "nats_cluster",
]
