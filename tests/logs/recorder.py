"""Records a history: real decisions on a log in memory, with ids and times that never change.

Facts about other entities (which versions are registered, which are resident) are those of the
routing fold of what was recorded so far, as in a running system.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID, uuid5

from engine.decisions import endpoint, model, node, tenant
from engine.decisions.decider import Decider
from events import EntityId, Event, Metadata, codec
from events.catalogue.endpoints import Analysis, Policy, Step, Verdict
from events.catalogue.nodes import VersionRef
from events.event import SYSTEM_TENANT
from events.memory import MemoryLog
from handlers.commands import CommandHandler
from handlers.routing import Routing

NAMESPACE: Final = UUID("5f0c8a52-7d6e-4b1a-9c55-0e6f3d2b1a90")
BEGIN: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
STEP: Final = timedelta(seconds=7)
MIB: Final = 1024 * 1024


class Recorder:
    """One history of tenant `acme`: its model `fraud`, its endpoint `score`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._log = MemoryLog()
        self._commands = CommandHandler(self._log)
        self._routing = Routing()
        self._count = 0

    async def lines(self) -> bytes:
        """The recording: one CloudEvent a line."""
        return b"".join([codec.encode_recorded(r) + b"\n" for r in await self._events_after(0)])

    async def tenant(self, command: tenant.Command) -> None:
        await self._do(tenant.DECIDER, EntityId("acme", "tenant", "acme"), command, "local")

    async def model(self, command: model.Command) -> None:
        await self._do(model.DECIDER, EntityId("acme", "model", "fraud"), command, "key:trainer")

    async def node(self, node_id: str, command: node.Command) -> None:
        entity = EntityId(SYSTEM_TENANT, "node", node_id)
        await self._do(node.DECIDER, entity, command, f"node:{node_id}")

    async def endpoint(self, command: endpoint.Command, *, actor: str = "key:operator") -> None:
        await self._do(endpoint.DECIDER, EntityId("acme", "endpoint", "score"), command, actor)

    async def register(self, version: str, **body: Any) -> None:
        """A version of `fraud` with runtime `echo`."""
        command = {"version": version, "runtime": "echo", "runtimes": frozenset({"echo"}), **body}
        await self.model(model.RegisterVersion(**command))

    async def load(self, node_id: str, *versions: str) -> None:
        for version in versions:
            report = node.ReportLoaded(version=ref(version), memory_bytes=8 * MIB, load_ms=12.5)
            await self.node(node_id, report)

    async def create(self, version: str) -> None:
        command = endpoint.CreateEndpoint(
            model="fraud", version=version, registered=self.usable, resident=self.resident
        )
        await self.endpoint(command)

    async def policy(self, policy: Policy) -> None:
        command = endpoint.SetPolicy(policy=policy, registered=self.usable, resident=self.resident)
        await self.endpoint(command)

    async def request_swap(self, swap_id: str, to: str) -> None:
        deadline = self.now + timedelta(seconds=60)
        command = endpoint.RequestSwap(
            swap_id=swap_id, to=to, deadline=deadline, registered=self.usable
        )
        await self.endpoint(command)

    async def complete_swap(self, swap_id: str) -> None:
        command = endpoint.CompleteSwap(swap_id=swap_id, resident=self.resident)
        await self.endpoint(command, actor="reaction:swaps")

    async def start_rollout(
        self, rollout_id: str, to: str, *steps: Step, analysis: Analysis | None = None
    ) -> None:
        command = endpoint.StartRollout(
            rollout_id=rollout_id,
            to=to,
            steps=steps,
            analysis=analysis or Analysis(),
            now=self.now,
            registered=self.usable,
            resident=self.resident,
        )
        await self.endpoint(command)

    async def advance(
        self,
        rollout_id: str,
        step: int,
        *verdicts: Verdict,
        reason: Literal["passed", "inconclusive"] = "passed",
    ) -> None:
        """The step has passed."""
        command = endpoint.AdvanceRollout(
            rollout_id=rollout_id,
            step=step,
            reason=reason,
            verdicts=verdicts,
            now=self.now,
            resident=self.resident,
        )
        await self.endpoint(command, actor="reaction:rollouts")

    async def hold(self, rollout_id: str, step: int, *verdicts: Verdict) -> None:
        """The step's hold is over and the evidence says neither."""
        command = endpoint.HoldRollout(rollout_id=rollout_id, step=step, verdicts=verdicts)
        await self.endpoint(command, actor="reaction:rollouts")

    async def fail(self, rollout_id: str, *verdicts: Verdict, detail: str) -> None:
        """A verdict aborts the rollout."""
        command = endpoint.AbortRollout(
            rollout_id=rollout_id, reason="failed", detail=detail, verdicts=verdicts
        )
        await self.endpoint(command, actor="reaction:rollouts")

    @property
    def now(self) -> datetime:
        """When the next command is taken."""
        return BEGIN + self._count * STEP

    @property
    def usable(self) -> frozenset[str]:
        return self._routing.models["acme", "fraud"].usable

    @property
    def resident(self) -> frozenset[str]:
        return self._routing.resident("acme", "fraud")

    async def _do(
        self, decider: Decider[Any, Any], entity: EntityId, command: object, actor: str
    ) -> None:
        """Every command of a recording must have an effect."""
        metadata = Metadata(
            command_id=uuid5(NAMESPACE, f"{self._name}/{self._count}"), time=self.now, actor=actor
        )
        self._count += 1
        outcome = await self._commands.handle(decider, entity, command, metadata=metadata)
        written: Sequence[Event] = outcome.events
        assert written, f"{command} changed nothing"
        for recorded in await self._events_after(self._routing.position):
            self._routing.apply(recorded)

    async def _events_after(self, position: int) -> list[Any]:
        until = await self._log.position()
        if until == position:
            return []
        found: list[Any] = []
        async for batch in self._log.subscribe_batches(after=position):
            found.extend(batch)
            if batch[-1].position == until:
                break
        return found


def ref(version: str) -> VersionRef:
    return VersionRef("acme", "fraud", version)


async def begin(record: Recorder) -> None:
    """What every history begins with: the tenant, the model with its first version, a node."""
    await record.tenant(tenant.CreateTenant(name="acme"))
    await record.tenant(
        tenant.IssueKey(key_id="k1", secret_sha256="0f" * 32, scopes=("operate", "read"))
    )
    await record.model(model.RegisterModel(name="fraud", description="Card fraud"))
    await record.register("1.0.0", config={"answer": "genuine", "latency_ms": 5})
    await record.node("node-1", node.Join(memory_budget_bytes=64 * MIB, runtimes=("echo",)))


History: TypeAlias = Callable[[Recorder], Awaitable[None]]
