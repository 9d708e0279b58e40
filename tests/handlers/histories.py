"""Random histories that real decisions wrote: refusals leave no trace, and no event is made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from hypothesis import strategies as st

from engine.decisions import endpoint, model, node, tenant
from engine.decisions.decider import Refused
from events import EntityId, Recorded
from events.catalogue.endpoints import Policy, Shadow
from events.catalogue.nodes import VersionRef
from events.catalogue.tenants import Quota

TENANTS = ("acme", "globex")
VERSIONS = ("1.0.0", "2.0.0", "3.0.0-rc.1")
NODES = ("n1", "n2")
START = datetime(2026, 3, 1, tzinfo=UTC)
_IDS = UUID(int=11)
_DECIDERS: dict[str, Any] = {
    "endpoint": endpoint.DECIDER,
    "model": model.DECIDER,
    "node": node.DECIDER,
    "tenant": tenant.DECIDER,
}


class History:
    """Appends what commands decide, as a log would."""

    def __init__(self) -> None:
        self.recorded: list[Recorded] = []
        self._states: dict[EntityId, Any] = {}

    def do(self, entity: EntityId, command: Any) -> None:
        decider = _DECIDERS[entity.aggregate]
        state = self._states.get(entity)
        try:
            events = decider.decide(state, command)
        except Refused:
            return
        for event in events:
            state = decider.evolve(state, event)
            position = len(self.recorded) + 1
            self.recorded.append(
                Recorded(
                    position=position,
                    entity=entity,
                    event=event,
                    id=uuid5(_IDS, str(position)),
                    time=START + timedelta(seconds=position),
                    actor="test",
                    correlation_id="c",
                )
            )
        self._states[entity] = state


def _refs() -> st.SearchStrategy[VersionRef]:
    return st.builds(
        VersionRef, st.sampled_from(TENANTS), st.just("fraud"), st.sampled_from(VERSIONS)
    )


def _policies() -> st.SearchStrategy[Policy]:
    return st.builds(
        Policy,
        split=st.dictionaries(st.sampled_from(VERSIONS), st.sampled_from((1, 50)), min_size=1),
        sticky=st.booleans(),
        shadow=st.sampled_from(((), (Shadow(version=VERSIONS[0], fraction=0.5),))),
        fallback=st.lists(st.sampled_from(VERSIONS), max_size=2, unique=True).map(tuple),
    )


_EVERYTHING = frozenset(VERSIONS)
_SWAP_IDS = st.sampled_from(("s0", "s1", "s2"))
_VERSION = st.sampled_from(VERSIONS)
_KEY_IDS = st.sampled_from(("k0", "k1", "k2"))

_ENDPOINT_COMMANDS = st.one_of(
    st.builds(
        endpoint.CreateEndpoint,
        model=st.just("fraud"),
        version=_VERSION,
        registered=st.just(_EVERYTHING),
        resident=st.just(_EVERYTHING),
    ),
    st.builds(
        endpoint.SetPolicy,
        policy=_policies(),
        registered=st.just(_EVERYTHING),
        resident=st.just(_EVERYTHING),
    ),
    st.builds(
        endpoint.RequestSwap,
        swap_id=_SWAP_IDS,
        to=_VERSION,
        deadline=st.just(START),
        registered=st.just(_EVERYTHING),
    ),
    st.builds(endpoint.CompleteSwap, swap_id=_SWAP_IDS, resident=st.just(_EVERYTHING)),
    st.builds(endpoint.FailSwap, swap_id=_SWAP_IDS, reason=st.just("timeout")),
    st.builds(endpoint.RollBack),
    st.builds(
        endpoint.RaiseAlert,
        alert_id=st.sampled_from(("a1", "a2")),
        kind=st.just("errors"),
        severity=st.sampled_from(("warning", "critical")),
    ),
)
_MODEL_COMMANDS = st.one_of(
    st.builds(model.RegisterModel, name=st.just("fraud")),
    st.builds(
        model.RegisterVersion,
        version=_VERSION,
        runtime=st.just("echo"),
        config=st.just({"answer": {"nested": [1, 2.5, None]}}),
        runtimes=st.just(frozenset({"echo"})),
    ),
    st.builds(model.MoveAlias, alias=st.just("prod"), version=_VERSION),
    st.builds(model.RetireVersion, version=_VERSION, routed_by=st.just(frozenset())),
)
_NODE_COMMANDS = st.one_of(
    st.builds(node.Join, memory_budget_bytes=st.just(1_000), runtimes=st.just(("echo",))),
    st.builds(
        node.ReportLoaded, version=_refs(), memory_bytes=st.integers(0, 9), load_ms=st.just(1.0)
    ),
    st.builds(node.ReportLoadFailed, version=_refs(), reason=st.just("runtime"), detail=st.text()),
    st.builds(node.ReportUnloaded, version=_refs(), reason=st.just("evicted")),
    st.builds(node.Drain),
    st.builds(node.Lose),
    st.builds(node.Leave),
)
_DIGESTS = st.sampled_from(("aa" * 32, "bb" * 32))
_TENANT_COMMANDS = st.one_of(
    st.builds(
        tenant.IssueKey,
        key_id=_KEY_IDS,
        secret_sha256=_DIGESTS,
        scopes=st.just(("infer", "read")),
        expires_at=st.sampled_from((None, START)),
    ),
    st.builds(tenant.RevokeKey, key_id=_KEY_IDS),
    st.builds(tenant.SetQuota, quota=st.builds(Quota, models_max=st.integers(0, 3))),
)


def _on(aggregate: str, ids: tuple[str, ...], commands: st.SearchStrategy[Any]) -> Any:
    owners = st.just("system") if aggregate == "node" else st.sampled_from(TENANTS)
    entities = st.builds(EntityId, owners, st.just(aggregate), st.sampled_from(ids))
    return st.tuples(entities, commands)


_COMMANDS = st.one_of(
    _on("endpoint", ("chat", "search"), _ENDPOINT_COMMANDS),
    _on("model", ("fraud",), _MODEL_COMMANDS),
    _on("node", NODES, _NODE_COMMANDS),
    st.builds(
        lambda name, command: (EntityId(name, "tenant", name), command),
        st.sampled_from(TENANTS),
        _TENANT_COMMANDS,
    ),
)


def _opened() -> History:
    """Everything exists, and there is one of each thing that a snapshot could forget."""
    history = History()
    for name in TENANTS:
        issue = tenant.IssueKey(key_id="k0", secret_sha256="aa" * 32, scopes=("infer",))
        create = endpoint.CreateEndpoint(
            model="fraud", version=VERSIONS[0], registered=_EVERYTHING, resident=_EVERYTHING
        )
        swap = endpoint.RequestSwap(
            swap_id="s0", to=VERSIONS[1], deadline=START, registered=_EVERYTHING
        )
        history.do(EntityId(name, "tenant", name), tenant.CreateTenant(name=name))
        history.do(EntityId(name, "tenant", name), issue)
        history.do(EntityId(name, "endpoint", "chat"), create)
        history.do(EntityId(name, "endpoint", "chat"), swap)
    ref = VersionRef("acme", "fraud", VERSIONS[0])
    for node_id in NODES:
        entity = EntityId("system", "node", node_id)
        history.do(entity, node.Join(memory_budget_bytes=1_000, runtimes=("echo",)))
        history.do(entity, node.ReportLoaded(version=ref, memory_bytes=5, load_ms=1.0))
        history.do(entity, node.ReportLoadFailed(version=ref, reason="runtime", detail="boom"))
    return history


@st.composite
def histories(draw: st.DrawFn) -> list[Recorded]:
    """What a log holds after some commands."""
    history = _opened()
    for entity, command in draw(st.lists(_COMMANDS, max_size=40)):
        history.do(entity, command)
    return history.recorded
