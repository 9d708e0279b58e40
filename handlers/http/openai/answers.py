"""Documents of OpenAI's protocol, out of whatever a version answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from engine.runtimes.documents import ENVELOPE, Kind, Usage
from handlers.http.problems import invalid

_TEXT_MEMBERS: Final = ("text", "answer")
"""Of an object that is no document, the first that is a text is what it says."""


class Form(NamedTuple):
    """How the documents of a kind are named."""

    prefix: str
    """Of ids."""
    whole: str
    chunk: str


FORMS: Final[dict[Kind, Form]] = {
    "chat": Form("chatcmpl-", "chat.completion", "chat.completion.chunk"),
    "text": Form("cmpl-", "text_completion", "text_completion"),
}


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to every document, or chunk, of one answer."""

    id: str
    object: str
    created: int
    """Seconds since 1970."""
    model: str
    """The endpoint."""


class Completion(Envelope, frozen=True, kw_only=True):
    """The answer to a chat or a text, with whatever else the version tells."""

    choices: list[Any]
    usage: Usage | None = None


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to what was to be embedded, with whatever else the version tells."""

    object: str
    data: list[Any]
    model: str
    """The endpoint."""
    usage: Usage | None = None


def completion(kind: Kind, outputs: Any, envelope: Envelope) -> dict[str, Any]:
    """The whole answer. Outputs that are no document become the text of one."""
    document = outputs if _is_document(outputs) else _document(kind, text_of(outputs))
    return _enveloped(document, msgspec.to_builtins(envelope))


def embeddings(outputs: Any, *, endpoint: str) -> dict[str, Any]:
    """Raises Rejected (`invalid`) for a version that gives none."""
    if not isinstance(outputs, dict) or not isinstance(outputs.get("data"), list):
        raise invalid({"model": f"the version of {endpoint!r} gives no embeddings"})
    return _enveloped(outputs, {"object": "list", "model": endpoint})


def chunks_of(kind: Kind, answered: Any) -> Iterator[dict[str, Any]]:
    """The chunks of what a version gave to a stream: a chunk is itself, a whole answer becomes
    what is said and then its end."""
    if not _is_document(answered):
        answered = _document(kind, text_of(answered))
    choices = answered["choices"]
    if kind != "chat" or not all(_is_whole(choice) for choice in choices):
        yield answered
        return
    yield answered | {"choices": [_said(choice) for choice in choices], "usage": None}
    yield answered | {"choices": [_ended(choice) for choice in choices]}


def is_chunk(answered: Any) -> bool:
    """Whether `chunks_of` has nothing to do."""
    if type(answered) is not dict:
        return False
    choices = answered.get("choices")
    return type(choices) is list and not (choices and _is_whole(choices[0]))


def text_of(outputs: Any) -> str:
    """What outputs say that are no document: their text, or themselves as JSON."""
    if isinstance(outputs, str):
        return outputs
    if isinstance(outputs, dict):
        for name in _TEXT_MEMBERS:
            if isinstance(outputs.get(name), str):
                return str(outputs[name])
    return msgspec.json.encode(outputs).decode()


def _is_document(outputs: Any) -> bool:
    return isinstance(outputs, dict) and isinstance(outputs.get("choices"), list)


def _is_whole(choice: Any) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("message"), dict)


def _document(kind: Kind, text: str) -> dict[str, Any]:
    said: dict[str, Any] = {"text": text}
    if kind == "chat":
        said = {"message": {"role": "assistant", "content": text, "refusal": None}}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "stop"}
    return {"choices": [choice], "usage": msgspec.structs.asdict(Usage())}


def _enveloped(document: dict[str, Any], envelope: dict[str, Any]) -> dict[str, Any]:
    """The envelope comes first, and wins."""
    others = {name: each for name, each in document.items() if name not in ENVELOPE}
    return envelope | others


def _said(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    if isinstance(message.get("tool_calls"), list):
        calls = [_indexed(i, call) for i, call in enumerate(message["tool_calls"])]
        message = message | {"tool_calls": calls}
    others = {name: each for name, each in choice.items() if name != "message"}
    return others | {"delta": message, "finish_reason": None}


def _indexed(index: int, call: Any) -> Any:
    return {"index": index} | call if isinstance(call, dict) else call


def _ended(choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "index": choice.get("index", 0),
        "delta": {},
        "logprobs": None,
        "finish_reason": choice.get("finish_reason") or "stop",
    }
