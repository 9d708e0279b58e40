"""What the HTTP layer asks about rollouts, as a Protocol: part of `ports.Operations`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from events.catalogue.endpoints import Analysis, Step, Verdict
from events.event import Metadata
from handlers.http.views import CompareView, ShadowView
from projections import results

PromoteTo: TypeAlias = Literal["next", "full"]
"""The next step, or all traffic to the candidate at once."""


class RolloutOperations(Protocol):
    """Commands answer when every live gateway routes by what they led to, and with the rollout as
    of then. Refused: `not_found` for an endpoint or a rollout that is not there, `conflict` for one
    that is over, unless it ended as the command wants it."""

    async def start_rollout(
        self,
        tenant: str,
        *,
        endpoint: str,
        to: str,
        steps: tuple[Step, ...],
        analysis: Analysis,
        metadata: Metadata,
    ) -> results.Rollout:
        """Returns when the first step is in force. Refused (`conflict`) while another rollout or a
        swap is under way; `invalid` for a candidate that cannot be one."""
        ...

    async def promote_rollout(
        self,
        tenant: str,
        *,
        endpoint: str,
        rollout_id: str,
        to: PromoteTo,
        from_step: int | None,
        metadata: Metadata,
    ) -> results.Rollout:
        """`from_step`: the step to end, from 0; nothing changes if it is over already. Refused
        (`conflict`) if it is still to come."""
        ...

    async def pause_rollout(
        self, tenant: str, *, endpoint: str, rollout_id: str, metadata: Metadata
    ) -> results.Rollout: ...

    async def resume_rollout(
        self, tenant: str, *, endpoint: str, rollout_id: str, metadata: Metadata
    ) -> results.Rollout: ...

    async def abort_rollout(
        self, tenant: str, *, endpoint: str, rollout_id: str, reason: str, metadata: Metadata
    ) -> results.Rollout:
        """All traffic returns to the baseline."""
        ...

    async def verdicts(
        self, tenant: str, *, endpoint: str, rollout_id: str
    ) -> Sequence[Verdict] | None:
        """What the evidence says at this moment; None when the rollout is not live."""
        ...

    async def compare(
        self,
        tenant: str,
        *,
        endpoint: str,
        baseline: str | None,
        candidate: str | None,
        since_s: float,
    ) -> CompareView:
        """Two versions by the traffic of the last `since_s` seconds. Not given: those of the live
        rollout, else the version before against the newest. Refused: `not_found`, `invalid`."""
        ...

    async def shadow_report(self, tenant: str, *, endpoint: str, since_s: float) -> ShadowView:
        """Every version that was sent copies in the last `since_s` seconds."""
        ...
