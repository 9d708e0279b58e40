"""A small log that holds every kind of event the tables know, of two tenants and a node."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from events import EntityId, Event, EventLog, Metadata, Position
from events.catalogue.endpoints import (
    AlertCleared,
    AlertRaised,
    EndpointCreated,
    Policy,
    PolicySet,
    RolledBack,
    SwapCompleted,
    SwapFailed,
    SwapRequested,
)
from events.catalogue.models import (
    AliasMoved,
    Artifact,
    ModelRegistered,
    VersionRegistered,
    VersionRetired,
)
from events.catalogue.nodes import (
    NodeDraining,
    NodeJoined,
    NodeLeft,
    NodeLost,
    VersionLoaded,
    VersionLoadFailed,
    VersionRef,
    VersionUnloaded,
)
from events.catalogue.tenants import KeyIssued, KeyRevoked, Quota, QuotaSet, TenantCreated
from events.memory import MemoryLog
from tests.projections import rollouts

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)

ACME = EntityId("acme", "tenant", "acme")
BETA = EntityId("beta", "tenant", "beta")
FRAUD = EntityId("acme", "model", "fraud")
BETA_FRAUD = EntityId("beta", "model", "fraud")
CHAT = EntityId("acme", "endpoint", "chat")
BETA_CHAT = EntityId("beta", "endpoint", "chat")
N1 = EntityId("system", "node", "n1")
N2 = EntityId("system", "node", "n2")
N3 = EntityId("system", "node", "n3")

V1 = VersionRef("acme", "fraud", "1.0.0")
V2 = VersionRef("acme", "fraud", "2.0.0")
BETA_V1 = VersionRef("beta", "fraud", "1.0.0")


class Writer:
    """Appends as one command a second, with ids that are the same in every run."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._last: dict[EntityId, Position] = {}
        self._commands = 0

    async def append(self, entity: EntityId, *events: Event, actor: str = "key:k1") -> Position:
        self._commands += 1
        metadata = Metadata(
            command_id=UUID(int=self._commands),
            time=START + timedelta(seconds=self._commands),
            actor=actor,
        )
        expected = self._last.get(entity, 0)
        position = await self.log.append(entity, events, expected=expected, metadata=metadata)
        self._last[entity] = position
        return position


def all_to(version: str) -> Policy:
    return Policy(split={version: 100.0})


def requested(swap: str, from_version: str, to_version: str) -> SwapRequested:
    return SwapRequested(
        swap_id=swap,
        from_version=from_version,
        to_version=to_version,
        deadline=START + timedelta(minutes=5),
    )


def completed(swap: str, from_version: str, to_version: str) -> SwapCompleted:
    return SwapCompleted(
        swap_id=swap, from_version=from_version, to_version=to_version, policy=all_to(to_version)
    )


def loaded(version: VersionRef, memory_bytes: int = 100) -> VersionLoaded:
    return VersionLoaded(version=version, memory_bytes=memory_bytes, load_ms=12.5)


async def write_life(log: EventLog) -> Position:
    """The whole small world; the position of its last event."""
    writer = Writer(log)
    for entity, events in LIFE:
        position = await writer.append(entity, *events)
    return position


async def life() -> MemoryLog:
    log = MemoryLog()
    await write_life(log)
    return log


_ARTIFACT = Artifact(uri="file:///models/fraud", sha256="ab" * 32, size_bytes=10)
_KEY = KeyIssued(key_id="k1", secret_sha256="cd" * 32, scopes=("admin", "read"))
_V1 = VersionRegistered(
    version="1.0.0",
    runtime="echo",
    config={"answer": "one", "nested": {"b": [1, 2.5, None], "a": True}},
    artifact=_ARTIFACT,
    memory_bytes=1_000,
    labels={"team": "risk"},
    metrics={"accuracy": 0.91},
)

LIFE: Sequence[tuple[EntityId, Sequence[Event]]] = (
    (ACME, [TenantCreated(name="Acme"), _KEY]),
    (BETA, [TenantCreated(name="Beta")]),
    (ACME, [QuotaSet(quota=Quota(requests_per_s=50))]),
    (N1, [NodeJoined(memory_budget_bytes=1_000, runtimes=("echo", "python"))]),
    (FRAUD, [ModelRegistered(name="fraud", description="cards", labels={"a": "b"}), _V1]),
    (FRAUD, [VersionRegistered(version="2.0.0", runtime="echo", parent="fraud@1.0.0")]),
    (BETA_FRAUD, [ModelRegistered(name="fraud")]),
    (BETA_FRAUD, [VersionRegistered(version="1.0.0", runtime="echo")]),
    (FRAUD, [AliasMoved(alias="live", to_version="1.0.0")]),
    (N1, [loaded(V1), loaded(BETA_V1, 30)]),
    (CHAT, [EndpointCreated(model="fraud", version="1.0.0", policy=all_to("1.0.0"))]),
    (BETA_CHAT, [EndpointCreated(model="fraud", version="1.0.0", policy=all_to("1.0.0"))]),
    (CHAT, [requested("s1", "1.0.0", "2.0.0")]),
    (N2, [NodeJoined(memory_budget_bytes=500, runtimes=("echo",))]),
    (N2, [loaded(V1, 110)]),
    (N1, [VersionLoadFailed(version=V2, reason="digest", detail="another file")]),
    (CHAT, [SwapFailed(swap_id="s1", from_version="1.0.0", to_version="2.0.0", reason="timeout")]),
    (N1, [loaded(V2, 200)]),
    (CHAT, [requested("s2", "1.0.0", "2.0.0")]),
    (CHAT, [completed("s2", "1.0.0", "2.0.0")]),
    (FRAUD, [AliasMoved(alias="live", from_version="1.0.0", to_version="2.0.0")]),
    (CHAT, [AlertRaised(alert_id="a1", kind="errors", severity="warning", version="2.0.0")]),
    (CHAT, [AlertRaised(alert_id="a2", kind="latency", severity="critical", version="2.0.0")]),
    (CHAT, [AlertCleared(alert_id="a1")]),
    (
        CHAT,
        [
            RolledBack(
                from_versions=("2.0.0",),
                to_version="1.0.0",
                reason="latency",
                policy=all_to("1.0.0"),
            )
        ],
    ),
    *((CHAT, events) for events in (*rollouts.FAILED, *rollouts.PAUSED)),
    (
        CHAT,
        [
            rollouts.aborted("r2", 0, "superseded"),
            PolicySet(policy=Policy(split={"1.0.0": 90.0, "2.0.0": 10.0}, sticky=False)),
        ],
    ),
    *((BETA_CHAT, events) for events in rollouts.COMPLETED),
    (FRAUD, [VersionRegistered(version="3.0.0", runtime="echo", parent="fraud@2.0.0")]),
    (FRAUD, [VersionRegistered(version="2.0.1", runtime="echo", parent="fraud@1.0.0")]),
    (FRAUD, [VersionRetired(version="3.0.0")]),
    (N1, [VersionUnloaded(version=V2, reason="evicted")]),
    (N2, [NodeLost(reason="lease")]),
    (N3, [NodeJoined(memory_budget_bytes=10, runtimes=("echo",)), NodeDraining()]),
    (N3, [NodeLeft()]),
    (ACME, [KeyRevoked(key_id="k1")]),
)
