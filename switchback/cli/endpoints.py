"""`endpoints`: the stable names that clients call."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from events.catalogue.endpoints import Severity
from switchback.cli.application import app
from switchback.cli.models import json_argument
from switchback.cli.output import print_done, print_items, print_thing
from switchback.cli.target import HERE, AsJson, Target, commanding, reading

endpoints: Final = App(name="endpoints", help="Endpoints, and how their traffic is split.")
app.command(endpoints)


@endpoints.command(name="list")
async def list_endpoints(*, as_json: AsJson = False, target: Target = HERE) -> None:
    """All endpoints of the tenant."""
    async with reading(target) as client:
        items = [item async for item in client.endpoints()]
    columns = ("name", "model", "active", "previous", "policy", "position")
    print_items(items, columns, as_json=as_json)


@endpoints.command(name="show")
async def show_endpoint(
    endpoint: str, /, *, as_json: AsJson = False, target: Target = HERE
) -> None:
    """One endpoint."""
    async with reading(target) as client:
        print_thing(await client.endpoint(endpoint), as_json=as_json)


@endpoints.command(name="create")
async def create_endpoint(
    endpoint: str,
    model: str,
    version: str,
    /,
    *,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Create an endpoint with all its traffic on one version."""
    async with commanding(target) as client:
        answer = await client.create_endpoint(endpoint, model=model, version=version)
    print_done(f"{endpoint} serves {model}@{version}", answer, as_json=as_json)


@endpoints.command(name="policy")
async def set_policy(
    endpoint: str,
    policy: Annotated[str, Parameter(help='JSON such as {"split": {"1.0.0": 90}}, or @FILE.')],
    /,
    *,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Set how an endpoint's traffic is split."""
    wanted = json_argument("POLICY", policy)
    async with commanding(target) as client:
        answer = await client.set_policy(endpoint, wanted)
    print_done(f"{endpoint} follows its new policy", answer, as_json=as_json)


@endpoints.command(name="alert")
async def raise_alert(
    endpoint: str,
    kind: str,
    /,
    *,
    critical: Annotated[bool, Parameter(negative="", help="Roll back if it is new.")] = False,
    version: Annotated[str | None, Parameter(help="What it is about; the newest.")] = None,
    detail: str | None = None,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Tell that something is wrong; a critical alert on the newest version rolls back."""
    severity: Severity = "critical" if critical else "warning"
    async with commanding(target) as client:
        answer = await client.raise_alert(
            endpoint, kind=kind, severity=severity, version=version, detail=detail
        )
    print_done(f"{endpoint}: {severity} alert {kind}", answer, as_json=as_json)
