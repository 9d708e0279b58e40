"""Continuous batching: queue, KV blocks, and a batch that is composed anew for each step."""

from engine.batching.executor import (
    Batch,
    Drawn,
    Executor,
    ExecutorFailed,
    ExecutorLost,
    Sampler,
    TokenBytes,
)
from engine.batching.limits import Limits
from engine.batching.requests import (
    Chunk,
    Closed,
    ContextExceeded,
    Ending,
    NeverFits,
    Priority,
    QueueFull,
    Refused,
    Request,
    RequestInvalid,
)
from engine.batching.scheduler import Scheduler
from engine.batching.serving import Serving, Stopping
from engine.batching.statistics import Latency, Statistics

__all__ = [
    "Batch",
    "Chunk",
    "Closed",
    "ContextExceeded",
    "Drawn",
    "Ending",
    "Executor",
    "ExecutorFailed",
    "ExecutorLost",
    "Latency",
    "Limits",
    "NeverFits",
    "Priority",
    "QueueFull",
    "Refused",
    "Request",
    "RequestInvalid",
    "Sampler",
    "Scheduler",
    "Serving",
    "Statistics",
    "Stopping",
    "TokenBytes",
]
