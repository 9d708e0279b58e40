"""Swaps of an endpoint: an immediate move of all its traffic, once the version is resident.

Part of `engine.decisions.endpoint`. Who asks for one says until when; the reaction to swaps
completes it when nodes have the version, and fails it when they cannot or the deadline passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from engine.decisions import policy as policies
from engine.decisions.endpoint_state import Endpoint
from engine.decisions.facts import check_registered, check_resident
from engine.decisions.under_way import check_no_rollout, check_no_swap, swap_failed
from events import Event
from events.catalogue.endpoints import SwapCompleted, SwapRequested

# ---------------------------------------------------------------------------------------- Commands


class RequestSwap(msgspec.Struct, frozen=True, kw_only=True):
    """Load a version, then move all traffic to it.

    Raises UnknownEndpoint, UnknownVersions, SwapUnderWay, RolloutUnderWay.
    """

    swap_id: str
    to: str
    deadline: datetime
    registered: frozenset[str]


class CompleteSwap(msgspec.Struct, frozen=True, kw_only=True):
    """The version is resident: move. A swap that has ended already stays as it ended.

    Raises UnknownEndpoint, VersionNotResident.
    """

    swap_id: str
    resident: frozenset[str]


class FailSwap(msgspec.Struct, frozen=True, kw_only=True):
    """Give up; traffic stays where it is. Raises UnknownEndpoint."""

    swap_id: str
    reason: Literal["load_failed", "timeout"]
    detail: str = ""


Command: TypeAlias = RequestSwap | CompleteSwap | FailSwap

# ------------------------------------------------------------------------------------------ decide


def decide(state: Endpoint, command: Command) -> Sequence[Event]:
    """The events of the command, or a refusal."""
    match command:
        case RequestSwap():
            return _request(state, command)
        case CompleteSwap():
            return _complete(state, command)
        case FailSwap():
            return _fail(state, command)


def _request(state: Endpoint, command: RequestSwap) -> Sequence[Event]:
    check_no_rollout(state)
    if state.swap is not None and state.swap.to_version == command.to:
        return ()
    check_no_swap(state)
    if policies.sole(state.policy) == command.to:
        return ()
    check_registered({"to": command.to}, command.registered)
    return (
        SwapRequested(
            swap_id=command.swap_id,
            from_version=state.active,
            to_version=command.to,
            deadline=command.deadline,
        ),
    )


def _complete(state: Endpoint, command: CompleteSwap) -> Sequence[Event]:
    swap = state.swap
    if swap is None or swap.swap_id != command.swap_id:
        return ()
    check_resident({swap.to_version}, command.resident)
    return (
        SwapCompleted(
            swap_id=swap.swap_id,
            from_version=swap.from_version,
            to_version=swap.to_version,
            policy=policies.all_to(swap.to_version, like=state.policy),
        ),
    )


def _fail(state: Endpoint, command: FailSwap) -> Sequence[Event]:
    if state.swap is None or state.swap.swap_id != command.swap_id:
        return ()
    return swap_failed(state, command.reason, command.detail)
