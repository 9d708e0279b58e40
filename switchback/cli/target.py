"""Which Switchback a verb is about, and how it is reached.

With `--url` (or `SWITCHBACK_URL`) a verb speaks to that gateway. Otherwise it is about a data
directory: of a running `up` it uses the gateway and the servers, else it starts what it needs and
stops it when it is done.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import httpx
from cyclopts import Parameter

from switchback.cli.failures import Failed
from switchback.client import Client
from switchback.servers import Addresses, DataDirectoryBusy, own_servers, reach_servers
from switchback.settings import Settings, settings_from

if TYPE_CHECKING:  # most verbs only speak HTTP: the rest is imported where it is used
    from events.jetstream import JetStream
    from projections import Pool
    from projections.cache import Cache
    from switchback.process import Role

READING: Final[Collection[Role]] = ("gateway", "projector")
"""What answers questions. A node would write to the log that it joined."""
COMMANDING: Final[Collection[Role]] = ("gateway", "projector", "reactor", "node")
_KNOCK_SECONDS: Final = 5.0

AsJson: TypeAlias = Annotated[
    bool, Parameter("--json", negative="", help="Print JSON, for programs.")
]
DataDir: TypeAlias = Annotated[
    Path | None, Parameter("--data-dir", help="The data directory; ./.switchback when not given.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """Where to, and as whom."""

    data_dir: DataDir = None
    url: Annotated[str | None, Parameter(help="A gateway's address.", env_var="SWITCHBACK_URL")] = (
        None
    )
    key: Annotated[
        str | None, Parameter(help="The key to use with --url.", env_var="SWITCHBACK_KEY")
    ] = None
    tenant: Annotated[
        str | None, Parameter(help="Another tenant than the key's; needs scope admin.")
    ] = None


HERE: Final = Target()
"""The default of every verb."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The log, the tables and the cache of a data directory."""

    settings: Settings
    addresses: Addresses
    jetstream: JetStream
    pool: Pool
    cache: Cache


def settings_of(data_dir: Path | None, **overrides: object) -> Settings:
    """From the environment and the command line. Raises SettingInvalid."""
    return settings_from(os.environ, data_dir=data_dir, **overrides)


@asynccontextmanager
async def reading(target: Target) -> AsyncIterator[Client]:
    """A client for questions."""
    async with _client(target, READING) as client:
        yield client


@asynccontextmanager
async def commanding(target: Target) -> AsyncIterator[Client]:
    """A client for commands."""
    async with _client(target, COMMANDING) as client:
        yield client


@asynccontextmanager
async def reach(data_dir: Path | None) -> AsyncIterator[Reached]:
    """What a data directory's servers hold, past every gateway. The directory must be there."""
    from events.jetstream import JetStream
    from projections import Pool, PoolSettings
    from projections.cache import Cache

    settings = settings_of(data_dir)
    check_there(settings)
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(reach_servers(settings))
        jetstream = await stack.enter_async_context(
            JetStream.connect(addresses.nats, lease_ttl_s=settings.lease_ttl_s)
        )
        pool = await stack.enter_async_context(Pool(PoolSettings(dsn=addresses.postgres)))
        cache = await stack.enter_async_context(Cache(addresses.redis))
        yield Reached(
            settings=settings, addresses=addresses, jetstream=jetstream, pool=pool, cache=cache
        )


@asynccontextmanager
async def _client(target: Target, roles: Collection[Role]) -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        if target.url is not None:
            if target.key is None:
                raise Failed("--url needs --key, or the variable SWITCHBACK_KEY")
            await _knock(target.url)
            client = Client.connect(target.url, key=target.key)
        else:
            settings = settings_of(target.data_dir, port=0)
            await _run_unless_running(settings, roles, stack)
            client = Client.from_data_dir(settings.data_dir)
        await stack.enter_async_context(client)
        yield client.of_tenant(target.tenant) if target.tenant is not None else client


async def _run_unless_running(
    settings: Settings, roles: Collection[Role], stack: AsyncExitStack
) -> None:
    check_there(settings)
    try:
        addresses = await stack.enter_async_context(own_servers(settings))
    except DataDirectoryBusy:
        return
    from switchback.bootstrap import write_credentials
    from switchback.process import open_process

    process = await stack.enter_async_context(open_process(settings, addresses, roles))
    await write_credentials(settings, process)


def check_there(settings: Settings) -> None:
    """A mistyped directory must not become a new, empty installation."""
    if settings.nats_url is None and not settings.data_dir.is_dir():
        raise Failed(f"{settings.data_dir} is not there; `switchback up` makes it")


async def _knock(url: str) -> None:
    """Say at once that nobody is there; the client itself would wait for it to come back."""
    async with httpx.AsyncClient(timeout=_KNOCK_SECONDS) as http:
        try:
            await http.get(f"{url.rstrip('/')}/healthz")
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Failed(f"nothing answers at {url}: {error}") from error
