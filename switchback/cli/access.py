"""`tenants` and `keys`: who may do what."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from events.catalogue.tenants import Scope
from switchback.cli.application import app
from switchback.cli.output import print_done, print_items, print_thing
from switchback.cli.target import HERE, AsJson, Target, commanding, reading

tenants: Final = App(name="tenants", help="Tenants and their quotas.")
keys: Final = App(name="keys", help="API keys of a tenant.")
app.command(tenants)
app.command(keys)


@tenants.command(name="create")
async def create_tenant(name: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """Create a tenant."""
    async with commanding(target) as client:
        answer = await client.create_tenant(name)
    print_done(f"tenant {name} is there", answer, as_json=as_json)


@tenants.command(name="show")
async def show_tenant(name: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """One tenant."""
    async with reading(target) as client:
        print_thing(await client.tenant(name), as_json=as_json)


@tenants.command(name="quota")
async def set_quota(
    name: str,
    /,
    *,
    requests_per_s: int | None = None,
    commands_per_s: int | None = None,
    models_max: int | None = None,
    endpoints_max: int | None = None,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Bound what a tenant may use; what is not given is unbounded."""
    async with commanding(target) as client:
        answer = await client.set_quota(
            name,
            requests_per_s=requests_per_s,
            commands_per_s=commands_per_s,
            models_max=models_max,
            endpoints_max=endpoints_max,
        )
    print_done(f"the quota of {name} is set", answer, as_json=as_json)


@keys.command(name="list")
async def list_keys(tenant: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """The keys of a tenant, without their secrets."""
    async with reading(target) as client:
        items = [item async for item in client.keys(tenant)]
    columns = ("id", "scopes", "issued_at", "expires_at", "revoked_at", "tokens_per_minute")
    print_items(items, columns, as_json=as_json)


@keys.command(name="issue")
async def issue_key(
    tenant: str,
    scopes: Annotated[list[Scope], Parameter(help="What the key may do.")],
    /,
    *,
    expires_s: Annotated[float | None, Parameter(help="Seconds from now.")] = None,
    tokens_per_minute: Annotated[int | None, Parameter(help="Its budget.")] = None,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Issue a key. It is shown this once."""
    async with commanding(target) as client:
        answer = await client.issue_key(
            tenant, scopes=scopes, expires_s=expires_s, tokens_per_minute=tokens_per_minute
        )
    print_thing(answer, as_json=as_json)


@keys.command(name="budget")
async def set_key_budget(
    tenant: str,
    key_id: str,
    /,
    *,
    tokens_per_minute: int | None = None,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Bound the tokens of any minute; without --tokens-per-minute they are unbounded."""
    async with commanding(target) as client:
        answer = await client.set_key_budget(tenant, key_id, tokens_per_minute=tokens_per_minute)
    print_done(f"the budget of {key_id} is set", answer, as_json=as_json)


@keys.command(name="revoke")
async def revoke_key(
    tenant: str, key_id: str, /, *, as_json: AsJson = False, target: Target = HERE
) -> None:
    """Revoke a key; returns when every live gateway refuses it."""
    async with commanding(target) as client:
        answer = await client.revoke_key(tenant, key_id)
    print_done(f"key {key_id} is revoked", answer, as_json=as_json)
