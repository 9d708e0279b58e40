"""What went wrong, as one line for the person who asked; only a defect gets a traceback."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from events import LogError
from switchback.client import CredentialsMissing, Problem
from switchback.settings import SettingInvalid


class Failed(Exception):
    """The verb cannot do what was asked; the text is all there is to say."""


def sentences(error: BaseException) -> list[str]:
    """One line for each thing that went wrong. Raises `error` again if it is a defect."""
    found = list(dict.fromkeys(_sentences(error, error)))
    return found or [type(error).__name__]


def _sentences(error: BaseException, whole: BaseException) -> Iterator[str]:
    match error:
        case BaseExceptionGroup():
            for part in error.exceptions:
                yield from _sentences(part, whole)
        case Problem(fields=fields) if fields:
            yield f"{error.code}: " + "; ".join(f"{path} {why}" for path, why in fields.items())
        case Problem() | Failed():
            yield str(error)
        case httpx.TimeoutException():
            yield "no answer in time; a command may have happened"
        case httpx.TransportError():
            yield f"the gateway cannot be reached: {error}"
        case _ if isinstance(error, _operating()):
            yield " ".join(str(error).split()) or type(error).__name__
        case _:
            raise whole


def _operating() -> tuple[type[Exception], ...]:
    """What an operator can do something about. Imported when something went wrong, not before."""
    from engine.decisions.decider import Refused
    from handlers.http.server import ServerFailed as CannotListen
    from projections import DatabaseError
    from projections.errors import CheckpointAhead, FoldFailed, UnknownProjection
    from projections.failures import ProjectionStopped
    from switchback.bench import BenchFailed, UnknownLine
    from switchback.embedded import ServerFailed
    from switchback.replaying import EventRefused
    from switchback.servers import DataDirectoryBusy

    return (
        Failed,
        CredentialsMissing,
        SettingInvalid,
        DataDirectoryBusy,
        ServerFailed,
        CannotListen,
        LogError,
        DatabaseError,
        Refused,
        ProjectionStopped,
        CheckpointAhead,
        FoldFailed,
        UnknownProjection,
        EventRefused,
        BenchFailed,
        UnknownLine,
        OSError,
    )
