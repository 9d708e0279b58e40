"""The calls of the control API and of inference, one method each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import quote

import httpx
import msgspec

from events.errors import MalformedEvent
from switchback.client.credentials import read_credentials
from switchback.client.transport import JSON, Transport, present

_PAGE_ITEMS: Final = 1000
_SWAP_SECONDS: Final = 60.0
_INFER_SECONDS: Final = 60.0


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and the proof of where it came from."""

    outputs: Any
    version: str
    request_id: str
    position: int
    """Of the event whose policy chose the version."""
    receipt: str
    """For `explain_receipt`."""
    rule: str | None
    """The policy's rule that matched; None for the split outside every rule."""
    overhead_ms: float
    """What Switchback added to the version's own time, as the gateway measured it."""
    attempts: int


class Client:
    """Answers are the JSON objects of the contract. Raises Problem for every refusal, and
    httpx.TransportError when the gateway stays out of reach."""

    def __init__(self, transport: Transport, *, tenant: str | None = None) -> None:
        self._transport = transport
        self._root = "/api/v1" + (f"/tenants/{_part(tenant)}" if tenant is not None else "")

    @classmethod
    def connect(cls, url: str, *, key: str) -> Self:
        """For the tenant that the key belongs to."""
        return cls(Transport(url=url, key=key))

    @classmethod
    def from_data_dir(cls, data_dir: str | Path) -> Self:
        """For the `switchback up` that runs in `data_dir`. Raises CredentialsMissing."""
        credentials = read_credentials(Path(data_dir))
        return cls.connect(credentials.url, key=credentials.key)

    def of_tenant(self, tenant: str) -> Client:
        """The same connection, for another tenant's resources. Its key needs scope `admin`."""
        return Client(self._transport, tenant=tenant)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.close()

    @property
    def min_position(self) -> int:
        """Reads wait until this position is readable; each command raises it to its own.

        Set it to a position learned elsewhere to see that event, or to 0 to take what is there.
        """
        return self._transport.min_position

    @min_position.setter
    def min_position(self, position: int) -> None:
        self._transport.min_position = position

    # Models and versions

    async def register_model(
        self, name: str, *, description: str | None = None, labels: Mapping[str, str] | None = None
    ) -> JSON:
        return await self._post("/models", name=name, description=description, labels=labels)

    def models(self) -> AsyncIterator[JSON]:
        return self._items("/models")

    async def model(self, model: str) -> JSON:
        return await self._get(f"/models/{_part(model)}")

    async def register_version(
        self,
        model: str,
        version: str,
        *,
        runtime: str,
        config: Mapping[str, Any] | None = None,
        artifact: Mapping[str, Any] | None = None,
        parent: str | None = None,
        memory_bytes: int | None = None,
        labels: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> JSON:
        """`artifact` is `{"uri", "sha256", "size_bytes"}`, `parent` is `model@version`."""
        return await self._post(
            f"/models/{_part(model)}/versions",
            version=version,
            runtime=runtime,
            config=config,
            artifact=artifact,
            parent=parent,
            memory_bytes=memory_bytes,
            labels=labels,
            metrics=metrics,
        )

    def versions(self, model: str) -> AsyncIterator[JSON]:
        return self._items(f"/models/{_part(model)}/versions")

    async def version(self, model: str, version: str) -> JSON:
        return await self._get(_version(model, version))

    async def lineage(self, model: str, version: str) -> JSON:
        return await self._get(_version(model, version) + "/lineage")

    async def retire_version(self, model: str, version: str) -> JSON:
        return await self._post(_version(model, version) + "/retire")

    async def move_alias(self, model: str, alias: str, *, version: str) -> JSON:
        return await self._put(f"/models/{_part(model)}/aliases/{_part(alias)}", version=version)

    def alias_history(self, model: str, alias: str) -> AsyncIterator[JSON]:
        return self._items(f"/models/{_part(model)}/aliases/{_part(alias)}/history")

    # Endpoints

    async def create_endpoint(self, endpoint: str, *, model: str, version: str) -> JSON:
        """All traffic to that version. Answers once the version is resident."""
        return await self._put(f"/endpoints/{_part(endpoint)}", model=model, version=version)

    def endpoints(self, *, at: int | str | None = None) -> AsyncIterator[JSON]:
        """`at` is a position or an RFC 3339 time: as they were then."""
        return self._items("/endpoints", at=at)

    async def endpoint(self, endpoint: str, *, at: int | str | None = None) -> JSON:
        return await self._get(f"/endpoints/{_part(endpoint)}", at=at)

    async def set_policy(self, endpoint: str, policy: Mapping[str, Any]) -> JSON:
        return await self._put(f"/endpoints/{_part(endpoint)}/policy", **policy)

    async def request_swap(
        self, endpoint: str, *, to: str, timeout_s: float = _SWAP_SECONDS
    ) -> JSON:
        """Answers at once; the swap goes on."""
        return await self._post(f"/endpoints/{_part(endpoint)}/swap", to=to, timeout_s=timeout_s)

    async def swap(self, endpoint: str, *, to: str, timeout_s: float = _SWAP_SECONDS) -> JSON:
        """Answers when it is over. A swap whose `state` is failed left the old version serving."""
        return await self._transport.command(
            "POST",
            f"{self._root}/endpoints/{_part(endpoint)}/swap?wait=true",
            {"to": to, "timeout_s": timeout_s},
            answer_seconds=timeout_s,
        )

    async def rollback(self, endpoint: str, *, reason: str = "") -> JSON:
        """Answers when every live gateway has applied it."""
        return await self._post(f"/endpoints/{_part(endpoint)}/rollback", reason=reason)

    async def raise_alert(
        self,
        endpoint: str,
        *,
        kind: str,
        severity: Literal["warning", "critical"],
        detail: str | None = None,
    ) -> JSON:
        """A critical alert on the newest version rolls back."""
        return await self._post(
            f"/endpoints/{_part(endpoint)}/alerts", kind=kind, severity=severity, detail=detail
        )

    async def explain(self, endpoint: str, *, key: str, at: int | str | None = None) -> JSON:
        """Which version the key gets, or got at `at`, and the event that made it so."""
        return await self._get(f"/endpoints/{_part(endpoint)}/explain", key=key, at=at)

    async def explain_receipt(self, receipt: str) -> JSON:
        return await self._transport.ask(f"{self._root}/explain", {"receipt": receipt})

    async def infer(
        self,
        endpoint: str,
        inputs: Any,
        *,
        key: str | None = None,
        attributes: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout_s: float = _INFER_SECONDS,
    ) -> Inference:
        """Sent once, never repeated."""
        members = {"key": key, "attributes": attributes, "parameters": parameters}
        response = await self._transport.once(
            f"{self._root}/endpoints/{_part(endpoint)}/infer",
            {"inputs": inputs, **present(members)},
            answer_seconds=timeout_s,
        )
        return _inference(response)

    # Nodes and events

    def nodes(self) -> AsyncIterator[JSON]:
        return self._items("/nodes")

    async def node(self, node: str) -> JSON:
        return await self._get(f"/nodes/{_part(node)}")

    async def drain(self, node: str) -> JSON:
        return await self._post(f"/nodes/{_part(node)}/drain")

    def events(self, *, after: int = 0, entity: str | None = None) -> AsyncIterator[JSON]:
        """The tenant's events after a position, up to now. `entity` is `<aggregate>/<id>`."""
        return self._items("/events", after=after, entity=entity)

    async def follow_events(
        self, *, after: int = 0, entity: str | None = None
    ) -> AsyncGenerator[JSON, None]:
        """As `events`, then live, for ever, without gap or repeat over lost connections.

        Raises MalformedEvent when the log holds a message that is not an event of ours.
        """
        path = f"{self._root}/events/stream"
        stream = self._transport.follow(path, after=after, entity=entity)
        async with aclosing(stream) as arriving:
            async for sent in arriving:
                if sent.event == "malformed":
                    raise MalformedEvent(int(sent.data), "", "not an event of Switchback")
                yield msgspec.json.decode(sent.data, type=dict[str, Any])

    # Tenants

    async def create_tenant(self, name: str) -> JSON:
        return await self._transport.command("POST", "/api/v1/tenants", {"name": name})

    async def issue_key(
        self, tenant: str, *, scopes: Sequence[str], expires_s: float | None = None
    ) -> JSON:
        """The answer's `key` is shown this once."""
        body = present({"scopes": list(scopes), "expires_s": expires_s})
        return await self._transport.command("POST", f"{_tenant(tenant)}/keys", body)

    async def tenant(self, tenant: str) -> JSON:
        return await self._transport.read(_tenant(tenant))

    def keys(self, tenant: str) -> AsyncIterator[JSON]:
        """Without their secrets; revoked and expired ones say so."""
        return self.of_tenant(tenant)._items("/keys")

    async def revoke_key(self, tenant: str, key_id: str) -> JSON:
        return await self._transport.command("DELETE", f"{_tenant(tenant)}/keys/{_part(key_id)}")

    async def set_quota(self, tenant: str, **quota: int | None) -> JSON:
        """`requests_per_s`, `commands_per_s`, `models_max`, `endpoints_max`; absent: unbounded."""
        return await self._transport.command("PUT", f"{_tenant(tenant)}/quota", present(quota))

    async def _get(self, path: str, **params: Any) -> JSON:
        return await self._transport.read(self._root + path, **params)

    async def _post(self, path: str, **members: Any) -> JSON:
        return await self._transport.command("POST", self._root + path, present(members))

    async def _put(self, path: str, **members: Any) -> JSON:
        return await self._transport.command("PUT", self._root + path, present(members))

    async def _items(self, path: str, **params: Any) -> AsyncIterator[JSON]:
        """Over all pages."""
        while True:
            page = await self._get(path, limit=_PAGE_ITEMS, **params)
            for item in page["items"]:
                yield item
            if page["next"] is None:
                return
            params["after"] = page["next"]


def _part(name: str) -> str:
    return quote(name, safe="")


def _version(model: str, version: str) -> str:
    return f"/models/{_part(model)}/versions/{_part(version)}"


def _tenant(tenant: str) -> str:
    return f"/api/v1/tenants/{_part(tenant)}"


def _inference(response: httpx.Response) -> Inference:
    body = msgspec.json.decode(response.content, type=dict[str, Any])
    return Inference(
        outputs=body["outputs"],
        version=body["version"],
        request_id=body["request_id"],
        position=int(response.headers["Switchback-Position"]),
        receipt=response.headers["Switchback-Receipt"],
        rule=response.headers.get("Switchback-Rule") or None,
        overhead_ms=float(response.headers["Switchback-Overhead-Ms"]),
        attempts=int(response.headers["Switchback-Attempts"]),
    )
