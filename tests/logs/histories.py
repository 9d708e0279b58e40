"""The histories that are recorded, as the commands that make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.decisions import endpoint, model, node, tenant
from events.catalogue.endpoints import Policy, Rule, Shadow, When
from events.catalogue.models import Artifact
from events.catalogue.tenants import Quota
from tests.logs import judged, rollouts
from tests.logs.judged import JudgedHistory
from tests.logs.recorder import MIB, Recorder, begin, ref


async def plain_lifecycle(record: Recorder) -> None:
    """From nothing to a canary, a swap, a rollback, a retired version and a revoked key."""
    await begin(record)
    await record.tenant(tenant.SetQuota(quota=Quota(requests_per_s=500, models_max=10)))
    artifact = Artifact(uri="file:///srv/models/fraud-2", sha256="ab" * 32, size_bytes=4_096)
    await record.register(
        "2.0.0",
        artifact=artifact,
        parent="fraud@1.0.0",
        memory_bytes=16 * MIB,
        labels={"commit": "4f2e"},
        metrics={"auc": 0.93},
    )
    await record.register("2.1.0-rc.1+build.7", parent="fraud@2.0.0", config={"answer": [1, None]})
    await record.load("node-1", "1.0.0", "2.0.0")
    await record.create("1.0.0")
    await record.policy(Policy(split={"1.0.0": 90.0, "2.0.0": 10.0}))
    await record.policy(_policy_with_everything())
    await record.request_swap("swap-1", "2.0.0")
    await record.complete_swap("swap-1")
    await record.endpoint(endpoint.RollBack(reason="complaints – «latency» ✗"))
    await record.model(model.RetireVersion(version="2.1.0-rc.1+build.7", routed_by=frozenset()))
    await record.tenant(tenant.RevokeKey(key_id="k1"))
    await record.node("node-1", node.Drain(reason="maintenance"))
    await record.node("node-1", node.Leave())


async def swap_that_fails(record: Recorder) -> None:
    """One swap fails to load, one runs out of time, one is superseded; 1.0.0 serves throughout."""
    await begin(record)
    await record.register("2.0.0", config={"error_rate": 1.0})
    await record.load("node-1", "1.0.0")
    await record.create("1.0.0")
    await record.request_swap("swap-1", "2.0.0")
    failure = node.ReportLoadFailed(
        version=ref("2.0.0"), reason="digest", detail="sha256 differs from the registered one"
    )
    await record.node("node-1", failure)
    await record.endpoint(
        endpoint.FailSwap(swap_id="swap-1", reason="load_failed", detail="node-1: digest"),
        actor="reaction:swaps",
    )
    await record.request_swap("swap-2", "2.0.0")
    await record.endpoint(
        endpoint.FailSwap(swap_id="swap-2", reason="timeout", detail="not resident in time"),
        actor="reaction:swaps",
    )
    await record.request_swap("swap-3", "2.0.0")
    await record.policy(Policy(split={"1.0.0": 1.0}, sticky=False))


async def rollback_during_a_swap(record: Recorder) -> None:
    """A rollback wins over a pending swap, and over a split; then the swap is tried again."""
    await begin(record)
    await record.register("2.0.0")
    await record.register("3.0.0")
    await record.load("node-1", "1.0.0", "2.0.0")
    await record.create("1.0.0")
    await record.request_swap("swap-1", "2.0.0")
    await record.complete_swap("swap-1")
    await record.request_swap("swap-2", "3.0.0")
    await record.endpoint(endpoint.RollBack(reason="second thoughts"))
    await record.load("node-1", "3.0.0")
    await record.policy(Policy(split={"2.0.0": 3.0, "3.0.0": 1.0}))
    await record.endpoint(endpoint.RollBack(reason=""))
    await record.request_swap("swap-3", "3.0.0")
    await record.complete_swap("swap-3")


async def alias_moves(record: Recorder) -> None:
    """Two aliases travel over three versions, also backwards."""
    await begin(record)
    await record.register("1.1.0", parent="fraud@1.0.0")
    await record.register("2.0.0", parent="fraud@1.1.0")
    for alias, version in [
        ("production", "1.0.0"),
        ("staging", "1.1.0"),
        ("production", "1.1.0"),
        ("staging", "2.0.0"),
        ("production", "2.0.0"),
        ("production", "1.1.0"),
    ]:
        await record.model(model.MoveAlias(alias=alias, version=version))
    await record.model(model.RetireVersion(version="1.0.0", routed_by=frozenset()))


async def node_loss(record: Recorder) -> None:
    """One of two nodes is lost and comes back empty; the other one evicts and crashes."""
    await begin(record)
    await record.node("node-2", node.Join(memory_budget_bytes=32 * MIB, runtimes=("echo",)))
    await record.register("2.0.0")
    await record.load("node-1", "1.0.0", "2.0.0")
    await record.load("node-2", "1.0.0")
    await record.create("1.0.0")
    await record.node("node-1", node.Lose(reason="its lease ran out"))
    await record.node("node-1", node.Join(memory_budget_bytes=128 * MIB, runtimes=("echo",)))
    await record.load("node-1", "1.0.0")
    await record.load("node-2", "2.0.0")
    await record.node("node-2", node.ReportUnloaded(version=ref("2.0.0"), reason="evicted"))
    await record.node("node-2", node.ReportUnloaded(version=ref("1.0.0"), reason="crashed"))
    await record.node("node-2", node.Lose(reason="its lease ran out"))


async def alert_rolls_back(record: Recorder) -> None:
    """A warning changes nothing, a critical alert rolls back, and is cleared later."""
    await begin(record)
    await record.register("2.0.0")
    await record.load("node-1", "1.0.0", "2.0.0")
    await record.create("1.0.0")
    await record.request_swap("swap-1", "2.0.0")
    await record.complete_swap("swap-1")
    await record.endpoint(
        endpoint.RaiseAlert(alert_id="a1", kind="latency", severity="warning", detail="p99 210 ms")
    )
    await record.endpoint(
        endpoint.RaiseAlert(alert_id="a2", kind="errors", severity="critical", detail="31 %")
    )
    await record.endpoint(endpoint.ClearAlert(alert_id="a2", reason="looked at"))


HISTORIES: Final[Mapping[str, JudgedHistory]] = {
    "plain-lifecycle": plain_lifecycle,
    "swap-that-fails": swap_that_fails,
    "rollback-during-a-swap": rollback_during_a_swap,
    "alias-moves": alias_moves,
    "node-loss": node_loss,
    "alert-rolls-back": alert_rolls_back,
    **rollouts.HISTORIES,
    **judged.HISTORIES,
}
"""File name -> history."""


def _policy_with_everything() -> Policy:
    office = When(days=("mon", "tue"), from_="09:00", to="17:00", timezone="Europe/Paris")
    return Policy(
        split={"1.0.0": 75.0, "2.0.0": 25.0},
        rules=(
            Rule(name="office hours", when=office, split={"2.0.0": 100.0}),
            Rule(
                name="beta",
                when=When(attributes={"tier": "beta"}),
                split={"1.0.0": 1.0, "2.0.0": 1.0},
            ),
        ),
        shadow=(Shadow(version="2.0.0", fraction=0.5),),
    )
