"""What is read: tables in Postgres and entries in Redis, computed from the log and disposable.

A *projection* folds events into rows; its *checkpoint* is the position it has applied, moved in the
transaction that writes the rows. `handlers.projector` drives it; `Queries` reads it.
"""

from projections.errors import (
    CommitOutcomeUnknown,
    DatabaseError,
    DatabaseRefused,
    DatabaseTimeout,
    DatabaseUnavailable,
    StalePosition,
)
from projections.pool import Pool, PoolSettings
from projections.queries import Queries
from projections.results import Page

__all__ = [
    "CommitOutcomeUnknown",
    "DatabaseError",
    "DatabaseRefused",
    "DatabaseTimeout",
    "DatabaseUnavailable",
    "Page",
    "Pool",
    "PoolSettings",
    "Queries",
    "StalePosition",
]
