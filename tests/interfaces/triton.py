"""The official Triton client, as the tests use it."""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from tests.interfaces.blocking import OneThread


class Triton:
    """The client, in a thread of its own, with a key."""

    def __init__(self, client: InferenceServerClient, thread: OneThread, key: str) -> None:
        self._client = client
        self._thread = thread
        self._headers = {"Authorization": f"Bearer {key}"}

    async def call(self, verb: str, *args: Any, **more: Any) -> Any:
        headers = self._headers | more.pop("headers", {})
        return await self._thread(getattr(self._client, verb), *args, headers=headers, **more)

    async def infer(self, model: str, inputs: list[InferInput], **more: Any) -> InferResult:
        result: InferResult = await self.call("infer", model, inputs, **more)
        return result

    async def refused(self, verb: str, *args: Any, **more: Any) -> InferenceServerException:
        with pytest.raises(InferenceServerException) as caught:
            await self.call(verb, *args, **more)
        return caught.value


def an_input(name: str, values: Any, datatype: str, *, binary: bool = True) -> InferInput:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def a_request(**more: Any) -> dict[str, Any]:
    """What a plain client sends."""
    return {"inputs": [{"name": "x", "shape": [1], "datatype": "INT32", "data": [1]}], **more}
