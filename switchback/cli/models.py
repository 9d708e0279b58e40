"""`models` and `versions`: what can be served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from engine.runtimes import ArtifactRefused, describe_artifact
from engine.runtimes.language.builtin import SCHEME
from events.catalogue.models import RuntimeName
from switchback.cli.application import app
from switchback.cli.failures import Failed
from switchback.cli.output import print_done, print_items, print_thing
from switchback.cli.target import HERE, AsJson, Target, commanding, reading

models: Final = App(name="models", help="Models, and the aliases of their versions.")
versions: Final = App(name="versions", help="Versions: immutable builds of a model.")
app.command(models)
app.command(versions)


@models.command(name="list")
async def list_models(*, as_json: AsJson = False, target: Target = HERE) -> None:
    """All models of the tenant."""
    async with reading(target) as client:
        items = [item async for item in client.models()]
    print_items(items, ("name", "description", "aliases", "registered_at"), as_json=as_json)


@models.command(name="show")
async def show_model(model: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """One model."""
    async with reading(target) as client:
        print_thing(await client.model(model), as_json=as_json)


@models.command(name="register")
async def register_model(
    model: str,
    /,
    *,
    description: str | None = None,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Register a model."""
    async with commanding(target) as client:
        answer = await client.register_model(model, description=description)
    print_done(f"model {model} is registered", answer, as_json=as_json)


@models.command(name="alias")
async def move_alias(
    model: str,
    alias: str,
    version: str,
    /,
    *,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Point an alias at a version."""
    async with commanding(target) as client:
        answer = await client.move_alias(model, alias, version=version)
    print_done(f"{model}:{alias} is {version}", answer, as_json=as_json)


@models.command(name="alias-history")
async def alias_history(
    model: str, alias: str, /, *, as_json: AsJson = False, target: Target = HERE
) -> None:
    """Every move of an alias: who, when, from, to."""
    async with reading(target) as client:
        items = [item async for item in client.alias_history(model, alias)]
    print_items(items, ("position", "when", "who", "from", "to"), as_json=as_json)


@versions.command(name="list")
async def list_versions(model: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """All versions of a model, in the order of registration."""
    async with reading(target) as client:
        items = [item async for item in client.versions(model)]
    columns = ("version", "runtime", "state", "parent", "residency", "registered_at")
    print_items(items, columns, as_json=as_json)


@versions.command(name="show")
async def show_version(
    model: str, version: str, /, *, as_json: AsJson = False, target: Target = HERE
) -> None:
    """One version, with its ancestors and descendants."""
    async with reading(target) as client:
        found = await client.version(model, version)
        lineage = await client.lineage(model, version)
    print_thing({**found, **lineage}, as_json=as_json)


@versions.command(name="register")
async def register_version(
    model: str,
    version: str,
    /,
    *,
    runtime: RuntimeName,
    config: Annotated[str | None, Parameter(help="JSON, or @FILE.")] = None,
    artifact: Annotated[
        str | None, Parameter(help="A file or directory, builtin://NAME, JSON, or @FILE.")
    ] = None,
    parent: Annotated[str | None, Parameter(help="MODEL@VERSION it was made from.")] = None,
    memory_bytes: int | None = None,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Register a version. It is not loaded before an endpoint wants it.

    Of an artifact that is a file or a directory, size and digest are taken now.
    """
    body = {"config": json_argument("--config", config), "artifact": artifact_argument(artifact)}
    async with commanding(target) as client:
        answer = await client.register_version(
            model, version, runtime=runtime, parent=parent, memory_bytes=memory_bytes, **body
        )
    print_done(f"{model}@{version} is registered", answer, as_json=as_json)


@versions.command(name="retire")
async def retire_version(
    model: str, version: str, /, *, as_json: AsJson = False, target: Target = HERE
) -> None:
    """Take a version out of use for good; refused while an endpoint needs it."""
    async with commanding(target) as client:
        answer = await client.retire_version(model, version)
    print_done(f"{model}@{version} is retired", answer, as_json=as_json)


def artifact_argument(text: str | None) -> Any:
    """The artifact in an argument. Raises Failed."""
    if text is None or text.startswith(("{", "@")):
        return json_argument("--artifact", text)
    if text.startswith(SCHEME):
        return {"uri": text}
    try:
        return msgspec.to_builtins(describe_artifact(Path(text)))
    except ArtifactRefused as error:
        raise Failed(f"--artifact: {text}: {error}") from error


def json_argument(option: str, text: str | None) -> Any:
    """The JSON object in an argument or in the file it names by `@`. Raises Failed."""
    if text is None:
        return None
    try:
        source = Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
        return msgspec.json.decode(source, type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise Failed(f"{option}: {error}") from error
