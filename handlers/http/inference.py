"""`/endpoints/{endpoint}/infer`: one request to whichever version the policy gives it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final
from uuid import uuid4

import msgspec
from litestar import Response, post
from litestar.params import JSONBody

from engine.runtimes.documents import usage_of
from handlers.http.access import needs
from handlers.http.call import POSITION_HEADER, Call
from handlers.http.inference_ports import Inference, StreamedInference
from handlers.http.leaving import ClientLeft, WhileThere
from handlers.http.parameters import Name
from handlers.http.problems import VERSION_HEADER

INFERENCE_HEADERS: Final = (
    "Switchback-Request-Id",
    VERSION_HEADER,
    POSITION_HEADER,
    "Switchback-Receipt",
    "Switchback-Rule",
    "Switchback-Overhead-Ms",
    "Switchback-Attempts",
)


LEFT: Final = "left"
"""Counted in the place of a problem code: the client did not wait."""


class Infer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    inputs: Any
    key: str | None = None
    """The routing key: the same key gets the same version while the policy stands."""
    attributes: dict[str, str] = {}
    """For rules that look at the request."""
    parameters: dict[str, Any] = {}
    """Passed to the version."""


class Inferred(msgspec.Struct, frozen=True, kw_only=True):
    outputs: Any
    version: str
    request_id: str


@post("/endpoints/{endpoint:str}/infer", status_code=200, **needs("infer", stored=False))
async def infer(request: Call, endpoint: Name, data: JSONBody[Infer]) -> Response[Inferred]:
    """Answer from the version that the policy gives this key; the headers prove which and why."""
    with request.spending(data.inputs, data.parameters) as spending:
        inference = await metered(
            request,
            endpoint,
            request.front.services.inferences.infer(
                request.tenant,
                endpoint=endpoint,
                inputs=data.inputs,
                key=data.key,
                attributes=data.attributes,
                parameters=data.parameters,
                request_id=str(uuid4()),
                deadline_s=request.front.limits.inference_timeout_s,
            ),
        )
        spending.tell(inference.outputs)
    answer = Inferred(
        outputs=inference.outputs, version=inference.version, request_id=inference.request_id
    )
    return Response(answer, headers=inference_headers(inference) | spending.headers())


async def metered(request: Call, endpoint: str, asked: Awaitable[Inference]) -> Inference:
    """The answer to what was asked, counted; so are failures, which are raised. When the client
    leaves what was asked is cancelled. Raises ClientLeft."""
    metrics = request.front.metrics
    try:
        async with WhileThere(request.receive):
            inference = await asked
    except ClientLeft:
        metrics.inference_failed(request.tenant, endpoint, "", LEFT)
        raise
    except Exception as error:
        code, version = getattr(error, "code", "internal"), getattr(error, "version", "")
        metrics.inference_failed(request.tenant, endpoint, version, code)
        raise
    metrics.inferred(
        request.tenant,
        endpoint,
        inference.version,
        inference.overhead_ms / 1000,
        usage_of(inference.outputs),
    )
    return inference


def inference_headers(inference: Inference | StreamedInference) -> dict[str, str]:
    """The headers of INFERENCE_HEADERS."""
    values = (
        inference.request_id,
        inference.version,
        str(inference.position),
        inference.receipt,
        _header_text(inference.rule or ""),
        f"{inference.overhead_ms:.3f}",
        str(inference.attempts),
    )
    return dict(zip(INFERENCE_HEADERS, values, strict=True))


def _header_text(text: str) -> str:
    """Rule names are free text; header values are printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


HANDLERS: tuple[Any, ...] = (infer,)
