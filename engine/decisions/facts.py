"""Facts about versions that come in with commands, and the two refusals they lead to.

*Registered* are the versions of the endpoint's model that are registered and not retired;
*resident* those that some node can serve now. Both were true when the command was made, no later.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from engine.decisions.decider import Conflict, Invalid


class UnknownVersions(Invalid):
    """Versions are named that are not registered, or retired."""

    def __init__(self, versions: Mapping[str, str]) -> None:
        """`versions`: path of the field -> the version it names."""
        super().__init__(dict.fromkeys(versions, "is not a registered version, or is retired"))
        self.versions = frozenset(versions.values())


class VersionNotResident(Conflict):
    """No node can serve these versions now."""

    def __init__(self, versions: frozenset[str]) -> None:
        super().__init__(f"not resident on any node: {', '.join(sorted(versions))}")
        self.versions = versions


def check_registered(versions: Mapping[str, str], registered: frozenset[str]) -> None:
    """`versions`: path of the field -> the version it names. Raises UnknownVersions."""
    if unknown := {path: v for path, v in versions.items() if v not in registered}:
        raise UnknownVersions(unknown)


def check_resident(versions: Set[str], resident: frozenset[str]) -> None:
    """Raises VersionNotResident."""
    if absent := frozenset(versions - resident):
        raise VersionNotResident(absent)
