"""One look at a rollout, and what each judged metric answers to it."""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from events.catalogue.endpoints import Verdict
from events.catalogue.traffic import ShadowWindow, VersionWindow

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]

NO_REQUESTS: Final = VersionWindow(requests=0)
NO_COPIES: Final = ShadowWindow(mirrored=0)


class Observed(msgspec.Struct, frozen=True):
    """What a window says about the two versions of a rollout."""

    gateway: str
    step: int
    share: float
    """The candidate's, 0 to 1, by the policy these requests were routed by."""
    baseline: VersionWindow
    candidate: VersionWindow
    shadow: ShadowWindow
    """The candidate's."""


class Look(msgspec.Struct, frozen=True):
    """The step that is judged."""

    step: int
    share: float
    min_samples: int
    seen: bool
    """Whether any request of this step was seen."""


class Judged(Protocol):
    """A metric or a limit: folds windows, answers looks."""

    def observe(self, observed: Observed) -> None: ...

    def verdict(self, look: Look) -> Verdict: ...


def shortage(look: Look, samples: int) -> str | None:
    """Why so few samples of the candidate do not let it pass this step; None if they do."""
    if not look.seen:
        return "no window of this step has been seen"
    if samples == 0:
        return "the candidate has no samples in this step"
    if samples < look.min_samples:
        return f"the candidate has {samples} of {look.min_samples} samples in this step"
    return None


def not_judged(look: Look) -> str | None:
    """Why requests say nothing in this step: the candidate gets none of them."""
    if look.share == 0.0 and look.seen:
        return "not judged: the candidate gets no requests in this step"
    return None
