"""The process that user code runs in. Started as a script, by `engine.runtimes.python` alone.

Imports nothing of this project: it runs isolated (`-I`), with the artifact's directory in front of
`sys.path`. Frames on the socket are a length (4 bytes, big-endian) and a msgpack array:

- to here: [id, "warm" | "predict", inputs, parameters]
- from here: [id, "done", outputs, ""], or [id, "failed", error, stack trace], or the same with
  "memory" if there was not enough of it; id 0 tells, once, how loading went.

Each of `concurrency` threads reads a frame, computes and answers, then reads the next. End of file
ends the process, and so does the death of its parent, even while user code hangs.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import msgspec

_ERROR_CHARS_MAX = 1_000
_TRACE_CHARS_MAX = 8_000
_PR_SET_PDEATHSIG = 1


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """The one command-line argument, as JSON."""

    socket_fd: int
    parent_pid: int
    artifact: str
    factory: str
    concurrency: int
    memory_bytes_max: int
    files_max: int
    file_bytes_max: int
    frame_bytes_max: int


class NotFinite(ValueError):
    """Outputs with NaN or an infinity: JSON has neither, and no caller can use them."""


Verb = Callable[[Any, dict[str, Any]], Any]
Outcome = tuple[Literal["done", "failed", "memory"], Any, str]


class Connection:
    """Whole frames, in and out, shared by the threads."""

    def __init__(self, fd: int, frame_bytes_max: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._file = self._socket.makefile("rb")
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._frame_bytes_max = frame_bytes_max

    def read(self) -> bytes | None:
        """The next frame; None at the end."""
        with self._reading:
            length = self._file.read(4)
            if len(length) < 4:
                return None
            return self._file.read(int.from_bytes(length, "big"))

    def answer(self, id: int, outcome: Outcome) -> None:
        """Send the outcome, or why it cannot be sent."""
        frame = _encode(id, outcome)
        if len(frame) > self._frame_bytes_max:
            detail = f"outputs of {len(frame)} bytes; the limit is {self._frame_bytes_max}"
            frame = _encode(id, ("failed", detail, ""))
        with self._writing:
            self._socket.sendall(len(frame).to_bytes(4, "big") + frame)


def main(argument: str) -> None:
    arguments = msgspec.json.decode(argument, type=Arguments)
    die_with_parent(arguments.parent_pid)
    limit_resources(arguments)
    connection = Connection(arguments.socket_fd, arguments.frame_bytes_max)
    loaded = outcome_of(partial(load, arguments.artifact, arguments.factory))
    if loaded[0] != "done":
        connection.answer(0, loaded)
        return
    connection.answer(0, ("done", None, ""))
    serve_in_threads(connection, loaded[1], arguments.concurrency)


def die_with_parent(parent_pid: int) -> None:
    """Be killed when the parent dies, however that happens. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before we asked
        os._exit(1)


def limit_resources(arguments: Arguments) -> None:
    """Writable memory, open files, size of files, no core dumps."""
    for kind, limit in (
        (resource.RLIMIT_DATA, arguments.memory_bytes_max),
        (resource.RLIMIT_NOFILE, arguments.files_max),
        (resource.RLIMIT_FSIZE, arguments.file_bytes_max),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def load(artifact: str, factory: str) -> Any:
    """What the factory makes of the artifact: an object with `predict`, or a callable."""
    sys.path.insert(0, artifact)
    module, _, path = factory.partition(":")
    target: Any = importlib.import_module(module)
    for name in path.split("."):
        target = getattr(target, name)
    model = target(artifact)
    if not callable(getattr(model, "predict", model)):
        raise TypeError(f"{factory} returned neither a callable nor an object with predict()")
    return model


def serve_in_threads(connection: Connection, model: Any, concurrency: int) -> None:
    """Serve until the end of file; the main thread is one of the threads."""
    for _ in range(concurrency - 1):
        threading.Thread(target=serve, args=(connection, model), daemon=True).start()
    serve(connection, model)


def serve(connection: Connection, model: Any) -> None:
    verbs: dict[str, Verb] = {"warm": partial(warm, model), "predict": partial(predict, model)}
    while (frame := connection.read()) is not None:
        id, verb, inputs, parameters = msgspec.msgpack.decode(frame)
        connection.answer(id, outcome_of(partial(verbs[verb], inputs, parameters)))


def warm(model: Any, inputs: Any, parameters: dict[str, Any]) -> None:
    if hasattr(model, "warm"):
        model.warm()


def predict(model: Any, inputs: Any, parameters: dict[str, Any]) -> Any:
    return plain(getattr(model, "predict", model)(inputs, parameters))


def outcome_of(work: Callable[[], Any]) -> Outcome:
    """What came of user code, whatever it raised: not even SystemExit ends the process."""
    try:
        return "done", work(), ""
    except BaseException as error:
        trace = traceback.format_exc()[-_TRACE_CHARS_MAX:]
        return "memory" if isinstance(error, MemoryError) else "failed", describe(error), trace


def describe(error: BaseException) -> str:
    """Type and message, bounded."""
    try:
        message = str(error)
    except Exception as unspeakable:
        message = f"its message raised {type(unspeakable).__name__}"
    return f"{type(error).__name__}: {message}"[:_ERROR_CHARS_MAX].removesuffix(": ")


def plain(outputs: Any) -> Any:
    """Outputs as JSON can hold them: whatever has `tolist()` (arrays, scalars) becomes lists and
    numbers, keys become text. Raises TypeError on what has no such form, NotFinite on NaN."""
    value = msgspec.to_builtins(outputs, str_keys=True, enc_hook=_tolist)
    check_finite(value)
    return value


def _tolist(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"outputs hold {type(value).__name__}, which JSON cannot")


def check_finite(value: Any) -> None:
    """Raises NotFinite if there is a NaN or an infinity anywhere."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotFinite(f"outputs hold {value}, which JSON cannot")
    elif isinstance(value, dict | list | tuple):
        members: Iterable[Any] = value.values() if isinstance(value, dict) else value
        for member in members:
            check_finite(member)


def _encode(id: int, outcome: Outcome) -> bytes:
    try:
        return msgspec.msgpack.encode((id, *outcome))
    except Exception as error:
        return msgspec.msgpack.encode((id, "failed", describe(error), ""))


if __name__ == "__main__":
    main(sys.argv[1])
