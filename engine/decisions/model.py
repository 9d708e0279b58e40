"""Models and their versions, aliases and lineage. Entity `<tenant>/model/<name>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec
from msgspec.structs import replace

from engine.decisions import registration
from engine.decisions.decider import Conflict, Decider, ForeignEvent, Invalid, NotFound
from engine.decisions.maps import EMPTY, with_entry
from events import Event
from events.catalogue.models import (
    AliasMoved,
    Artifact,
    ModelRegistered,
    RuntimeName,
    VersionRegistered,
    VersionRetired,
)
from events.event import IDENTIFIER

ALIASES_MAX: Final = 100

# ---------------------------------------------------------------------------------------- Commands


class RegisterModel(msgspec.Struct, frozen=True, kw_only=True):
    """Raises InvalidModel, ModelExists."""

    name: str
    description: str = ""
    labels: dict[str, str] = {}


class RegisterVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Raises UnknownModel, VersionExists, InvalidVersion, RuntimeUnavailable, ParentMissing,
    LineageCycle. A version that is registered already with the same body yields no events,
    whatever the facts say today."""

    version: str
    runtime: str
    config: dict[str, Any] = {}
    artifact: Artifact | None = None
    parent: str | None = None
    """`model@version`, of this model or another of the tenant."""
    memory_bytes: int | None = None
    labels: dict[str, str] = {}
    metrics: dict[str, float] = {}
    runtimes: frozenset[str]
    """Fact: the runtimes this build has."""
    known_parents: frozenset[str] = frozenset()
    """Fact: those `model@version` of other models that exist; `parent` at least, if it does."""
    ancestors: tuple[str, ...] = ()
    """Fact: the parent's own ancestors, as `model@version`."""
    artifact_refused: str | None = None
    """Fact: why no node may read the artifact where it is said to be."""


class MoveAlias(msgspec.Struct, frozen=True, kw_only=True):
    """Raises UnknownModel, InvalidAlias, UnknownVersion, VersionIsRetired."""

    alias: str
    version: str


class RetireVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Raises UnknownModel, UnknownVersion, VersionRouted, VersionAliased."""

    version: str
    routed_by: frozenset[str]
    """Fact: the endpoints that may send traffic to it, now or by a rollback or pending swap."""


Command: TypeAlias = RegisterModel | RegisterVersion | MoveAlias | RetireVersion


class InvalidModel(Invalid):
    """A description or labels beyond their limits."""


class InvalidVersion(Invalid):
    """A version whose body breaks a rule of `engine.decisions.registration`."""


class InvalidAlias(Invalid):
    """A name that no alias may have, or one alias too many."""


class RuntimeUnavailable(Invalid):
    """This build cannot execute the runtime."""

    def __init__(self, runtime: str, available: frozenset[str]) -> None:
        names = ", ".join(sorted(available))
        super().__init__({"runtime": f"{runtime!r} is not in this build, which has {names}"})
        self.runtime = runtime
        self.available = available


class ParentMissing(Invalid):
    """The parent is not a registered version."""

    def __init__(self, parent: str) -> None:
        super().__init__({"parent": f"{parent} is not registered"})
        self.parent = parent


class LineageCycle(Invalid):
    """The version would be its own ancestor."""

    def __init__(self, version: str) -> None:
        super().__init__({"parent": f"would make {version} its own ancestor"})
        self.version = version


class UnknownModel(NotFound):
    """Every command but RegisterModel needs a model."""

    def __init__(self) -> None:
        super().__init__("there is no such model")


class UnknownVersion(NotFound):
    """The model has no such version."""

    def __init__(self, version: str) -> None:
        super().__init__(f"there is no version {version[:80]}")
        self.version = version


class ModelExists(Conflict):
    """The name is taken by a model with another description or other labels."""

    def __init__(self, name: str) -> None:
        super().__init__(f"model {name} exists with another body")
        self.name = name


class VersionExists(Conflict):
    """Versions are immutable: the same version was registered with another body."""

    def __init__(self, version: str) -> None:
        super().__init__(f"version {version} exists with another body, and versions never change")
        self.version = version


class VersionIsRetired(Conflict):
    """A retired version gets no new aliases."""

    def __init__(self, version: str) -> None:
        super().__init__(f"version {version} is retired")
        self.version = version


class VersionRouted(Conflict):
    """Endpoints still route to the version, or would after a rollback."""

    def __init__(self, version: str, endpoints: frozenset[str]) -> None:
        super().__init__(f"version {version} is needed by {', '.join(sorted(endpoints))}")
        self.version = version
        self.endpoints = endpoints


class VersionAliased(Conflict):
    """Aliases still point at the version."""

    def __init__(self, version: str, aliases: frozenset[str]) -> None:
        super().__init__(f"version {version} is aliased by {', '.join(sorted(aliases))}")
        self.version = version
        self.aliases = aliases


# ------------------------------------------------------------------------------------------- State


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is registered."""

    registered: ModelRegistered
    versions: Mapping[str, VersionRegistered] = EMPTY
    """Every version, retired ones included."""
    aliases: Mapping[str, str] = EMPTY
    """Alias -> version."""
    retired: Mapping[str, VersionRetired] = EMPTY

    @property
    def usable(self) -> frozenset[str]:
        """Registered and not retired: what an endpoint of this model may name."""
        return frozenset(version for version in self.versions if version not in self.retired)


State: TypeAlias = Model | None

# ------------------------------------------------------------------------------------------ evolve


def evolve(state: State, event: Event) -> State:
    """The model after the event."""
    if isinstance(event, ModelRegistered):
        return Model(registered=event)
    if state is None:
        raise ForeignEvent(event)
    match event:
        case VersionRegistered():
            return replace(state, versions=with_entry(state.versions, event.version, event))
        case AliasMoved():
            return replace(state, aliases=with_entry(state.aliases, event.alias, event.to_version))
        case VersionRetired():
            return replace(state, retired=with_entry(state.retired, event.version, event))
        case _:
            raise ForeignEvent(event)


# ------------------------------------------------------------------------------------------ decide


def decide(state: State, command: Command) -> Sequence[Event]:
    """The events of the command, or a refusal."""
    if isinstance(command, RegisterModel):
        return _register_model(state, command)
    if state is None:
        raise UnknownModel
    match command:
        case RegisterVersion():
            return _register_version(state, command)
        case MoveAlias():
            return _move_alias(state, command)
        case RetireVersion():
            return _retire_version(state, command)


def _register_model(state: State, command: RegisterModel) -> Sequence[Event]:
    registered = ModelRegistered(
        name=command.name, description=command.description, labels=command.labels
    )
    if state is not None:
        if state.registered == registered:
            return ()
        raise ModelExists(command.name)
    if found := registration.model_problems(registered):
        raise InvalidModel(found)
    return (registered,)


def _register_version(state: Model, command: RegisterVersion) -> Sequence[Event]:
    registered = _registered(command)
    known = state.versions.get(command.version)
    if known is not None:
        if known == registered:
            return ()
        raise VersionExists(command.version)
    available = command.runtimes & registration.RUNTIMES.keys()
    if command.runtime not in available:
        raise RuntimeUnavailable(command.runtime, available)
    if found := registration.version_problems(registered):
        raise InvalidVersion(found)
    if command.artifact_refused is not None:
        raise InvalidVersion({"artifact.uri": command.artifact_refused})
    if command.parent is not None:
        _check_lineage(state, command, command.parent)
    return (registered,)


def _registered(command: RegisterVersion) -> VersionRegistered:
    return VersionRegistered(
        version=command.version,
        runtime=cast(RuntimeName, command.runtime),
        config=command.config,
        artifact=command.artifact,
        parent=command.parent,
        memory_bytes=command.memory_bytes,
        labels=command.labels,
        metrics=command.metrics,
    )


def _check_lineage(state: Model, command: RegisterVersion, parent: str) -> None:
    name = state.registered.name
    itself = f"{name}@{command.version}"
    if itself in (parent, *command.ancestors):
        raise LineageCycle(itself)
    model, _, version = parent.partition("@")
    known = version in state.versions if model == name else parent in command.known_parents
    if not known:
        raise ParentMissing(parent)


def _move_alias(state: Model, command: MoveAlias) -> Sequence[Event]:
    before = state.aliases.get(command.alias)
    if before == command.version:
        return ()
    if not IDENTIFIER.match(command.alias):
        raise InvalidAlias({"alias": "must be 1 to 64 of A-Z a-z 0-9 _ -"})
    if before is None and len(state.aliases) >= ALIASES_MAX:
        raise InvalidAlias({"alias": f"would be one more than {ALIASES_MAX}"})
    _check_version(state, command.version)
    if command.version in state.retired:
        raise VersionIsRetired(command.version)
    return (AliasMoved(alias=command.alias, from_version=before, to_version=command.version),)


def _retire_version(state: Model, command: RetireVersion) -> Sequence[Event]:
    _check_version(state, command.version)
    if command.version in state.retired:
        return ()
    if command.routed_by:
        raise VersionRouted(command.version, command.routed_by)
    pointing = (alias for alias, version in state.aliases.items() if version == command.version)
    if aliases := frozenset(pointing):
        raise VersionAliased(command.version, aliases)
    return (VersionRetired(version=command.version),)


def _check_version(state: Model, version: str) -> None:
    if version not in state.versions:
        raise UnknownVersion(version)


# ----------------------------------------------------------------------------------------- Decider

DECIDER: Final[Decider[Command, State]] = Decider(initial=None, evolve=evolve, decide=decide)
