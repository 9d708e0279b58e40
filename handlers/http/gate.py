"""The gate every authenticated route lies behind: who is it, whose is it, may they, too fast?

In this order, so that nobody learns anything they may not know: an unknown key gets 401, a key of
another tenant 403 whether or not anything exists there, a key without the route's scope 403. Only
then does a missing tenant show as 404 (to administrators, the only ones who get so far), and a
quota as 429.
"""

from __future__ import annotations

from typing import Final, cast

from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from msgspec.structs import replace

from events.event import SYSTEM_TENANT
from handlers.http.access import Access, access_of
from handlers.http.call import Caller, traceparent_of
from handlers.http.limiting import Limiter
from handlers.http.own_writes import OwnWrites
from handlers.http.ports import Principal, Tenants
from handlers.http.problems import Rejected, invalid, not_found

IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
_POSITION_DIGITS_MAX: Final = 18
_ONCE: Final = {
    b"authorization": "Authorization",
    b"idempotency-key": "Idempotency-Key",
    b"switchback-min-position": "Switchback-Min-Position",
}
_TENANT_PREFIX: Final = "/api/v1/tenants/"


class Gate:
    """ASGI middleware; leaves a `Caller` in the scope's state."""

    def __init__(
        self, app: ASGIApp, *, tenants: Tenants, limiter: Limiter, own_writes: OwnWrites
    ) -> None:
        self._app = app
        self._tenants = tenants
        self._limiter = limiter
        self._own_writes = own_writes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = cast(HTTPScope, scope)
        if request["method"] != "OPTIONS":
            access = access_of(cast(HTTPRouteHandler, request["route_handler"]))
            if access != "public":
                caller = self._admit(request, access)
                await self._limiter.take(caller.tenant, request["method"], access)
                if request["method"] != "GET":
                    if access != "infer":  # which tells the position of its policy
                        send = self._own_writes.noting(caller.tenant, send)
                elif not caller.min_position:
                    floor = await self._own_writes.floor(caller.tenant)
                    caller = replace(caller, min_position=floor)
                request["state"]["caller"] = caller
        await self._app(scope, receive, send)

    def _admit(self, scope: HTTPScope, access: Access) -> Caller:
        headers = _headers(scope)
        principal = self._authenticate(headers.get(b"authorization", b""))
        named = scope["path_params"].get("tenant")
        tenant = principal.tenant if named is None else str(named)
        _authorize(principal, tenant, access)
        if tenant != principal.tenant and not self._exists(tenant, scope["method"]):
            raise not_found("tenant", tenant[:80])
        return Caller(
            principal=principal,
            tenant=tenant,
            path=_within_tenant(scope["path"], named),
            min_position=_min_position(headers.get(b"switchback-min-position")),
            idempotency_key=_idempotency_key(headers.get(b"idempotency-key")),
            traceparent=traceparent_of(headers.get(b"traceparent", b"").decode("latin-1")),
        )

    def _authenticate(self, header: bytes) -> Principal:
        scheme, _, secret = header.decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Rejected("unauthenticated", "give a key: `Authorization: Bearer <key>`")
        principal = self._tenants.authenticate(secret.strip())
        if principal is None:
            raise Rejected("unauthenticated", "the key is unknown, revoked or expired")
        return principal

    def _exists(self, tenant: str, method: str) -> bool:
        """The reserved tenant has a history to read, and nothing of anybody's in it."""
        return self._tenants.exists(tenant) or (tenant == SYSTEM_TENANT and method == "GET")


def _authorize(principal: Principal, tenant: str, access: Access) -> None:
    if "admin" in principal.scopes:
        return
    if tenant != principal.tenant:
        raise Rejected("forbidden", "the key belongs to another tenant")
    if access not in principal.scopes:
        raise Rejected("forbidden", f"the key lacks the scope {access!r}")


def _headers(scope: HTTPScope) -> dict[bytes, bytes]:
    """Of those that the gate reads, which may occur once. Raises Rejected."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in found and name in _ONCE:
            raise invalid({_ONCE[name]: "occurs twice"})
        found[name] = value
    return found


def _within_tenant(path: str, named: object) -> str:
    if named is None:
        return path
    return "/api/v1" + path[len(_TENANT_PREFIX) + len(str(named)) :]


def _min_position(header: bytes | None) -> int:
    if header is None:
        return 0
    if not header.isdigit() or len(header) > _POSITION_DIGITS_MAX:
        raise invalid({"Switchback-Min-Position": "not a position"})
    return int(header)


def _idempotency_key(header: bytes | None) -> str | None:
    if header is None:
        return None
    key = header.decode("latin-1")
    if not key or len(key) > IDEMPOTENCY_KEY_CHARS_MAX or not key.isprintable():
        said = f"not 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable characters"
        raise invalid({"Idempotency-Key": said})
    return key
