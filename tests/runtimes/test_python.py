"""Python versions in real processes: what they answer, how they fail, what they may not do."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from engine.runtimes import LoadFailed, Runtime, RuntimeFailed
from tests.runtimes.conftest import MakeVersion, Start

ECHO = """
    def make(directory):
        return lambda inputs, parameters: {"inputs": inputs, "parameters": parameters}
"""
PROBE = """
    import ctypes, math, os, sys, threading
    import numpy as np

    class Odd(Exception):
        def __str__(self):
            raise ValueError

    class Model:
        def predict(self, inputs, parameters):
            return getattr(self, inputs)(parameters)
        def environment(self, _): return dict(os.environ)
        def numpy(self, _):
            return {"array": np.arange(4.0).reshape(2, 2), "float": np.float64(0.5),
                    "int": np.int32(7), "bool": np.bool_(True), "inner": [np.array(["a"])], 3: 1}
        def nan(self, _): return {"deep": [1.0, float("nan")]}
        def numpy_infinity(self, _): return np.array([1.0, np.inf])
        def strange(self, _): return object()
        def loop(self, _):
            loop = []
            loop.append(loop)
            return loop
        def big_number(self, _): return 2**70
        def large(self, _): return "x" * 2**21
        def error(self, _): raise ValueError("no such customer")
        def long_error(self, _): raise ValueError("x" * 10**6)
        def odd_error(self, _): raise Odd
        def leave(self, _): sys.exit(3)
        def memory(self, _): return len(b"1" * 2**30)
        def files(self, _):
            return [open("/dev/null") for _ in range(200)] and None
        def file(self, _):
            with open("large", "wb") as file: file.write(b"1" * 2**21)
        def where(self, _): return os.getcwd()
        def die(self, _): os._exit(7)
        def crash(self, _): ctypes.string_at(0)
        def hang(self, _): threading.Event().wait()
        def child(self, _):
            import subprocess
            return subprocess.Popen(["sleep", "600"]).pid
        def pid(self, _): return os.getpid()
        def limits(self, _):
            import resource
            return [resource.getrlimit(resource.RLIMIT_CORE)]

    def make(directory):
        return Model()
"""


def ended(process: int) -> bool:
    """Waits for the end of a process, given by its pidfd."""
    readable, _, _ = select.select([process], [], [], 30)
    os.close(process)
    return bool(readable)


def exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - a plain function, for tests that are coroutines


async def loaded(runtime: Runtime) -> Runtime:
    await runtime.load()
    await runtime.warm()
    return runtime


async def test_a_callable_answers(python_version: MakeVersion, start: Start) -> None:
    runtime = await loaded(start(python_version(ECHO)))
    outputs = await runtime.infer({"a": [1, 2.5, None, "ü"]}, {"k": 1})
    assert outputs == {"inputs": {"a": [1, 2.5, None, "ü"]}, "parameters": {"k": 1}}


async def test_the_factory_gets_the_artifact_and_is_called_once(
    python_version: MakeVersion, start: Start, root: Path
) -> None:
    source = """
        from pathlib import Path
        calls = []
        def make(directory):
            calls.append(directory)
            weights = Path(directory, "model.py").stat().st_size
            return lambda inputs, parameters: [calls, weights]
    """
    runtime = await loaded(start(python_version(source)))
    directory = root / "version"
    for _ in range(2):
        outputs = await runtime.infer(None, {})
        assert outputs == [[str(directory)], (directory / "model.py").stat().st_size]


async def test_warming_calls_the_versions_own_warm(
    python_version: MakeVersion, start: Start
) -> None:
    source = """
        class Model:
            warmed = 0
            def warm(self): self.warmed += 1
            def predict(self, inputs, parameters): return self.warmed
        def make(directory): return Model()
    """
    runtime = start(python_version(source))
    await runtime.load()
    assert await runtime.infer(None, {}) == 0
    await runtime.warm()
    assert await runtime.infer(None, {}) == 1


async def test_every_request_in_flight_gets_its_own_answer(
    python_version: MakeVersion, start: Start
) -> None:
    runtime = await loaded(start(python_version(ECHO, concurrency=4)))
    answers = await asyncio.gather(*(runtime.infer(i, {}) for i in range(1_000)))
    assert [answer["inputs"] for answer in answers] == list(range(1_000))


async def test_with_concurrency_requests_are_computed_at_the_same_time(
    python_version: MakeVersion, start: Start
) -> None:
    source = """
        import threading
        both = threading.Barrier(2)
        def make(directory):
            return lambda inputs, parameters: both.wait() >= 0
    """
    runtime = await loaded(start(python_version(source, concurrency=2)))
    assert await asyncio.gather(*(runtime.infer(None, {}) for _ in range(2))) == [True, True]


async def test_arrays_and_scalars_become_plain(python_version: MakeVersion, start: Start) -> None:
    runtime = await loaded(start(python_version(PROBE)))
    assert await runtime.infer("numpy", {}) == {
        "array": [[0.0, 1.0], [2.0, 3.0]],
        "float": 0.5,
        "int": 7,
        "bool": True,
        "inner": [["a"]],
        "3": 1,
    }


@pytest.mark.parametrize(
    ("inputs", "detail"),
    [
        ("nan", "NotFinite: outputs hold nan, which JSON cannot"),
        ("numpy_infinity", "NotFinite: outputs hold inf, which JSON cannot"),
        ("strange", "TypeError: outputs hold object, which JSON cannot"),
        ("loop", "RecursionError: .*"),
        ("big_number", "OverflowError: .*"),
        ("large", "outputs of 2097.* bytes; the limit is 1048576"),
        ("error", "ValueError: no such customer"),
        ("long_error", "ValueError: x{900,1000}"),
        ("odd_error", "Odd: its message raised ValueError"),
        ("leave", "SystemExit: 3"),
        ("memory", "MemoryError"),
        ("files", "OSError: .*Too many open files.*"),
        ("file", "OSError: .*File too large.*"),
    ],
)
async def test_a_failure_is_told_by_type_and_message_and_the_version_goes_on(
    python_version: MakeVersion, start: Start, inputs: str, detail: str
) -> None:
    runtime = await loaded(start(python_version(PROBE)))
    with pytest.raises(RuntimeFailed, match=rf"\A{detail}\Z") as caught:
        await runtime.infer(inputs, {})
    assert "Traceback" not in caught.value.detail
    assert await runtime.infer("pid", {})


async def test_no_variable_of_this_process_is_seen(
    python_version: MakeVersion, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    runtime = await loaded(start(python_version(PROBE)))
    environment = await runtime.infer("environment", {})
    assert set(environment) == {
        *("PATH", "LANG", "HOME", "TMPDIR"),
        *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    }


async def test_it_works_in_a_directory_of_its_own_that_is_removed(
    python_version: MakeVersion, start: Start, root: Path
) -> None:
    runtime = await loaded(start(python_version(PROBE)))
    directory = await runtime.infer("where", {})
    assert exists(directory)
    assert not Path(directory).is_relative_to(root)
    await runtime.close()
    assert not exists(directory)


async def test_loading_leaves_the_artifact_as_it_was(
    python_version: MakeVersion, start: Start, root: Path
) -> None:
    registered = python_version("import helper\nmake = helper.make", name="two")
    (root / "two" / "helper.py").write_text("def make(directory):\n    return lambda i, p: 'new'")
    registered = python_version("import helper\nmake = helper.make", name="two")
    await loaded(start(registered))
    assert sorted(path.name for path in (root / "two").iterdir()) == ["helper.py", "model.py"]


async def test_bytecode_beside_the_sources_is_not_executed(
    python_version: MakeVersion, start: Start, root: Path
) -> None:
    """The digest does not cover it."""
    import py_compile

    source = root / "planted" / "model.py"
    source.parent.mkdir()
    source.write_text("def make(directory):\n    return lambda i, p: 'planted'")
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert list(source.parent.glob("__pycache__/*.pyc"))
    registered = python_version(
        "def make(directory):\n    return lambda i, p: 'ours'", name="planted"
    )
    runtime = await loaded(start(registered))
    assert await runtime.infer(None, {}) == "ours"


@pytest.mark.parametrize(("inputs", "ending"), [("die", "status 7"), ("crash", "SIGSEGV")])
async def test_a_crash_fails_what_is_in_flight_and_is_told(
    python_version: MakeVersion, start: Start, inputs: str, ending: str
) -> None:
    runtime = await loaded(start(python_version(PROBE, concurrency=2)))
    answers = await asyncio.gather(
        runtime.infer("hang", {}), runtime.infer(inputs, {}), return_exceptions=True
    )
    assert all(isinstance(answer, RuntimeFailed) for answer in answers)
    assert ending in await runtime.failed()
    with pytest.raises(RuntimeFailed, match=ending):
        await runtime.infer("pid", {})
    assert await runtime.memory_bytes() == 0


async def test_killed_from_outside_it_says_so(python_version: MakeVersion, start: Start) -> None:
    runtime = await loaded(start(python_version(PROBE)))
    os.kill(await runtime.infer("pid", {}), signal.SIGKILL)
    assert "SIGKILL" in await runtime.failed()


async def test_a_cancelled_request_leaves_the_others_alone(
    python_version: MakeVersion, start: Start
) -> None:
    runtime = await loaded(start(python_version(PROBE, concurrency=2)))
    hanging = asyncio.create_task(runtime.infer("hang", {}))
    await runtime.infer("pid", {})
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert await runtime.infer("pid", {})


async def test_closing_ends_the_process_its_children_and_what_hangs(
    python_version: MakeVersion, start: Start
) -> None:
    runtime = await loaded(start(python_version(PROBE, concurrency=2)))
    process = os.pidfd_open(await runtime.infer("pid", {}))
    child = os.pidfd_open(await runtime.infer("child", {}))
    hanging = asyncio.create_task(runtime.infer("hang", {}))
    await runtime.infer("pid", {})
    await runtime.close()
    with pytest.raises(RuntimeFailed, match="closed"):
        await hanging
    assert ended(process)
    assert ended(child)
    await runtime.close()


async def test_it_dies_with_this_process_even_while_it_hangs(
    python_version: MakeVersion, root: Path
) -> None:
    """A node is killed: what it ran must not stay behind and hold memory."""
    registered = python_version(PROBE, concurrency=2)
    script = """
import asyncio, sys
from pathlib import Path
import msgspec
from engine.runtimes import RuntimeSettings, create_runtime
from events.catalogue.models import VersionRegistered

async def main():
    registered = msgspec.json.decode(sys.argv[1], type=VersionRegistered)
    settings = RuntimeSettings(artifact_roots=(Path(sys.argv[2]),), python_enabled=True)
    runtime = create_runtime(registered, settings)
    await runtime.load()
    hanging = asyncio.create_task(runtime.infer("hang", {}))
    print(await runtime.infer("pid", {}), flush=True)
    await hanging

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, msgspec.json.encode(registered).decode(), str(root)),
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    process = os.pidfd_open(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()
    assert ended(process)


async def test_memory_is_that_of_the_process(python_version: MakeVersion, start: Start) -> None:
    source = """
        def make(directory):
            kept = []
            def predict(inputs, parameters):
                kept.append(b"1" * inputs)
            return predict
    """
    runtime = await loaded(start(python_version(source)))
    before = await runtime.memory_bytes()
    assert before > 2**20
    await runtime.infer(100 * 2**20, {})
    assert 95 * 2**20 < await runtime.memory_bytes() - before < 105 * 2**20


async def test_inputs_that_cannot_be_handed_over_are_refused(
    python_version: MakeVersion, start: Start
) -> None:
    runtime = await loaded(start(python_version(ECHO)))
    with pytest.raises(RuntimeFailed, match="the limit is 1048576"):
        await runtime.infer("x" * 2**21, {})
    with pytest.raises(RuntimeFailed, match="cannot be handed over"):
        await runtime.infer(2**70, {})
    assert (await runtime.infer("x", {}))["inputs"] == "x"


# -------------------------------------------------------------------------------------- Loading


@pytest.mark.parametrize(
    ("source", "reason", "detail"),
    [
        ("import no_such_module", "runtime", "ModuleNotFoundError: .*no_such_module.*"),
        ("def make(: pass", "runtime", "SyntaxError: .*"),
        ("x = 1", "runtime", "AttributeError: .*make.*"),
        ("def make(directory): raise OSError('weights')", "runtime", "OSError: weights"),
        ("def make(directory): return 5", "runtime", "TypeError: model:make returned neither.*"),
        ("def make(directory): return b'1' * 2**30", "memory", "MemoryError"),
        ("import os; os._exit(9)", "runtime", ".*status 9"),
        ("raise SystemExit", "runtime", "SystemExit"),
    ],
)
async def test_a_version_that_cannot_load_says_why(
    python_version: MakeVersion, start: Start, source: str, reason: str, detail: str
) -> None:
    runtime = start(python_version(source))
    with pytest.raises(LoadFailed) as caught:
        await runtime.load()
    assert caught.value.reason == reason
    assert re.fullmatch(detail, caught.value.detail)


async def test_files_that_changed_since_they_were_registered_do_not_load(
    python_version: MakeVersion, start: Start, root: Path
) -> None:
    registered = python_version(ECHO)
    source = root / "version" / "model.py"
    source.write_bytes(source.read_bytes().replace(b"make", b"fake"))
    with pytest.raises(LoadFailed) as caught:
        await start(registered).load()
    assert caught.value.reason == "digest"


async def test_an_artifact_that_is_gone_does_not_load(
    python_version: MakeVersion, start: Start, root: Path
) -> None:
    registered = python_version(ECHO)
    (root / "version").rename(root / "elsewhere")
    with pytest.raises(LoadFailed) as caught:
        await start(registered).load()
    assert caught.value.reason == "artifact"


async def test_a_load_that_is_given_up_leaves_no_process(
    python_version: MakeVersion, start: Start, tmp_path: Path
) -> None:
    fifo = tmp_path / "pid"
    os.mkfifo(fifo)
    runtime = start(
        python_version(f"""
        import os, threading
        with open({str(fifo)!r}, "w") as told:
            told.write(str(os.getpid()))
        threading.Event().wait()
    """)
    )
    loading = asyncio.create_task(runtime.load())
    process = os.pidfd_open(int(await asyncio.to_thread(fifo.read_text)))
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await runtime.close()
    assert ended(process)
