"""`up` from its start to its end, however it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli.running import SWITCHBACK, cli, done, running

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_says_where_it_is_and_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as up:
        url = up.credentials.url
        assert up.said == [
            f"switchback listens on {url}\n",
            f"credentials are in {tmp_path}/credentials.json\n",
        ]
        assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
        assert httpx.get(f"{url}/readyz").status_code == 200
        servers = psutil.Process(up.process.pid).children(recursive=True)
        assert len(servers) >= 3
        assert up.stop(number) == 0
    assert psutil.wait_procs(servers, timeout=10)[1] == []


def test_a_signal_while_it_starts_stops_it(tmp_path: Path) -> None:
    command = [SWITCHBACK, "up", "--data-dir", str(tmp_path), "--port", "0"]
    starting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "nats" / "process.json").exists():  # its first server is running
        assert starting.poll() is None
    servers = psutil.Process(starting.pid).children(recursive=True)
    starting.terminate()
    said, _ = starting.communicate(timeout=60)
    assert starting.returncode == 0
    assert said == "stopping\n"
    assert psutil.wait_procs(servers, timeout=10)[1] == []


def test_everything_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    here = ("--data-dir", tmp_path)
    with running(tmp_path) as up:
        done("models", "register", "fraud", *here)
        done("versions", "register", "fraud", "1.0.0", "--runtime", "echo", *here)
        done("versions", "register", "fraud", "2.0.0", "--runtime", "echo", *here)
        done("endpoints", "create", "score", "fraud", "1.0.0", *here)
        swapped = done("swap", "score", "2.0.0", "--json", *here).json
        key = up.credentials.key
        up.kill()
    with running(tmp_path) as up:
        assert up.credentials.key == key
        endpoint = done("endpoints", "show", "score", "--json", *here).json
        assert endpoint["active"] == "2.0.0"
        assert endpoint["position"] == swapped["position"]
        done("rollback", "score", *here)
        done("verify", *here)


def test_two_data_directories_side_by_side_share_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "a") as a, running(tmp_path / "b") as b:
        done("models", "register", "only-in-a", "--data-dir", a.data_dir)
        in_a = done("models", "list", "--json", "--data-dir", a.data_dir).json
        in_b = done("models", "list", "--json", "--data-dir", b.data_dir).json
        assert [model["name"] for model in in_a] == ["only-in-a"]
        assert in_b == []
        strange = ("--url", b.credentials.url, "--key", a.credentials.key)
        assert "unauthenticated" in cli("models", "list", *strange).err


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = cli("up", "--data-dir", tmp_path, "--port", port)
    assert ended.code == 1
    assert str(port) in ended.err.splitlines()[-1]


def test_verbs_work_in_a_directory_whose_up_is_not_running(tmp_path: Path) -> None:
    here = ("--data-dir", tmp_path)
    with running(tmp_path):
        done("models", "register", "fraud", *here)
        done("versions", "register", "fraud", "1.0.0", "--runtime", "echo", *here)
    done("endpoints", "create", "score", "fraud", "1.0.0", *here)
    assert done("endpoints", "show", "score", "--json", *here).json["active"] == "1.0.0"
    assert done("history", "score", "--json", *here).json[0]["type"].endswith("created.v1")
    done("verify", *here)
    findings = {row["part"]: row["state"] for row in done("doctor", "--json", *here).json}
    assert findings["gateway"] == "note"
    assert "wrong" not in findings.values()
