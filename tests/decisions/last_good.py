"""The last good version by its definition, from the events alone, apart from `evolve`."""

from __future__ import annotations

from collections.abc import Iterable

from engine.decisions.policy import takers
from events import Event
from events.catalogue.endpoints import (
    AlertCleared,
    AlertRaised,
    EndpointCreated,
    PolicySet,
    RolledBack,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutStarted,
    SwapCompleted,
    SwapFailed,
    SwapRequested,
)


class LastGood:
    """What would be rolled back to after these events."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.carried: list[str] = []
        self.taking: set[str] = set()
        self.pending: str | None = None
        self.candidate: str | None = None
        self.alarming: dict[str, str | None] = {}
        for event in events:
            self._see(event)

    @property
    def active(self) -> str:
        return self.carried[-1]

    @property
    def challenged(self) -> bool:
        under_way = self.pending is not None or self.candidate is not None
        return under_way or self.taking != {self.active}

    @property
    def version(self) -> str | None:
        latest = self.carried[::-1] if self.challenged else self.carried[-2::-1]
        known = latest[: 2 if self.challenged else 1]
        possible = [version for version in known if version != self.candidate]
        good = [version for version in possible if version not in self.alarming.values()]
        return next(iter([*good, *possible]), None)

    def _see(self, event: Event) -> None:
        match event:
            case EndpointCreated() | PolicySet() | SwapCompleted() | RolloutCompleted():
                self._carry(set(takers(event.policy)))
            case RolledBack():
                self.carried = []
                self._carry(set(takers(event.policy)))
            case RolloutStarted() | RolloutAdvanced():
                self.taking = set(takers(event.policy))
        match event:
            case SwapRequested():
                self.pending = event.to_version
            case SwapCompleted() | SwapFailed():
                self.pending = None
            case RolloutStarted():
                self.candidate = event.candidate
            case RolloutCompleted() | RolloutAborted():
                self.candidate = None
            case AlertRaised(severity="critical"):
                self.alarming[event.alert_id] = event.version
            case AlertCleared():
                self.alarming.pop(event.alert_id, None)

    def _carry(self, taking: set[str]) -> None:
        self.taking = taking
        if len(taking) == 1 and self.carried[-1:] != [*taking]:
            self.carried += taking
