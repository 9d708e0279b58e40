"""Where a client finds the address and the key of a running Switchback."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

FILE_NAME: Final = "credentials.json"


class CredentialsMissing(Exception):
    """No `up` has run in this data directory, or what it wrote cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What `switchback up` writes into its data directory."""

    url: str
    """Of the gateway, without a path."""
    tenant: str
    key: str


def read_credentials(data_dir: Path) -> Credentials:
    """Raises CredentialsMissing."""
    path = data_dir / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Credentials)
    except FileNotFoundError:
        raise CredentialsMissing(path, "not there; is `switchback up` running?") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise CredentialsMissing(path, str(error)) from error
