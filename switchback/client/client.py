"""The calls of the control API and of inference, one method each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import httpx
import msgspec

from switchback.client.calls import part
from switchback.client.credentials import read_credentials
from switchback.client.rollouts import RolloutCalls
from switchback.client.transport import JSON, Transport, present

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


class Client(RolloutCalls):
    """Answers are the JSON objects of the contract. Raises Problem for every refusal, and
    httpx.TransportError when the gateway stays out of reach."""

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

    # Models and versions

    async def register_model(
        self, name: str, *, description: str | None = None, labels: Mapping[str, str] | None = None
    ) -> JSON:
        return await self._post("/models", name=name, description=description, labels=labels)

    def models(self) -> AsyncIterator[JSON]:
        return self._items("/models")

    async def model(self, model: str) -> JSON:
        return await self._get(f"/models/{part(model)}")

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
            f"/models/{part(model)}/versions",
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
        return self._items(f"/models/{part(model)}/versions")

    async def version(self, model: str, version: str) -> JSON:
        return await self._get(_version(model, version))

    async def lineage(self, model: str, version: str) -> JSON:
        return await self._get(_version(model, version) + "/lineage")

    async def retire_version(self, model: str, version: str) -> JSON:
        return await self._post(_version(model, version) + "/retire")

    async def move_alias(self, model: str, alias: str, *, version: str) -> JSON:
        return await self._put(f"/models/{part(model)}/aliases/{part(alias)}", version=version)

    def alias_history(self, model: str, alias: str) -> AsyncIterator[JSON]:
        return self._items(f"/models/{part(model)}/aliases/{part(alias)}/history")

    # Endpoints

    async def create_endpoint(self, endpoint: str, *, model: str, version: str) -> JSON:
        """All traffic to that version. Answers once the version is resident."""
        return await self._put(f"/endpoints/{part(endpoint)}", model=model, version=version)

    def endpoints(self, *, at: int | str | None = None) -> AsyncIterator[JSON]:
        """`at` is a position or an RFC 3339 time: as they were then."""
        return self._items("/endpoints", at=at)

    async def endpoint(self, endpoint: str, *, at: int | str | None = None) -> JSON:
        return await self._get(f"/endpoints/{part(endpoint)}", at=at)

    async def set_policy(self, endpoint: str, policy: Mapping[str, Any]) -> JSON:
        return await self._put(f"/endpoints/{part(endpoint)}/policy", **policy)

    async def request_swap(
        self, endpoint: str, *, to: str, timeout_s: float = _SWAP_SECONDS
    ) -> JSON:
        """Answers at once; the swap goes on."""
        return await self._post(f"/endpoints/{part(endpoint)}/swap", to=to, timeout_s=timeout_s)

    async def swap(self, endpoint: str, *, to: str, timeout_s: float = _SWAP_SECONDS) -> JSON:
        """Answers when it is over. A swap whose `state` is failed left the old version serving."""
        return await self._transport.command(
            "POST",
            f"{self._root}/endpoints/{part(endpoint)}/swap?wait=true",
            {"to": to, "timeout_s": timeout_s},
            answer_seconds=timeout_s,
        )

    async def rollback(self, endpoint: str, *, reason: str = "") -> JSON:
        """Answers when every live gateway has applied it."""
        return await self._post(f"/endpoints/{part(endpoint)}/rollback", reason=reason)

    async def raise_alert(
        self,
        endpoint: str,
        *,
        kind: str,
        severity: Literal["warning", "critical"],
        version: str | None = None,
        detail: str | None = None,
    ) -> JSON:
        """A critical alert on the newest version, which is meant without `version`, rolls back."""
        return await self._post(
            f"/endpoints/{part(endpoint)}/alerts",
            kind=kind,
            severity=severity,
            version=version,
            detail=detail,
        )

    async def explain(self, endpoint: str, *, key: str, at: int | str | None = None) -> JSON:
        """Which version the key gets, or got at `at`, and the event that made it so."""
        return await self._get(f"/endpoints/{part(endpoint)}/explain", key=key, at=at)

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
            f"{self._root}/endpoints/{part(endpoint)}/infer",
            {"inputs": inputs, **present(members)},
            answer_seconds=timeout_s,
        )
        return _inference(response)

    # Nodes

    def nodes(self) -> AsyncIterator[JSON]:
        return self._items("/nodes")

    async def node(self, node: str) -> JSON:
        return await self._get(f"/nodes/{part(node)}")

    async def batching(self, node: str) -> JSON:
        """What the schedulers of the tenant's versions do on a node now: `items`, by version, and
        those that do not say, `unanswered`."""
        return await self._get(f"/nodes/{part(node)}/batching")

    async def drain(self, node: str) -> JSON:
        return await self._post(f"/nodes/{part(node)}/drain")

    # Tenants

    async def create_tenant(self, name: str) -> JSON:
        return await self._transport.command("POST", "/api/v1/tenants", {"name": name})

    async def issue_key(
        self,
        tenant: str,
        *,
        scopes: Sequence[str],
        expires_s: float | None = None,
        tokens_per_minute: int | None = None,
    ) -> JSON:
        """The answer's `key` is shown this once."""
        members = {"expires_s": expires_s, "tokens_per_minute": tokens_per_minute}
        body = {"scopes": list(scopes), **present(members)}
        return await self._transport.command("POST", f"{_tenant(tenant)}/keys", body)

    async def tenant(self, tenant: str) -> JSON:
        return await self._transport.read(_tenant(tenant))

    def keys(self, tenant: str) -> AsyncIterator[JSON]:
        """Without their secrets; revoked and expired ones say so."""
        return self.of_tenant(tenant)._items("/keys")

    async def set_key_budget(
        self, tenant: str, key_id: str, *, tokens_per_minute: int | None
    ) -> JSON:
        """What requests with the key may take in any minute; None is unbounded."""
        return await self._transport.command(
            "PUT",
            f"{_tenant(tenant)}/keys/{part(key_id)}/budget",
            {"tokens_per_minute": tokens_per_minute},
        )

    async def revoke_key(self, tenant: str, key_id: str) -> JSON:
        return await self._transport.command("DELETE", f"{_tenant(tenant)}/keys/{part(key_id)}")

    async def set_quota(self, tenant: str, **quota: int | None) -> JSON:
        """`requests_per_s`, `commands_per_s`, `models_max`, `endpoints_max`; absent: unbounded."""
        return await self._transport.command("PUT", f"{_tenant(tenant)}/quota", present(quota))


def _version(model: str, version: str) -> str:
    return f"/models/{part(model)}/versions/{part(version)}"


def _tenant(tenant: str) -> str:
    return f"/api/v1/tenants/{part(tenant)}"


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
