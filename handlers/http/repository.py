"""`/v2/repository`: registered versions, and which of them nodes hold ready.

A model of the repository is one of ours, as `model` (all its versions) or `model@version`; what an
endpoint needs is loaded without being asked for and is not unloaded.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from litestar import Response, post
from litestar.params import JSONBody, PathParameter

from events import Position
from handlers.http.access import needs
from handlers.http.call import Call, done
from handlers.http.directory import IndexEntry

RepositoryName: TypeAlias = Annotated[
    str,
    PathParameter(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(@[A-Za-z0-9][A-Za-z0-9._+-]{0,63})?(?!\n)$",
        description="`model`, or `model@version`.",
    ),
]


class Index(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ready: bool = False
    """Only what is ready."""


class UnloadParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    unload_dependents: bool = False
    """No version has any: it changes nothing."""


class NoParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Versions are immutable: nothing about them can be said at loading."""


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    parameters: NoParameters = NoParameters()


class Unload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    parameters: UnloadParameters = UnloadParameters()


class RepositoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    position: Position
    """At which it is so."""


EVERYTHING: Final = Index()
NOTHING_SAID: Final = Load()
NOTHING_SAID_OF_UNLOADING: Final = Unload()


@post("/index", status_code=200, **needs("read", answers=()))
async def get_index(request: Call, data: JSONBody[Index] = EVERYTHING) -> list[IndexEntry]:
    """Every registered version of the tenant's models, by name."""
    directory = request.front.services.directory
    await directory.reach(request.min_position)
    entries = directory.index(request.tenant)
    return [entry for entry in entries if entry.state == "READY" or not data.ready]


@post("/models/{model:str}/load", status_code=200, **needs("operate"))
async def load_model(
    request: Call, model: RepositoryName, data: JSONBody[Load] = NOTHING_SAID
) -> Response[RepositoryAnswer]:
    """Have it resident on the nodes. It stays until it is unloaded or, while no endpoint needs it,
    its memory is wanted."""
    name, version = _named(model)
    position = await request.operations.load_version(request.tenant, model=name, version=version)
    return done(RepositoryAnswer(position=position), position=position)


@post("/models/{model:str}/unload", status_code=200, **needs("operate"))
async def unload_model(
    request: Call, model: RepositoryName, data: JSONBody[Unload] = NOTHING_SAID_OF_UNLOADING
) -> Response[RepositoryAnswer]:
    """Have it gone from the nodes; refused (`conflict`) while an endpoint needs it."""
    name, version = _named(model)
    position = await request.operations.unload_version(request.tenant, model=name, version=version)
    return done(RepositoryAnswer(position=position), position=position)


def _named(text: str) -> tuple[str, str | None]:
    model, _, version = text.partition("@")
    return model, version or None


HANDLERS: tuple[Any, ...] = (get_index, load_model, unload_model)
