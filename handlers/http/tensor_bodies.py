"""Bodies of inference requests and answers in the Open Inference Protocol.

With the header `Inference-Header-Content-Length` a body is that many bytes of JSON, and after them
the tensors whose `parameters.binary_data_size` says so, in their order and without a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from litestar import Response

from handlers.http.bodies import check_integers, decode
from handlers.http.call import Call
from handlers.http.problems import Rejected, invalid
from handlers.http.tensor_outputs import outputs_of
from handlers.http.tensors import (
    DIMENSIONS_MAX,
    Datatype,
    Tensor,
    from_binary,
    from_json,
    to_binary,
    to_json,
)

JSON_LENGTH_HEADER: Final = "Inference-Header-Content-Length"
TENSORS_MAX: Final = 1_024
"""In one request."""
OWN_PARAMETERS: Final = frozenset({"key", "binary_data_output"})
"""Of a request; a version sees all others."""
_LENGTH_DIGITS_MAX: Final = 18
_OCTETS: Final = "application/octet-stream"
_JSON: Final = "application/json"


class InputParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Bytes of this tensor behind the JSON, in place of `data`."""


class RequestInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=256)]
    shape: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=DIMENSIONS_MAX)
    ]
    datatype: Datatype
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None
    """In row-major order, flat or nested as `shape` says."""


class OutputParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    binary_data: bool | None = None


class RequestOutput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=256)]
    parameters: OutputParameters = OutputParameters()


class InferTensors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    inputs: Annotated[list[RequestInput], msgspec.Meta(max_length=TENSORS_MAX)]
    id: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    """Comes back in the answer."""
    parameters: dict[str, Any] = {}
    """`key` is the routing key, `binary_data_output` asks for all outputs in binary form; the rest
    is passed to the version."""
    outputs: Annotated[list[RequestOutput], msgspec.Meta(max_length=TENSORS_MAX)] | None = None
    """Those that are wanted, in this order; all without it."""


class ResponseOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    parameters: dict[str, int] = {}
    data: list[Any] | None = None


class InferredTensors(msgspec.Struct, frozen=True, kw_only=True):
    model_name: str
    model_version: str
    id: str
    outputs: list[ResponseOutput]


class TensorCall(Call):
    """A request whose body may be JSON followed by tensors."""

    __slots__ = ()

    async def json(self) -> Any:
        """The JSON of the body, as `InferTensors`. Raises Rejected."""
        if self.headers.get("Content-Encoding", "identity") != "identity":
            raise invalid({"Content-Encoding": "not supported: send the body as it is"})
        body = await self.body()
        header = body[: self._json_bytes(len(body))]
        check_integers(header)
        return decode(header, InferTensors)

    async def binary(self) -> memoryview:
        """What follows the JSON."""
        body = await self.body()
        return memoryview(body)[self._json_bytes(len(body)) :]

    def _json_bytes(self, body_bytes: int) -> int:
        header = self.headers.get(JSON_LENGTH_HEADER)
        if header is None:
            return body_bytes
        is_number = header.isascii() and header.isdigit() and len(header) <= _LENGTH_DIGITS_MAX
        if not is_number or int(header) > body_bytes:
            raise invalid({JSON_LENGTH_HEADER: f"not a length within {body_bytes} bytes"})
        return int(header)


def inputs_of(request: InferTensors, binary: memoryview) -> dict[str, Any]:
    """Name -> nested lists. Raises Rejected."""
    inputs: dict[str, Any] = {}
    offset = 0
    for i, tensor in enumerate(request.inputs):
        path = f"inputs[{i}]"
        size = tensor.parameters.binary_data_size
        if tensor.name in inputs:
            raise invalid({f"{path}.name": "occurs twice"})
        if (size is None) == (tensor.data is None):
            raise invalid({path: "either `data` or `parameters.binary_data_size`"})
        if size is None:
            inputs[tensor.name] = from_json(tensor.data, tensor.datatype, tensor.shape, path=path)
            continue
        if size > len(binary) - offset:
            said = f"{len(binary) - offset} bytes are left of the body"
            raise invalid({f"{path}.parameters.binary_data_size": said})
        data = binary[offset : offset + size]
        inputs[tensor.name] = from_binary(data, tensor.datatype, tensor.shape, path=path)
        offset += size
    if offset != len(binary):
        raise invalid({"body": f"{len(binary) - offset} bytes belong to no input"})
    return inputs


def check_outputs(request: InferTensors) -> None:
    """Refuse what could not be answered before anything is executed. Raises Rejected."""
    if not isinstance(request.parameters.get("binary_data_output", False), bool):
        raise invalid({"parameters.binary_data_output": "not a boolean"})
    names = [output.name for output in request.outputs or ()]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise invalid({f"outputs[{i}].name": "occurs twice"})


def answer(
    request: InferTensors, outputs: Any, *, endpoint: str, version: str, request_id: str
) -> Response[Any]:
    """The answer, in the form that was asked for. Raises Rejected: `invalid` for an output that the
    version does not give, `runtime_failed` for one that is no tensor."""
    try:
        tensors = outputs_of(outputs)
        wanted = _wanted(request, tensors)
        blobs = [to_binary(tensor) for tensor, is_binary in wanted if is_binary]
        left = iter(blobs)
        described = [
            _described(tensor, next(left) if is_binary else None) for tensor, is_binary in wanted
        ]
    except (ValueError, OverflowError) as error:
        raise Rejected("runtime_failed", str(error)) from None
    header = msgspec.json.encode(
        InferredTensors(
            model_name=endpoint,
            model_version=version,
            id=request.id or request_id,
            outputs=described,
        )
    )
    if not blobs:
        return Response(header, media_type=_JSON)
    headers = {JSON_LENGTH_HEADER: str(len(header))}
    return Response(b"".join([header, *blobs]), media_type=_OCTETS, headers=headers)


def _wanted(request: InferTensors, tensors: Sequence[Tensor]) -> list[tuple[Tensor, bool]]:
    """The outputs in the order that was asked for, and whether in binary form."""
    binary = bool(request.parameters.get("binary_data_output", False))
    if not request.outputs:
        return [(tensor, binary) for tensor in tensors]
    given = {tensor.name: tensor for tensor in tensors}
    found: list[tuple[Tensor, bool]] = []
    for i, output in enumerate(request.outputs):
        tensor = given.get(output.name)
        if tensor is None:
            raise invalid({f"outputs[{i}].name": "the version gives no such output"})
        asked = output.parameters.binary_data
        found.append((tensor, binary if asked is None else asked))
    return found


def _described(tensor: Tensor, blob: bytes | None) -> ResponseOutput:
    return ResponseOutput(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        parameters={} if blob is None else {"binary_data_size": len(blob)},
        data=to_json(tensor) if blob is None else None,
    )
