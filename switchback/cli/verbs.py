"""Every verb there is: importing a module registers its verbs, in the order of the help."""

# ruff: noqa: F401 - imported for the registration

from switchback.cli import (
    access,
    asking,
    doctor,
    endpoints,
    events,
    models,
    nodes,
    running,
    switching,
    tables,
    tours,
)
from switchback.cli.application import run

__all__ = ["run"]
