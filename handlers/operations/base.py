"""What every operation stands on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from handlers.commands import CommandHandler, Outcome
from handlers.gateways import Gateways
from handlers.http.views import Applied
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
        runtimes: frozenset[str],
        artifact_roots: tuple[Path, ...],
        key_secret: Callable[[UUID], str],
    ) -> None:
        self._routing = routing
        self._commands = commands
        self._nodes = nodes
        self._gateways = gateways
        self._questions = questions
        self._runtimes = runtimes
        self._artifact_roots = artifact_roots
        self._key_secret = key_secret
        """Command id -> the secret of the key it issues, so that a repeat shows the same one."""


def applied(outcome: Outcome[Any]) -> Applied:
    """The outcome as an answer."""
    return Applied(position=outcome.position, changed=bool(outcome.events))
