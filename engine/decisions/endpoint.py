"""Endpoints: stable names, and how their traffic is split. Entity `<tenant>/endpoint/<name>`.

Guarantees: a version takes traffic only if it was registered and resident when that was decided; a
rollback is never told no while anything but the last good version takes traffic or is about to, and
leaves all traffic on that version and neither a swap nor a rollout under way; pressing it again
changes nothing. Does not guarantee that a version stays resident: nodes do, for `pinned_versions`.

Here is what can be asked of every endpoint, and the decider that ties the parts together:

- `engine.decisions.endpoint_state`: State and evolve; what *the last good version* is.
- `engine.decisions.swap`, `rollout`, `rollout_control`, `alert`: their commands, and `decide`.
- `engine.decisions.under_way`: what a swap or a rollout keeps others from, and how it ends early.
- `engine.decisions.policy`, `rollout_plan`, `facts`: what can be wrong with what a command says;
  `verdicts`: what it says, made fit for events.

Callers find every command, refusal and state in this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from engine.decisions import alert, rollout, rollout_control, swap
from engine.decisions import policy as policies
from engine.decisions.alert import ClearAlert, InvalidAlert, RaiseAlert, open_alert
from engine.decisions.decider import Conflict, Decider, Invalid, NotFound
from engine.decisions.endpoint_state import (
    Alert,
    EndedRollout,
    Endpoint,
    Rollout,
    State,
    Swap,
    evolve,
)
from engine.decisions.facts import (
    UnknownVersions,
    VersionNotResident,
    check_registered,
    check_resident,
)
from engine.decisions.rollout import (
    AdvanceRollout,
    HoldRollout,
    InvalidRollout,
    StartRollout,
    TrafficIsSplit,
)
from engine.decisions.rollout_control import (
    AbortRollout,
    PauseRollout,
    PromoteRollout,
    ResumeRollout,
    RolloutEnded,
    StepNotReached,
    UnknownRollout,
)
from engine.decisions.swap import CompleteSwap, FailSwap, RequestSwap
from engine.decisions.under_way import (
    RolloutUnderWay,
    SwapUnderWay,
    rolled_back,
    rollout_aborted,
    swap_failed,
)
from events import Event
from events.catalogue.endpoints import EndpointCreated, Policy, PolicySet

__all__ = [
    "DECIDER",
    "AbortRollout",
    "AdvanceRollout",
    "Alert",
    "ClearAlert",
    "Command",
    "CompleteSwap",
    "CreateEndpoint",
    "EndedRollout",
    "Endpoint",
    "EndpointExists",
    "FailSwap",
    "HoldRollout",
    "InvalidAlert",
    "InvalidPolicy",
    "InvalidRollout",
    "NothingToRollBack",
    "PauseRollout",
    "PromoteRollout",
    "RaiseAlert",
    "RequestSwap",
    "ResumeRollout",
    "RollBack",
    "Rollout",
    "RolloutEnded",
    "RolloutUnderWay",
    "SetPolicy",
    "StartRollout",
    "State",
    "StepNotReached",
    "Swap",
    "SwapUnderWay",
    "TrafficIsSplit",
    "UnknownEndpoint",
    "UnknownRollout",
    "UnknownVersions",
    "VersionNotResident",
    "decide",
    "evolve",
    "open_alert",
]

# ---------------------------------------------------------------------------------------- Commands


class CreateEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """All traffic to one version. Raises EndpointExists, UnknownVersions, VersionNotResident."""

    model: str
    version: str
    registered: frozenset[str]
    """Fact: the model's versions that are registered and not retired."""
    resident: frozenset[str]
    """Fact: the model's versions that some node can serve now."""


class SetPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Split the traffic; what is under way, swap or rollout, is superseded.

    Raises UnknownEndpoint, InvalidPolicy, UnknownVersions, VersionNotResident.
    """

    policy: Policy
    registered: frozenset[str]
    resident: frozenset[str]


class RollBack(msgspec.Struct, frozen=True, kw_only=True):
    """All traffic to the last good version. Raises UnknownEndpoint, NothingToRollBack."""

    reason: str = ""


Command: TypeAlias = (
    CreateEndpoint
    | SetPolicy
    | RollBack
    | swap.Command
    | rollout.Command
    | rollout_control.Command
    | alert.Command
)


class InvalidPolicy(Invalid):
    """A policy without a meaning, see `engine.decisions.policy`."""


class UnknownEndpoint(NotFound):
    """Every command but CreateEndpoint needs an endpoint."""

    def __init__(self) -> None:
        super().__init__("there is no such endpoint")


class EndpointExists(Conflict):
    """The name is taken by an endpoint that was created otherwise; swap it instead."""

    def __init__(self, model: str, version: str) -> None:
        super().__init__(f"the endpoint exists, created for {model}@{version}")
        self.model = model
        self.version = version


class NothingToRollBack(Conflict):
    """Only one version ever carried traffic."""

    def __init__(self, active: str) -> None:
        super().__init__(f"no other version than {active} has carried all traffic")
        self.active = active


# ------------------------------------------------------------------------------------------ decide


def decide(state: State, command: Command) -> Sequence[Event]:
    """The events of the command, or a refusal."""
    if isinstance(command, CreateEndpoint):
        return _create(state, command)
    if state is None:
        raise UnknownEndpoint
    match command:
        case SetPolicy():
            return _set_policy(state, command)
        case RollBack():
            return _roll_back(state, command)
        case RequestSwap() | CompleteSwap() | FailSwap():
            return swap.decide(state, command)
        case StartRollout() | AdvanceRollout() | HoldRollout():
            return rollout.decide(state, command)
        case PauseRollout() | ResumeRollout() | PromoteRollout() | AbortRollout():
            return rollout_control.decide(state, command)
        case RaiseAlert() | ClearAlert():
            return alert.decide(state, command)


def _create(state: State, command: CreateEndpoint) -> Sequence[Event]:
    if state is not None:
        if (state.model, state.created_with) == (command.model, command.version):
            return ()
        raise EndpointExists(state.model, state.created_with)
    check_registered({"version": command.version}, command.registered)
    check_resident({command.version}, command.resident)
    policy = Policy(split={command.version: 100.0})
    return (EndpointCreated(model=command.model, version=command.version, policy=policy),)


def _set_policy(state: Endpoint, command: SetPolicy) -> Sequence[Event]:
    if command.policy == state.policy and state.rollout is None:
        return ()
    if found := policies.problems(command.policy):
        raise InvalidPolicy(found)
    check_registered(dict(policies.mentions(command.policy)), command.registered)
    check_resident(policies.routed(command.policy), command.resident)
    reason = "a policy was set"
    return (
        *swap_failed(state, "superseded", reason),
        *rollout_aborted(state, "superseded", reason),
        PolicySet(policy=command.policy),
    )


def _roll_back(state: Endpoint, command: RollBack) -> Sequence[Event]:
    if state.rollback_target is None:
        if state.rolled_back:
            return ()
        raise NothingToRollBack(state.active)
    return (
        *swap_failed(state, "rolled_back", command.reason),
        *rollout_aborted(state, "rolled_back", command.reason),
        *rolled_back(state, command.reason),
    )


# ----------------------------------------------------------------------------------------- Decider

DECIDER: Final[Decider[Command, State]] = Decider(initial=None, evolve=evolve, decide=decide)
