"""Rollouts: started, steered, waited for; versions compared, shadows reported on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Final, Literal

from events.catalogue.endpoints import (
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutResumed,
)
from switchback.client.calls import Calls, part
from switchback.client.transport import JSON, present

ENDED: Final = frozenset({"completed", "aborted"})
"""The states that no rollout leaves."""
_LOAD_SECONDS: Final = 60.0
_STATE_AFTER: Final[Mapping[str, str]] = MappingProxyType(
    {
        RolloutAdvanced.type: "running",
        RolloutHeld.type: "held",
        RolloutResumed.type: "running",
        RolloutCompleted.type: "completed",
        RolloutAborted.type: "aborted",
    }
)


class RolloutCalls(Calls):
    """A part of `Client`."""

    async def start_rollout(
        self,
        endpoint: str,
        *,
        to: str,
        steps: Sequence[Mapping[str, Any]] | None = None,
        analysis: Mapping[str, Any] | None = None,
    ) -> JSON:
        """Answers when the version is loaded and the first step is in force.

        A step is `{"weight", "hold_s", "min_samples"?}`; without `steps`, the server's.
        """
        members = {"to": to, "steps": steps, "analysis": analysis}
        return await self._transport.command(
            "POST",
            f"{self._root}{_rollouts(endpoint)}",
            present(members),
            answer_seconds=_LOAD_SECONDS,
        )

    def rollouts(self, endpoint: str) -> AsyncIterator[JSON]:
        """The newest first."""
        return self._items(_rollouts(endpoint))

    async def rollout(self, endpoint: str, rollout_id: str) -> JSON:
        """While it lives, its `verdicts` are what the evidence says at this moment."""
        return await self._get(f"{_rollouts(endpoint)}/{part(rollout_id)}")

    async def promote_rollout(
        self,
        endpoint: str,
        rollout_id: str,
        *,
        to: Literal["next", "full"] = "next",
        from_step: int | None = None,
    ) -> JSON:
        """With `from_step` (from 0) the step to end: nothing changes if it is over already."""
        path = f"{_rollouts(endpoint)}/{part(rollout_id)}/promote"
        return await self._post(path, to=to, from_step=from_step)

    async def pause_rollout(self, endpoint: str, rollout_id: str) -> JSON:
        return await self._post(f"{_rollouts(endpoint)}/{part(rollout_id)}/pause")

    async def resume_rollout(self, endpoint: str, rollout_id: str) -> JSON:
        return await self._post(f"{_rollouts(endpoint)}/{part(rollout_id)}/resume")

    async def abort_rollout(self, endpoint: str, rollout_id: str, *, reason: str = "") -> JSON:
        """Answers when every live gateway sends all traffic to the baseline again."""
        return await self._post(f"{_rollouts(endpoint)}/{part(rollout_id)}/abort", reason=reason)

    async def wait_for_rollout(
        self, endpoint: str, rollout_id: str, *, until: Collection[str] = ENDED
    ) -> JSON:
        """The rollout, once it is in one of these states; add `held` to be told of holds too.

        It follows the events: no state is missed, however short, nor over a lost connection. What
        is returned may be in a later state than the one that was waited for.
        """
        rollout = await self.rollout(endpoint, rollout_id)
        if rollout["state"] in until:
            return rollout
        coming = self.follow_events(after=rollout["position"], entity=f"endpoint/{endpoint}")
        async with aclosing(coming) as events:
            async for event in events:
                if event["data"].get("rollout_id") != rollout_id:
                    continue
                if _STATE_AFTER.get(event["type"]) in until:
                    if event["type"] == RolloutAborted.type:
                        event = await anext(events)  # its policy, in the same append
                    self.min_position = max(self.min_position, event["position"])
                    break
        return await self.rollout(endpoint, rollout_id)

    async def compare(
        self,
        endpoint: str,
        *,
        baseline: str | None = None,
        candidate: str | None = None,
        since_s: float | None = None,
    ) -> JSON:
        """Two versions by their traffic; which, the answer says, when none are given."""
        return await self._get(
            f"/endpoints/{part(endpoint)}/compare",
            baseline=baseline,
            candidate=candidate,
            since_s=since_s,
        )

    async def shadow(self, endpoint: str, *, since_s: float | None = None) -> JSON:
        """How each shadow version answered its copies."""
        return await self._get(f"/endpoints/{part(endpoint)}/shadow", since_s=since_s)


def _rollouts(endpoint: str) -> str:
    return f"/endpoints/{part(endpoint)}/rollouts"
