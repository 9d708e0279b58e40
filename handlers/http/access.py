"""Who may call what: the access of each route, declared beside its handler as `**needs("operate")`.

`route_table` is the whole of it as rows; an undeclared route cannot be built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

from events.catalogue.tenants import Scope

Access: TypeAlias = Scope | Literal["public"]

SCOPES: Final[tuple[Scope, ...]] = ("admin", "operate", "infer", "feedback", "read")
_OPTION: Final = "access"


class Route(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One row of the table."""

    path: str
    method: str
    access: Access


class Undeclared(Exception):
    """A route without access: a defect of this package, found when the application is built."""


def needs(access: Access, **options: Any) -> dict[str, Any]:
    """Keyword arguments for a route decorator: a key must hold this scope, or `admin`.

    Options: `also`, a second status the route answers with; `stored=False`, the body reaches no
    event; `answers`, the answer's own headers where they are not those of its scope; `streams`, it
    can also be Server-Sent Events.
    """
    return {"opt": {_OPTION: access, **options}}


def access_of(handler: HTTPRouteHandler) -> Access:
    """Raises Undeclared."""
    access = handler.opt.get(_OPTION)
    if access is None:
        raise Undeclared(f"{sorted(handler.http_methods)} {sorted(handler.paths)} says no access")
    return access  # type: ignore[no-any-return]


def route_table(app: Litestar) -> list[Route]:
    """Every route of the application, sorted. Raises Undeclared."""
    return sorted(
        Route(path=path, method=method, access=access_of(handler))
        for path, method, handler in handlers_of(app)
    )


def handlers_of(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """(path, method, handler) of every route."""
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            for method in handler.http_methods - {"OPTIONS"}:
                yield route.path_format, method, handler
