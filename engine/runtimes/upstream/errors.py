"""What a call to an upstream can raise: a closed set, each naming what was wrong.

No message holds a header, a key, or an address with its path: they reach clients and logs. What an
upstream says about a request is passed on where the client can act on it, bounded and cleaned, see
`refusals`.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

Code: TypeAlias = Literal["invalid", "runtime_failed", "overloaded", "unavailable", "timeout"]
"""The problem codes that fit."""
Verdict: TypeAlias = Literal["answered", "failed", "unknown"]
"""What a request says about the health of the upstream."""
Phase: TypeAlias = Literal["connect", "first byte", "between chunks", "total"]


class UpstreamFailed(Exception):
    """A call that got no complete answer."""

    code: ClassVar[Code] = "runtime_failed"
    verdict: Verdict = "failed"
    is_repeatable: bool = False
    """The upstream cannot have begun to answer, or asks to be asked again."""
    retry_after_s: float | None = None
    """When asking again makes sense, as far as somebody said so."""
    attempts: int = 0
    """Requests that were sent, with the one that failed last."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Unreachable(UpstreamFailed):
    """No connection: its name, its port or its certificate. Nothing was sent."""

    code = "unavailable"
    is_repeatable = True


class NotAnswered(UpstreamFailed):
    """The connection ended before the first byte of an answer. Completions change nothing, so that
    asking again is safe even if the first request had been computed."""

    is_repeatable = True


class HalfAnswered(UpstreamFailed):
    """The connection ended in the middle of the answer."""


class TimedOut(UpstreamFailed):
    """A phase took longer than it may."""

    code = "timeout"

    def __init__(self, phase: Phase, seconds: float) -> None:
        super().__init__(f"the upstream took longer than {seconds:g} s ({phase})")
        self.phase: Phase = phase
        self.seconds = seconds
        self.is_repeatable = phase == "connect"


class CallerTimedOut(TimedOut):
    """The caller had less time than the version may take: no sign of a sick upstream."""

    verdict = "unknown"


class RequestTimedOut(CallerTimedOut):
    """The request itself allowed no more time."""

    def __init__(self, phase: Phase, seconds: float) -> None:
        super().__init__(phase, seconds)
        self.detail = f"the request allowed {seconds:g} s, which have passed"
        self.args = (self.detail,)


class Malformed(UpstreamFailed):
    """It answered something else than the protocol allows; `detail` says what."""


class TooLarge(UpstreamFailed):
    """The answer, or one event of it, has no end in sight."""

    def __init__(self, what: str, bytes_max: int) -> None:
        super().__init__(f"{what} is longer than {bytes_max} bytes")
        self.bytes_max = bytes_max


class BrokenOff(UpstreamFailed):
    """The upstream reported an error in the middle of its stream."""


class Refused(UpstreamFailed):
    """It answered with an error status that is its own affair: a server error, our key, a move."""

    def __init__(self, detail: str, *, status: int, retry_after_s: float | None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_repeatable = status in (502, 503, 504)
        self.verdict = "failed" if status >= 500 else "answered"


class Busy(Refused):
    """It answered 429: alive, and asks for patience."""

    code = "overloaded"

    def __init__(self, detail: str, *, status: int, retry_after_s: float | None) -> None:
        super().__init__(detail, status=status, retry_after_s=retry_after_s)
        self.is_repeatable = True


class Invalid(Refused):
    """It refused the request itself: the same request would be refused again."""

    code = "invalid"

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        retry_after_s: float | None,
        field: str | None = None,
        openai_code: str | None = None,
    ) -> None:
        super().__init__(detail, status=status, retry_after_s=retry_after_s)
        self.field = field
        """The member of the request that it named, if it did."""
        self.openai_code = openai_code
        """What it called the refusal, if it is one of the protocol's names for it."""


class NotCalled(UpstreamFailed):
    """Nothing was sent."""

    code: ClassVar[Code] = "unavailable"
    verdict = "unknown"


class Overloaded(NotCalled):
    """As many requests are in flight as may be."""

    code = "overloaded"

    def __init__(self, in_flight_max: int) -> None:
        super().__init__(f"{in_flight_max} requests to the upstream are in flight, as many as may")
        self.in_flight_max = in_flight_max
        self.retry_after_s = 1.0


class CircuitOpen(NotCalled):
    """It failed too often just now and is left alone for a moment."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the upstream has failed too often just now and is left alone")
        self.retry_after_s = retry_after_s


class KeyUnavailable(NotCalled):
    """The variable that should hold the key is not set, may not be read, or holds no key."""

    def __init__(self, variable: str, why: str) -> None:
        super().__init__(f"the key's environment variable {variable} {why}")
        self.variable = variable


class Closed(UpstreamFailed):
    """This side was closed, before the call or in the middle of it."""

    code = "unavailable"
    verdict = "unknown"

    def __init__(self) -> None:
        super().__init__("the upstream's connections were closed")
