"""What every operation stands on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from engine.decisions.decider import Conflict
from events.catalogue.tenants import Quota
from handlers.commands import CommandHandler, Outcome
from handlers.gateways import Gateways
from handlers.http.views import Applied
from handlers.judging import Judging
from handlers.nodes import Nodes
from handlers.questions import Questions
from handlers.routing import Routing


class OperationsBase:
    """The parts of this process that operations use."""

    def __init__(
        self,
        *,
        routing: Routing,
        commands: CommandHandler,
        nodes: Nodes,
        gateways: Gateways,
        questions: Questions,
        judging: Judging,
        runtimes: frozenset[str],
        artifact_roots: tuple[Path, ...],
        checks: frozenset[str],
        key_secret: Callable[[UUID], str],
        now: Callable[[], datetime],
    ) -> None:
        self._routing = routing
        self._commands = commands
        self._nodes = nodes
        self._gateways = gateways
        self._questions = questions
        self._judging = judging
        self._runtimes = runtimes
        self._artifact_roots = artifact_roots
        self._checks = checks
        """Functions that rollouts may check answers by: as all gateways are configured alike, those
        of this one."""
        self._key_secret = key_secret
        """Command id -> the secret of the key it issues, so that a repeat shows the same one."""
        self._now = now

    def _check_quota(self, tenant: str, what: Literal["models", "endpoints"], name: str) -> None:
        """Raises QuotaReached, unless `name` exists already."""
        quota = self._routing.keyring.quota(tenant) or Quota()
        limit, known = (
            (quota.models_max, self._routing.models.keys())
            if what == "models"
            else (quota.endpoints_max, self._routing.routes.keys())
        )
        if limit is None or (tenant, name) in known:
            return
        if sum(owner == tenant for owner, _ in known) >= limit:
            raise QuotaReached(what, limit)


class QuotaReached(Conflict):
    """The tenant has as many as its quota allows. Counted by this process's fold of the log, so
    several gateways at once may let a few more pass."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"the quota of {limit} {what} is reached")
        self.what = what
        self.limit = limit


def applied(outcome: Outcome[Any]) -> Applied:
    """The outcome as an answer."""
    return Applied(position=outcome.position, changed=bool(outcome.events))
