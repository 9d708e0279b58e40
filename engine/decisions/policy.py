"""Policies: what they say about versions, and what can be wrong with them.

A version *takes traffic* if the split or a rule gives it a positive weight. A *fallback* is asked
where the version that was chosen fails: that is no traffic of its own, however much it answers. A
version is *routed* if it takes traffic, is sent copies, or is a fallback.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from functools import cache
from itertools import chain
from math import isfinite
from typing import Final, TypeAlias
from zoneinfo import available_timezones

from msgspec.structs import replace

from events.catalogue.endpoints import Comparison, Policy, Rule, Shadow, When
from events.event import IDENTIFIER

VERSIONS_MAX: Final = 32
"""Distinct versions in one policy."""
RULES_MAX: Final = 64
FALLBACKS_MAX: Final = 8
ATTRIBUTES_MAX: Final = 16
NAME_CHARS_MAX: Final = 64
ATTRIBUTE_CHARS_MAX: Final = 256
WEIGHT_MIN: Final = 1e-9
"""Of the weights above zero: shares stay representable whatever the sum."""
WEIGHT_MAX: Final = 1e9

_SHOWN_CHARS_MAX: Final = 80
_TIME_OF_DAY: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]\Z")
# The name of a rule travels in a response header.
_NAME: Final = re.compile(r"[!-~]([ -~]*[!-~])?\Z")

Problem: TypeAlias = tuple[str, str]
"""(path, what is wrong with it)."""


def all_to(version: str, *, like: Policy) -> Policy:
    """Everything to one version: no rules, no shadows; stickiness and fallbacks as in `like`."""
    return Policy(split={version: 100.0}, sticky=like.sticky, fallback=like.fallback)


def shared(baseline: str, candidate: str, weight: float, *, like: Policy) -> Policy:
    """`weight` per cent to the candidate, the rest to the baseline: no rules; all else as in
    `like`."""
    split = {baseline: 100.0 - weight, candidate: weight}
    return replace(like, split=split, rules=())


def without_fallbacks(policy: Policy, versions: Set[str]) -> Policy:
    """The policy in which none of the versions is a fallback; the others keep their order."""
    kept = tuple(version for version in policy.fallback if version not in versions)
    return replace(policy, fallback=kept)


def takers(policy: Policy) -> tuple[str, ...]:
    """The versions that take traffic, in order of their first mention."""
    splits = [policy.split, *(rule.split for rule in policy.rules)]
    weights = chain.from_iterable(split.items() for split in splits)
    return tuple(dict.fromkeys(version for version, weight in weights if weight > 0))


def routed(policy: Policy) -> frozenset[str]:
    """The versions that take traffic, are sent copies, or are fallbacks."""
    shadows = (shadow.version for shadow in policy.shadow)
    return frozenset(chain(takers(policy), shadows, policy.fallback))


def sole(policy: Policy) -> str | None:
    """The version that takes all traffic, if there is one."""
    versions = takers(policy)
    return versions[0] if len(versions) == 1 else None


def mentions(policy: Policy) -> Iterator[tuple[str, str]]:
    """(path, version) of every version named, at any weight."""
    yield from ((_at("split", version), version) for version in policy.split)
    for index, rule in enumerate(policy.rules):
        yield from ((_at(f"rules[{index}].split", version), version) for version in rule.split)
    for index, shadow in enumerate(policy.shadow):
        yield f"shadow[{index}].version", shadow.version
    for index, version in enumerate(policy.fallback):
        yield f"fallback[{index}]", version


def problems(policy: Policy) -> dict[str, str]:
    """Path -> what is wrong there; empty if nothing is. Whether versions exist is not asked."""
    if len(policy.rules) > RULES_MAX:
        return {"rules": f"has more than {RULES_MAX} rules"}
    if len(policy.fallback) > FALLBACKS_MAX:
        return {"fallback": f"has more than {FALLBACKS_MAX} versions"}
    if len({version for _, version in mentions(policy)}) > VERSIONS_MAX:
        return {"split": f"the policy names more than {VERSIONS_MAX} versions"}
    return dict(
        chain(
            _split("split", policy.split),
            _shadows(policy.shadow),
            _rules(policy.rules),
            _fallbacks(policy.fallback),
        )
    )


def _at(path: str, name: str) -> str:
    return f"{path}.{name[:_SHOWN_CHARS_MAX]}"


def _split(path: str, split: Mapping[str, float]) -> Iterator[Problem]:
    for version, weight in split.items():
        if not isfinite(weight) or weight < 0:
            yield _at(path, version), "must be a finite number, 0 or more"
        elif weight and not WEIGHT_MIN <= weight <= WEIGHT_MAX:
            yield _at(path, version), f"must be 0 or between {WEIGHT_MIN:g} and {WEIGHT_MAX:g}"
    if not split:
        yield path, "must name a version"
    elif not any(split.values()):
        yield path, "must give some version a weight above 0"


def _shadows(shadows: tuple[Shadow, ...]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, shadow in enumerate(shadows):
        if not 0 <= shadow.fraction <= 1:
            yield f"shadow[{index}].fraction", "must be between 0 and 1"
        if shadow.version in seen:
            yield f"shadow[{index}].version", "occurs twice"
        seen.add(shadow.version)
        yield from _comparison(f"shadow[{index}].compare", shadow.compare)


def _comparison(path: str, compare: Comparison) -> Iterator[Problem]:
    if not isfinite(compare.tolerance) or compare.tolerance < 0:
        yield f"{path}.tolerance", "must be a finite number, 0 or more"
    if not 0 <= compare.similarity <= 1:
        yield f"{path}.similarity", "must be between 0 and 1"
    if compare.kind == "function" and compare.name is None:
        yield f"{path}.name", "is missing: the kind function needs it"
    elif compare.kind != "function" and compare.name is not None:
        yield f"{path}.name", "is for the kind function only"
    elif compare.name is not None and not IDENTIFIER.match(compare.name):
        yield f"{path}.name", "must be 1 to 64 of A-Z a-z 0-9 _ -, not beginning with _ -"


def _fallbacks(versions: tuple[str, ...]) -> Iterator[Problem]:
    for index, version in enumerate(versions):
        if version in versions[:index]:
            yield f"fallback[{index}]", "occurs twice"


def _rules(rules: tuple[Rule, ...]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        path = f"rules[{index}]"
        if len(rule.name) > NAME_CHARS_MAX or not _NAME.match(rule.name):
            yield f"{path}.name", f"must be 1 to {NAME_CHARS_MAX} printable ASCII characters"
        elif rule.name in seen:
            yield f"{path}.name", "occurs twice"
        seen.add(rule.name)
        yield from _when(f"{path}.when", rule.when)
        yield from _split(f"{path}.split", rule.split)


def _when(path: str, when: When) -> Iterator[Problem]:
    if when.days is None and when.from_ is None and when.to is None and when.attributes is None:
        yield path, "must hold days, from and to, or attributes"
    if when.days is not None and (not when.days or len(set(when.days)) < len(when.days)):
        yield f"{path}.days", "must name each day once, and at least one"
    if when.timezone is not None and when.timezone not in _timezones():
        yield f"{path}.timezone", "is not an IANA time zone"
    yield from _window(path, when)
    if when.attributes is not None:
        yield from _attributes(f"{path}.attributes", when.attributes)


def _window(path: str, when: When) -> Iterator[Problem]:
    for name, time in (("from", when.from_), ("to", when.to)):
        if time is not None and not _TIME_OF_DAY.match(time):
            yield f"{path}.{name}", "must be a time from 00:00 to 23:59"
    if (when.from_ is None) != (when.to is None):
        missing = "from" if when.from_ is None else "to"
        yield f"{path}.{missing}", "is missing: a window has both ends"
    elif when.from_ is not None and when.from_ == when.to:
        yield f"{path}.to", "must differ from `from`"


def _attributes(path: str, attributes: Mapping[str, str]) -> Iterator[Problem]:
    if not 1 <= len(attributes) <= ATTRIBUTES_MAX:
        yield path, f"must hold 1 to {ATTRIBUTES_MAX} attributes"
        return
    for name, value in attributes.items():
        if not 1 <= len(name) <= NAME_CHARS_MAX:
            yield _at(path, name), f"must have a name of 1 to {NAME_CHARS_MAX} characters"
        elif len(value) > ATTRIBUTE_CHARS_MAX:
            yield _at(path, name), f"must have at most {ATTRIBUTE_CHARS_MAX} characters"


@cache
def _timezones() -> frozenset[str]:
    # Read once from the zone database: its names are constants for as long as a process lives.
    return frozenset(available_timezones())
