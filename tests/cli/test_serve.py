"""Roles as processes of their own, against servers that were there before."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from switchback.client.credentials import read_credentials
from tests.cli.running import SWITCHBACK, cli, done

pytestmark = pytest.mark.slow

SECRET = "a secret that all gateways of a system share"


@pytest.fixture
def external(nats_url: str, postgres_dsn: str, redis_url: str) -> dict[str, str]:
    """Settings that name the session's servers."""
    return {
        "SWITCHBACK_NATS_URL": nats_url,
        "SWITCHBACK_POSTGRES_DSN": postgres_dsn,
        "SWITCHBACK_REDIS_URL": redis_url,
        "SWITCHBACK_SECRET": SECRET,
        "SWITCHBACK_NODE_MEMORY_BYTES": str(64 * 1024 * 1024),
    }


@contextmanager
def serving(external: dict[str, str], *arguments: object) -> Iterator[str]:
    """A `serve`; gives the line it says when it is ready."""
    process = subprocess.Popen(
        [SWITCHBACK, "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **external},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


async def test_roles_in_processes_of_their_own_are_one_system(
    external: dict[str, str], tmp_path: Path
) -> None:
    here = ("--data-dir", tmp_path / "first")
    done("keys", "list", "default", *here, **external)  # the first verb makes the first key
    key = read_credentials(tmp_path / "first").key
    others = ("projector", "reactor", "node", "--data-dir", tmp_path / "others")
    gateway = ("gateway", "--port", "0", "--data-dir", tmp_path / "gateway")
    with serving(external, *others) as line, serving(external, *gateway) as gateway_line:
        assert line == "serving projector, reactor, node\n"
        found = re.fullmatch(r"serving gateway on (http://\S+)\n", gateway_line)
        assert found is not None
        at = ("--url", found[1], "--key", key)
        done("models", "register", "fraud", *at)
        for version in ("1.0.0", "2.0.0"):
            done("versions", "register", "fraud", version, "--runtime", "echo", *at)
        done("endpoints", "create", "score", "fraud", "1.0.0", *at)
        assert done("swap", "score", "2.0.0", "--json", *at).json["state"] == "completed"
        assert done("endpoints", "show", "score", "--json", *at).json["active"] == "2.0.0"
    findings = cli("doctor", "--json", *here, **external).json
    assert "wrong" not in {finding["state"] for finding in findings}
