"""Everything that can go wrong between a projection and its databases."""

from __future__ import annotations


class ProjectionError(Exception):
    """The root of every error of this package."""


class DatabaseError(ProjectionError):
    """Postgres did not do what it was asked."""


class DatabaseUnavailable(DatabaseError):
    """Postgres cannot be reached, or the connection broke. Nothing was committed. Safe to retry."""


class CommitOutcomeUnknown(DatabaseUnavailable):
    """The connection broke during COMMIT: the transaction may stand or not. Look, then retry."""


class DatabaseTimeout(DatabaseError):
    """A statement, or the wait for a free connection, took longer than allowed."""

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(f"{what} took longer than {timeout_s:g} s")
        self.what = what
        self.timeout_s = timeout_s


class DatabaseRefused(DatabaseError):
    """Postgres understood the statement and refused it: bad data, a conflict, missing rights."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate
        self.message = message

    @property
    def about_data(self) -> bool:
        """Whether other values could be accepted: data, constraint and limit errors."""
        return self.sqlstate[:2] in ("22", "23", "54")


class StalePosition(ProjectionError):
    """The read models have not reached the position a reader asked for within the wait."""

    def __init__(self, wanted: int, actual: int) -> None:
        super().__init__(f"applied up to position {actual}, wanted {wanted}")
        self.wanted = wanted
        self.actual = actual


class FoldFailed(ProjectionError):
    """A projection could not take an event. The cause is chained."""

    def __init__(self, projection: str, position: int, subject: str, reason: str) -> None:
        super().__init__(f"projection {projection}, event {position} on {subject}: {reason}")
        self.projection = projection
        self.position = position
        self.subject = subject
        self.reason = reason


class CheckpointMoved(ProjectionError):
    """Another projector applied the batch first, or the tables were rebuilt. Read again, go on."""


class UnknownProjection(ProjectionError):
    """No projection has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no projection is named {name!r}")
        self.name = name


class CheckpointAhead(ProjectionError):
    """A checkpoint is beyond the end of the log: these tables belong to another log."""

    def __init__(self, checkpoint: int, end: int) -> None:
        super().__init__(f"the tables are at position {checkpoint}, the log ends at {end}")
        self.checkpoint = checkpoint
        self.end = end
