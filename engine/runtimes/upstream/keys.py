"""API keys by reference: a version names an environment variable, its value is read at each call.

Who may register a version could name any variable and have its value sent to an address of their
own. Therefore only variables that an operator has meant for upstreams can be read: those that match
`allowed`. Values are never kept, and stand in no error and no repr.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from engine.runtimes.runtime import UPSTREAM_KEYS
from engine.runtimes.upstream.errors import KeyUnavailable

_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")


class Keys:
    """The keys that versions may refer to, out of `environment`."""

    def __init__(
        self, environment: Mapping[str, str], *, allowed: Sequence[str] = UPSTREAM_KEYS
    ) -> None:
        self._environment = environment
        self._allowed = tuple(allowed)

    def read(self, variable: str) -> str:
        """The key as it is now. Raises KeyUnavailable."""
        if not any(fnmatchcase(variable, pattern) for pattern in self._allowed):
            raise KeyUnavailable(variable, "is not among those that may be read")
        value = self._environment.get(variable)
        if value is None:
            raise KeyUnavailable(variable, "is not set")
        key = value.strip()
        if not _KEY.fullmatch(key):
            raise KeyUnavailable(variable, "holds no key: one word of ASCII is expected")
        return key
