"""The first key of a data directory: tenant `default`, all scopes, in `credentials.json`."""

from __future__ import annotations

from typing import Final, get_args
from uuid import UUID, uuid5

import msgspec

from events import Metadata
from events.catalogue.tenants import Scope
from switchback.client import Credentials
from switchback.parts import utc_now
from switchback.private_files import write_private
from switchback.process import Process
from switchback.settings import Settings

DEFAULT_TENANT: Final = "default"
_NAMESPACE: Final = UUID("0d6c9f0e-3a57-5c0e-8a71-6b1f0a2c9d44")


async def write_credentials(settings: Settings, process: Process) -> Credentials:
    """Create the default tenant and its key, once for each secret; write down where we listen."""
    assert process.http is not None, "only a gateway has credentials"
    tenant = Metadata(command_id=_command_id("tenant", ""), time=utc_now(), actor="local")
    await process.operations.create_tenant(DEFAULT_TENANT, metadata=tenant)
    secret = settings.derive("default key").hex()
    key = Metadata(command_id=_command_id("key", secret), time=utc_now(), actor="local")
    issued = await process.operations.issue_key(
        DEFAULT_TENANT, scopes=get_args(Scope), expires_at=None, metadata=key
    )
    credentials = Credentials(url=process.http.url, tenant=DEFAULT_TENANT, key=issued.key)
    write_private(settings.data_dir / "credentials.json", msgspec.json.encode(credentials))
    return credentials


def _command_id(what: str, distinction: str) -> UUID:
    """The same at every start, so that a restart issues no second key."""
    return uuid5(_NAMESPACE, f"{what}:{distinction}")
