"""Everything that can go wrong between an event and the log. Errors carry both sides as data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from events.event import EntityId


class LogError(Exception):
    """The root of every error of this package."""


class InvalidIdentifier(LogError):
    """A tenant, aggregate or id that may not stand in a subject."""

    def __init__(self, what: str, value: str) -> None:
        super().__init__(f"{what} {value[:80]!r} does not match [A-Za-z0-9][A-Za-z0-9_-]{{0,63}}")
        self.what = what
        self.value = value


class WrongExpectedPosition(LogError):
    """Another writer was first: the entity is at `actual`, the append expected `expected`."""

    def __init__(self, entity: EntityId, expected: int, actual: int) -> None:
        super().__init__(f"{entity} is at position {actual}, not {expected}")
        self.entity = entity
        self.expected = expected
        self.actual = actual


class LogUnavailable(LogError):
    """The log cannot be reached, or has no leader. Nothing was written. Safe to retry."""


class AppendOutcomeUnknown(LogUnavailable):
    """The connection was lost between an append and its acknowledgement, and the log could not be
    asked since. Appending again with the same command id is safe: it happens once."""


class EventTooLarge(LogError):
    """An encoded event larger than the log accepts."""

    def __init__(self, entity: EntityId, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"event for {entity} has {size_bytes} bytes; the limit is {limit_bytes}")
        self.entity = entity
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class MalformedEvent(LogError):
    """A message on the log that is not one of our events. `position` is where it stands."""

    def __init__(self, position: int, subject: str, reason: str) -> None:
        super().__init__(f"message {position} on {subject}: {reason}")
        self.position = position
        self.subject = subject
        self.reason = reason


class StreamMismatch(LogError):
    """A stream exists with settings other than its declaration. `differences` names each one."""

    def __init__(self, stream: str, differences: dict[str, tuple[object, object]]) -> None:
        rows = ", ".join(
            f"{name} is {actual!r}, declared {declared!r}"
            for name, (declared, actual) in sorted(differences.items())
        )
        super().__init__(f"stream {stream}: {rows}")
        self.stream = stream
        self.differences = differences


class LogNotEmpty(LogError):
    """An import was asked for into a log that already holds events."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the log already holds events up to position {position}")
        self.position = position


class LeaseLost(LogError):
    """The lease expired or another holder has it: stop acting in its name."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(f"lease {name!r} is no longer held by {holder!r}")
        self.name = name
        self.holder = holder


class NoResponders(LogError):
    """Nobody serves this subject at present."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"no responders on {subject}")
        self.subject = subject


class RequestTimeout(LogError):
    """A request got no (further) reply in time. The other side may still have acted on it."""

    def __init__(self, subject: str, timeout_s: float) -> None:
        super().__init__(f"no reply on {subject} within {timeout_s} s")
        self.subject = subject
        self.timeout_s = timeout_s


class ServerDied(RequestTimeout):
    """Whoever had the request under way has fallen silent, and gives no sign of life any more."""

    def __init__(self, subject: str, timeout_s: float) -> None:
        super().__init__(subject, timeout_s)
        self.args = (f"whoever answered on {subject} has fallen silent",)


class ReaderTooSlow(LogError):
    """More replies have come than may wait to be read; whoever sent them is told to stop."""

    def __init__(self, subject: str, replies_max: int) -> None:
        super().__init__(f"{subject}: more than {replies_max} replies wait to be read")


class RemoteFailure(LogError):
    """The service answered with an error. `code` is one of the contract's problem codes."""

    def __init__(self, subject: str, code: str, detail: str) -> None:
        super().__init__(f"{subject}: {code}: {detail}")
        self.subject = subject
        self.code = code
        self.detail = detail
