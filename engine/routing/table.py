"""The compiled policy of one endpoint, and the decision for one request.

`decide_route` is pure: the same table, key, time and attributes give the same decision, in every
process and on every machine (given the same time-zone data). The steps are: key -> bucket; time and
attributes -> the first rule that matches, else the policy's own split; bucket and split -> version.

The salt is the endpoint, not the policy, so a key stays in its bucket for good; what a change of
weights does to a bucket is said in `engine.routing.splits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from xxhash import xxh3_64_digest

from engine.routing.errors import PolicyInvalid
from engine.routing.splits import Mirror, Split, choose, compile_mirror, compile_split, takes
from engine.routing.windows import Window, compile_window, holds
from events.catalogue.endpoints import Policy, Rule
from events.event import Position

BUCKETS: Final = 2**32
"""Buckets are numbered from 0 to BUCKETS - 1."""

_MINUTE_MS: Final = 60_000


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Where one request goes, and why."""

    version: str
    bucket: int
    """Of the key, 0 to BUCKETS - 1; the same under every policy of the endpoint."""
    rule: str | None
    """The name of the rule that matched; None: the policy's own split."""
    shadow: tuple[str, ...]
    """Versions that get a copy; never the version itself."""
    position: Position
    """Of the event that set the policy."""


class CompiledRule(msgspec.Struct, frozen=True):
    """One rule: its conditions, either of which may be absent, and its split."""

    name: str
    window: Window | None
    attributes: dict[str, str] | None
    split: Split


class _InForce:
    """The rules whose time condition holds, for the last minute asked: a cache, never more.

    The minute and its rules are replaced together, so another thread sees a whole entry.
    """

    __slots__ = ("entry",)

    def __init__(self) -> None:
        self.entry: tuple[int | None, tuple[CompiledRule, ...]] = (None, ())


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A policy made ready for `decide_route`. Made by `compile_policy` only."""

    salt: str
    position: Position
    sticky: bool
    split: Split
    shadow: tuple[Mirror, ...]
    rules: tuple[CompiledRule, ...]
    fallback: tuple[str, ...]
    """Versions that stand in for one that fails, in the order in which they are asked."""
    prefix: bytes
    timed: bool
    """Does any rule depend on the time?"""
    in_force: _InForce


def endpoint_salt(tenant: str, endpoint: str) -> str:
    """The salt of an endpoint's tables."""
    return f"{tenant}/{endpoint}"


def compile_policy(policy: Policy, *, salt: str, position: Position) -> Table:
    """A table for the policy that the event at `position` set. Raises PolicyInvalid."""
    _check_distinct([rule.name for rule in policy.rules], path="rules")
    _check_distinct([shadow.version for shadow in policy.shadow], path="shadow")
    _check_distinct(list(policy.fallback), path="fallback")
    rules = tuple(_compile_rule(rule, path=f"rules[{i}]") for i, rule in enumerate(policy.rules))
    return Table(
        salt=salt,
        position=position,
        sticky=policy.sticky,
        split=compile_split(policy.split, path="split"),
        shadow=tuple(
            compile_mirror(shadow, path=f"shadow[{i}]") for i, shadow in enumerate(policy.shadow)
        ),
        rules=rules,
        fallback=policy.fallback,
        prefix=salt.encode() + b"\0",
        timed=any(rule.window is not None for rule in rules),
        in_force=_InForce(),
    )


def routing_key(table: Table, key: str | None, request_id: str) -> str:
    """What to decide by: the caller's key, or the request if there is none or it does not count."""
    return key if key and table.sticky else request_id


def decide_route(table: Table, key: str, now_ms: int, attributes: Mapping[str, str]) -> Decision:
    """The decision for a request. `key` comes from `routing_key`, `now_ms` is since the epoch.

    Milliseconds, because that is what the receipt keeps: recomputing compares the same number.
    """
    bucket = _bucket_bytes(table, key)
    for rule in rules_in_force(table, now_ms):
        if rule.attributes is None or rule.attributes.items() <= attributes.items():
            return decide_bucket(table, rule, bucket)
    return decide_bucket(table, None, bucket)


def fallbacks(table: Table, decision: Decision) -> tuple[str, ...]:
    """The versions to ask, in this order, when the chosen one fails; never that one itself."""
    return tuple(version for version in table.fallback if version != decision.version)


def bucket_of(table: Table, key: str) -> int:
    """The bucket of a key: the upper half of xxh3_64 of the salt, a zero byte, the key in UTF-8."""
    return int.from_bytes(_bucket_bytes(table, key), "big")


def decide_bucket(table: Table, rule: CompiledRule | None, bucket: bytes) -> Decision:
    """The decision for a bucket's four bytes, given the rule that matched."""
    version = choose(table.split if rule is None else rule.split, bucket)
    shadow = (
        tuple(m.version for m in table.shadow if m.version != version and takes(m, bucket))
        if table.shadow
        else ()
    )
    return Decision(
        version,
        int.from_bytes(bucket, "big"),
        None if rule is None else rule.name,
        shadow,
        table.position,
    )


def rules_in_force(table: Table, now_ms: int) -> tuple[CompiledRule, ...]:
    """The rules whose time condition holds, in order of the policy."""
    if not table.timed:
        return table.rules
    minute = now_ms // _MINUTE_MS
    cached, rules = table.in_force.entry
    if cached != minute:
        rules = tuple(r for r in table.rules if r.window is None or holds(r.window, minute))
        table.in_force.entry = (minute, rules)
    return rules


def _bucket_bytes(table: Table, key: str) -> bytes:
    # A lone surrogate is no valid text but may arrive inside JSON: it is a key like any other.
    return xxh3_64_digest(table.prefix + key.encode("utf-8", "surrogatepass"))[:4]


def _compile_rule(rule: Rule, *, path: str) -> CompiledRule:
    return CompiledRule(
        rule.name,
        compile_window(rule.when, path=f"{path}.when"),
        rule.when.attributes or None,
        compile_split(rule.split, path=f"{path}.split"),
    )


def _check_distinct(names: list[str], *, path: str) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise PolicyInvalid(f"{path}[{i}]", f"{name[:80]!r} occurs twice")
