"""The routes of `/v1`; see the package."""

from __future__ import annotations

import re
import time
from typing import Any, Final
from uuid import uuid4

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from handlers.http.access import needs
from handlers.http.call import Call
from handlers.http.directory import ServedModel
from handlers.http.inference import inference_headers, metered
from handlers.http.inference_ports import Inference
from handlers.http.openai.answers import (
    FORMS,
    Completion,
    Embeddings,
    Envelope,
    completion,
    embeddings,
)
from handlers.http.openai.bodies import (
    Body,
    ChatBody,
    EmbeddingsBody,
    OpenAICall,
    Streamable,
    TextBody,
)
from handlers.http.openai.counting import Counting
from handlers.http.openai.frames import Frames, FramesWithUsage
from handlers.http.openai.streaming import AnswerStream
from handlers.http.parameters import (
    ATTRIBUTES_HEADER,
    KEY_HEADER,
    NAME_PATTERN,
    attributes,
)
from handlers.http.problems import not_found

_NAME: Final = re.compile(NAME_PATTERN)
_NAME_SHOWN_CHARS: Final = 80


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as a model of the protocol."""

    id: str
    object: str
    created: int
    """Seconds since 1970; 0 if that is not known."""
    owned_by: str
    """The tenant."""


class Models(msgspec.Struct, frozen=True, kw_only=True):
    object: str
    data: list[Model]


@get("/models", **needs("infer"))
async def list_models(request: Call) -> Models:
    """The tenant's endpoints, by name."""
    directory = request.front.services.directory
    await directory.reach(request.min_position)
    found = directory.models(request.tenant)
    return Models(object="list", data=[_model(request.tenant, each) for each in found])


@get("/models/{model:str}", **needs("infer"))
async def get_model(request: Call, model: FromPath[str]) -> Model:
    """An endpoint."""
    directory = request.front.services.directory
    await directory.reach(request.min_position)
    found = directory.model(request.tenant, model)
    if found is None:
        raise not_found("model", model[:_NAME_SHOWN_CHARS])
    return _model(request.tenant, found)


@post(
    "/chat/completions",
    status_code=200,
    request_class=OpenAICall,
    **needs("infer", stored=False, streams=True),
)
async def chat(request: OpenAICall, data: JSONBody[ChatBody]) -> Response[Completion]:
    """The answer to a conversation, whole or as a stream."""
    return await _completed(request, data)


@post(
    "/completions",
    status_code=200,
    request_class=OpenAICall,
    **needs("infer", stored=False, streams=True),
)
async def complete(request: OpenAICall, data: JSONBody[TextBody]) -> Response[Completion]:
    """How a text goes on, whole or as a stream."""
    return await _completed(request, data)


@post("/embeddings", status_code=200, request_class=OpenAICall, **needs("infer", stored=False))
async def embed(request: OpenAICall, data: JSONBody[EmbeddingsBody]) -> Response[Embeddings]:
    """The vectors of texts."""
    inference, headers = await _inferred(request, data, _asked(request, data))
    document = embeddings(inference.outputs, endpoint=data.model)
    return Response(document, headers=headers)  # type: ignore[arg-type]


async def _completed(request: OpenAICall, data: Streamable) -> Response[Any]:
    asked = _asked(request, data)
    if data.stream:
        return _streamed(request, data, asked)
    inference, headers = await _inferred(request, data, asked)
    form = FORMS[data.kind]
    envelope = _envelope(data, asked["request_id"], form.whole)
    document = completion(data.kind, inference.outputs, envelope)
    return Response(document, headers=headers)


async def _inferred(
    request: OpenAICall, data: Body, asked: dict[str, Any]
) -> tuple[Inference, dict[str, str]]:
    """What was answered, and the headers of it."""
    with request.spending(asked["inputs"], asked["parameters"]) as spending:
        answering = request.front.services.inferences.infer(**asked)
        inference = await metered(request, data.model, answering)
        spending.tell(inference.outputs)
    return inference, inference_headers(inference) | spending.headers()


def _streamed(request: OpenAICall, data: Streamable, asked: dict[str, Any]) -> AnswerStream:
    envelope = _envelope(data, asked["request_id"], FORMS[data.kind].chunk)
    with_usage = data.stream_options is not None and data.stream_options.include_usage
    frames = FramesWithUsage if with_usage else Frames
    return AnswerStream(
        request.front.services.inferences.stream(**asked),
        spending=request.spending(asked["inputs"], asked["parameters"]),
        frames=frames(data.kind, envelope),
        counting=Counting(request.front.metrics, tenant=request.tenant, endpoint=data.model),
    )


def _asked(request: OpenAICall, data: Body) -> dict[str, Any]:
    """The arguments of `Inferences.infer` and `stream`. Raises Rejected."""
    if not _NAME.match(data.model):
        raise not_found("model", data.model[:_NAME_SHOWN_CHARS])
    inputs, parameters = request.asked(data)
    return {
        "tenant": request.tenant,
        "endpoint": data.model,
        "inputs": inputs,
        "key": data.user if data.user is not None else request.headers.get(KEY_HEADER),
        "attributes": attributes(request.headers.get(ATTRIBUTES_HEADER)),
        "parameters": parameters,
        "request_id": str(uuid4()),
        "deadline_s": request.front.limits.inference_timeout_s,
    }


def _envelope(data: Body, request_id: str, object_: str) -> Envelope:
    return Envelope(
        id=FORMS[data.kind].prefix + request_id,
        object=object_,
        created=int(time.time()),
        model=data.model,
    )


def _model(tenant: str, found: ServedModel) -> Model:
    return Model(id=found.name, object="model", created=found.created_s, owned_by=tenant)


HANDLERS: tuple[Any, ...] = (list_models, get_model, chat, complete, embed)
