"""`/v2`: the Open Inference Protocol, version 2, with binary tensors.

A model of the protocol is an endpoint, so `/infer` goes where the policy sends the key. With
`/versions/{v}` the version is asked for by name: one that the endpoint holds ready (routes to,
sends copies to, or would roll back, swap or roll out to); any other is `not_found`. Such requests
have no receipt, and no window counts them. Errors are problem documents with the protocol's `error`
in them.
"""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any, Final
from uuid import uuid4

import msgspec
from litestar import Request, Response, get, post
from litestar.params import JSONBody

from handlers.http.access import needs
from handlers.http.call import Call
from handlers.http.directory import ServedEndpoint
from handlers.http.inference import inference_headers, metered
from handlers.http.inference_ports import Inference
from handlers.http.parameters import (
    ATTRIBUTES_HEADER,
    KEY_HEADER,
    Name,
    VersionName,
    attributes,
)
from handlers.http.problems import Rejected, invalid, not_found, problem_response
from handlers.http.tensor_bodies import (
    OWN_PARAMETERS,
    InferredTensors,
    InferTensors,
    TensorCall,
    answer,
    check_outputs,
    inputs_of,
)
from handlers.spending import Spending

EXTENSIONS: Final = ("binary_tensor_data", "model_repository")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    extensions: tuple[str, ...]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    live: bool


class ServerReady(msgspec.Struct, frozen=True, kw_only=True):
    ready: bool


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Versions declare no tensors: `inputs` and `outputs` are empty."""

    name: str
    versions: list[str]
    """Those that may be asked for by name."""
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


class ModelReady(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    ready: bool


def answer_error(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Problem documents in which clients of the protocol find their `error`."""
    return problem_response(error, lambda problem: {"error": problem.detail})


@get("/", **needs("public"))
async def get_server() -> Server:
    """What this server is, and which extensions of the protocol it has."""
    return Server(name="switchback", version=version_of("switchback"), extensions=EXTENSIONS)


@get("/health/live", **needs("public"))
async def live() -> Live:
    """The process answers."""
    return Live(live=True)


@get("/health/ready", **needs("public", also=503))
async def ready(request: Call) -> Response[ServerReady]:
    """Whether `/readyz` says so."""
    parts = await request.front.services.readiness.parts()
    is_ready = not any(part.required and part.state == "down" for part in parts.values())
    return Response(ServerReady(ready=is_ready), status_code=200 if is_ready else 503)


@get("/models/{endpoint:str}", **needs("infer"))
async def get_model(request: Call, endpoint: Name) -> ModelMetadata:
    """An endpoint as a model; `platform` is the runtime of its active version."""
    served = await _served(request, endpoint)
    return _metadata(served, served.active)


@get("/models/{endpoint:str}/versions/{version:str}", **needs("infer"))
async def get_model_version(request: Call, endpoint: Name, version: VersionName) -> ModelMetadata:
    """A version that the endpoint holds ready."""
    return _metadata(await _served(request, endpoint, version), version)


@get("/models/{endpoint:str}/ready", **needs("infer"))
async def model_ready(request: Call, endpoint: Name) -> ModelReady:
    """Whether some node serves each version that takes traffic; 503 `unavailable` if not."""
    served = await _served(request, endpoint)
    return _ready(served, served.taking)


@get("/models/{endpoint:str}/versions/{version:str}/ready", **needs("infer"))
async def model_version_ready(request: Call, endpoint: Name, version: VersionName) -> ModelReady:
    """Whether some node serves the version; 503 `unavailable` if not."""
    return _ready(await _served(request, endpoint, version), frozenset({version}))


@post(
    "/models/{endpoint:str}/infer",
    status_code=200,
    request_class=TensorCall,
    **needs("infer", stored=False),
)
async def infer_tensors(
    request: TensorCall, endpoint: Name, data: JSONBody[InferTensors]
) -> Response[InferredTensors]:
    """Answer from the version that the policy gives the key: `parameters.key`, else the header
    `Switchback-Key`. Attributes come from `Switchback-Attributes`, a JSON object of strings."""
    check_outputs(data)
    inputs = inputs_of(data, await request.binary())
    key, parameters = _key(request, data), _parameters(data)
    told = attributes(request.headers.get(ATTRIBUTES_HEADER))
    with request.spending(inputs, parameters) as spending:
        asked = request.front.services.inferences.infer(
            request.tenant,
            endpoint=endpoint,
            inputs=inputs,
            key=key,
            attributes=told,
            parameters=parameters,
            request_id=str(uuid4()),
            deadline_s=request.front.limits.inference_timeout_s,
        )
        inference = await metered(request, endpoint, asked)
        spending.tell(inference.outputs)
    return _answered(data, endpoint, inference, spending)


@post(
    "/models/{endpoint:str}/versions/{version:str}/infer",
    status_code=200,
    request_class=TensorCall,
    **needs("infer", stored=False),
)
async def infer_tensors_by_version(
    request: TensorCall, endpoint: Name, version: VersionName, data: JSONBody[InferTensors]
) -> Response[InferredTensors]:
    """Answer from this version, past the policy: without receipt, counted in no window."""
    check_outputs(data)
    inputs, parameters = inputs_of(data, await request.binary()), _parameters(data)
    with request.spending(inputs, parameters) as spending:
        asked = request.front.services.direct.infer_version(
            request.tenant,
            endpoint=endpoint,
            version=version,
            inputs=inputs,
            parameters=parameters,
            request_id=str(uuid4()),
            deadline_s=request.front.limits.inference_timeout_s,
        )
        inference = await metered(request, endpoint, asked)
        spending.tell(inference.outputs)
    return _answered(data, endpoint, inference, spending)


async def _served(request: Call, endpoint: str, version: str | None = None) -> ServedEndpoint:
    directory = request.front.services.directory
    await directory.reach(request.min_position)
    served = directory.endpoint(request.tenant, endpoint)
    if served is None:
        raise not_found("endpoint", endpoint)
    if version is not None and version not in served.versions:
        raise not_found("version", f"{endpoint}@{version}")
    return served


def _metadata(served: ServedEndpoint, version: str) -> ModelMetadata:
    runtime = served.versions[version].replace("-", "_")
    return ModelMetadata(
        name=served.name,
        versions=list(served.versions),
        platform=f"switchback_{runtime}",
        inputs=[],
        outputs=[],
    )


def _ready(served: ServedEndpoint, versions: frozenset[str]) -> ModelReady:
    missing = sorted(versions - served.resident)
    if missing:
        raise Rejected("unavailable", f"no node serves {', '.join(missing)}")
    return ModelReady(name=served.name, ready=True)


def _key(request: Call, data: InferTensors) -> str | None:
    key = data.parameters.get("key", request.headers.get(KEY_HEADER))
    if key is not None and not isinstance(key, str):
        raise invalid({"parameters.key": "not a string"})
    return key


def _parameters(data: InferTensors) -> dict[str, Any]:
    """Those that are the version's."""
    return {name: each for name, each in data.parameters.items() if name not in OWN_PARAMETERS}


def _answered(
    data: InferTensors, endpoint: str, inference: Inference, spending: Spending
) -> Response[Any]:
    response = answer(
        data,
        inference.outputs,
        endpoint=endpoint,
        version=inference.version,
        request_id=inference.request_id,
    )
    response.headers.update(inference_headers(inference) | spending.headers())
    return response


HANDLERS: tuple[Any, ...] = (
    get_server,
    live,
    ready,
    get_model,
    get_model_version,
    model_ready,
    model_version_ready,
    infer_tensors,
    infer_tensors_by_version,
)
