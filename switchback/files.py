"""Open files: as many as a busy process needs, if the system lets it.

Each connection is one. Shells mostly start programs with 1,024, of which servers need some, and
let them have many times that if they ask.
"""

from __future__ import annotations

import resource
from typing import Final

FILES_WANTED: Final = 65_536


def allow_files() -> None:
    """Raise the soft limit as far as the hard one lets us, to what a busy gateway may want. To be
    called once, when a process starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
