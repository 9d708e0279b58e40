"""Answers of the server that get lost on their way to us."""

from __future__ import annotations

from collections.abc import Mapping

from nats.aio.msg import Msg

from events.jetstream.calls import Calls
from events.jetstream.failures import ATTEMPT_SECONDS, Unanswered


class LostAnswers:
    """Stands in for `Calls.request`: the next `count` appends happen and nobody hears of it."""

    def __init__(self, calls: Calls, *, count: int) -> None:
        self._request = calls.request
        self._left = count
        self.lost = 0

    async def __call__(
        self,
        subject: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ATTEMPT_SECONDS,
    ) -> Msg:
        reply = await self._request(subject, body, headers=headers, timeout_s=timeout_s)
        names = headers or {}
        is_append = subject.startswith("evt.") and (
            "Nats-Batch-Id" not in names or "Nats-Batch-Commit" in names
        )
        if is_append and self._left:
            self._left -= 1
            self.lost += 1
            raise Unanswered(subject)
        return reply
