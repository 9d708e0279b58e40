"""`/models/{model}/versions`: registering, reading and retiring versions; lineage."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import JSONBody

from engine.runtimes.language.builtin import SCHEME, BuiltinUnknown, builtin_artifact
from events import Position
from events.catalogue.models import Artifact, RuntimeName
from handlers.http.access import needs
from handlers.http.call import Call, done
from handlers.http.parameters import LIMIT_DEFAULT, AfterName, Limit, Name, VersionName
from handlers.http.problems import Rejected, invalid, not_found
from handlers.http.views import VersionApplied
from projections.results import Lineage, Page, Version


class ArtifactBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The files of a version. Of built-in models digest and size are known, and may be left out."""

    uri: str
    """`file:///...` under a configured root, or `builtin://facts-1`, `-2` or `-3`."""
    sha256: str | None = None
    size_bytes: int | None = None


class RegisterVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: str
    runtime: RuntimeName
    config: dict[str, Any] = {}
    artifact: ArtifactBody | None = None
    parent: str | None = None
    """`model@version` of the version this one was made from."""
    memory_bytes: int | None = None
    labels: dict[str, str] = {}
    metrics: dict[str, float] = {}


class RegisteredVersion(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    version: str
    runtime: RuntimeName
    config: dict[str, Any]
    artifact: Artifact | None
    parent: str | None
    memory_bytes: int | None
    labels: dict[str, str]
    metrics: dict[str, float]
    state: Literal["registered", "retired"]
    position: Position


class RetiredVersion(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    version: str
    state: Literal["retired"]
    position: Position


@post("/models/{model:str}/versions", status_code=201, **needs("operate", also=200))
async def register_version(
    request: Call, model: Name, data: JSONBody[RegisterVersion]
) -> Response[RegisteredVersion]:
    """Register an immutable version: 201, or 200 if it is registered with the same body already.

    Runtime `python` runs the version's own code and needs the scope `admin`.
    """
    if data.runtime == "python" and "admin" not in request.caller.principal.scopes:
        raise Rejected("forbidden", "runtime 'python' runs code: the key lacks the scope 'admin'")
    artifact = None if data.artifact is None else _artifact(data.artifact)
    applied = await request.operations.register_version(
        request.tenant,
        model=model,
        version=data.version,
        runtime=data.runtime,
        config=data.config,
        artifact=artifact,
        parent=data.parent,
        memory_bytes=data.memory_bytes,
        labels=data.labels,
        metrics=data.metrics,
        metadata=await request.metadata(),
    )
    status = 201 if applied.changed else 200
    return done(
        _registered(model, data, artifact, applied), position=applied.position, status=status
    )


@get("/models/{model:str}/versions", **needs("read"))
async def list_versions(
    request: Call, model: Name, limit: Limit = LIMIT_DEFAULT, after: AfterName = ""
) -> Page[Version]:
    """The model's versions in the order of their registration."""
    page = await request.queries.models.versions(
        request.tenant, model, after=after, limit=limit, min_position=request.min_position
    )
    if not page.items and not after:
        await _check_model(request, model)
    return page


@get("/models/{model:str}/versions/{version:str}", **needs("read"))
async def get_version(request: Call, model: Name, version: VersionName) -> Version:
    """One version, with its state and where it is resident."""
    found = await request.queries.models.version(
        request.tenant, model, version, min_position=request.min_position
    )
    if found is None:
        raise not_found("version", f"{model}@{version}")
    return found


@get("/models/{model:str}/versions/{version:str}/lineage", **needs("read"))
async def get_lineage(request: Call, model: Name, version: VersionName) -> Lineage:
    """Ancestors and descendants as `model@version`, nearest first."""
    found = await request.queries.models.lineage(
        request.tenant, model, version, min_position=request.min_position
    )
    if found is None:
        raise not_found("version", f"{model}@{version}")
    return found


@post("/models/{model:str}/versions/{version:str}/retire", status_code=200, **needs("operate"))
async def retire_version(
    request: Call, model: Name, version: VersionName
) -> Response[RetiredVersion]:
    """Take a version out of use; refused while an endpoint routes to it."""
    applied = await request.operations.retire_version(
        request.tenant, model=model, version=version, metadata=await request.metadata()
    )
    answer = RetiredVersion(
        model=model, version=version, state="retired", position=applied.position
    )
    return done(answer, position=applied.position)


def _artifact(body: ArtifactBody) -> Artifact:
    """With what is known of a built-in model, where the body says nothing. Raises Rejected."""
    sha256, size_bytes = body.sha256, body.size_bytes
    if body.uri.startswith(SCHEME):
        try:
            released = builtin_artifact(body.uri.removeprefix(SCHEME))
        except BuiltinUnknown as error:
            raise invalid({"artifact.uri": str(error)}) from error
        sha256 = released.sha256 if sha256 is None else sha256
        size_bytes = released.size_bytes if size_bytes is None else size_bytes
    if sha256 is None:
        raise invalid({"artifact.sha256": "is missing"})
    if size_bytes is None:
        raise invalid({"artifact.size_bytes": "is missing"})
    return Artifact(uri=body.uri, sha256=sha256, size_bytes=size_bytes)


def _registered(
    model: str, data: RegisterVersion, artifact: Artifact | None, applied: VersionApplied
) -> RegisteredVersion:
    return RegisteredVersion(
        model=model,
        version=data.version,
        runtime=data.runtime,
        config=data.config,
        artifact=artifact,
        parent=data.parent,
        memory_bytes=data.memory_bytes,
        labels=data.labels,
        metrics=data.metrics,
        state=applied.state,
        position=applied.position,
    )


async def _check_model(request: Call, model: str) -> None:
    if await request.queries.models.get(request.tenant, model) is None:
        raise not_found("model", model)


HANDLERS: tuple[Any, ...] = (
    register_version,
    list_versions,
    get_version,
    get_lineage,
    retire_version,
)
