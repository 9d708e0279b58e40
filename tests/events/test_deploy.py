"""Acknowledged means on disk: in every configuration we ship or render, and as seen by strace."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import nats
import pytest
import pytest_asyncio

from events import EntityId
from events.jetstream import JetStream
from switchback.embedded import NatsServer
from switchback.embedded.nats import nats_server_binary
from tests.events.examples import FRAUD, first, moved, registered
from tests.events.servers import ask

DEPLOY = Path(__file__).parents[2] / "deploy" / "nats"
ROLES = ("gateway", "projector", "reactor", "node", "operator")
PASSWORDS = {f"NATS_{role.upper()}_PASSWORD": f"{role}-password" for role in ROLES}


def syncs_always(text: str) -> bool:
    """Whether a server configuration, of either notation, has JetStream and fsyncs every write."""
    settings = re.findall(r"^[^#\n]*?\"?sync_interval\"?\s*[:=]\s*\"?(\w+)", text, re.MULTILINE)
    return settings == ["always"]


@pytest.mark.parametrize("text", ["jetstream {}", "# sync_interval: always", 'sync_interval: "2m"'])
def test_a_configuration_that_does_not_sync_is_noticed(text: str) -> None:
    assert not syncs_always(text)


def test_every_shipped_server_configuration_syncs_always() -> None:
    configurations = [
        path for path in DEPLOY.rglob("*.conf") if "jetstream" in path.read_text().split()
    ]
    assert configurations
    for path in configurations:
        assert syncs_always(path.read_text()), path


async def test_every_embedded_server_syncs_always(
    nats_server: NatsServer, nats_three: list[NatsServer]
) -> None:
    for server in (nats_server, *nats_three):
        assert syncs_always((server.directory / "nats.json").read_text())


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """A self-signed certificate, as the environment names it."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=nats-1", "-keyout", key, "-out", cert),
        ],
        check=True,
        capture_output=True,
    )
    return {"NATS_TLS_CERT": str(cert), "NATS_TLS_KEY": str(key), "NATS_TLS_CA": str(cert)}


def test_the_server_accepts_the_production_configuration(
    tmp_path: Path, certificate: dict[str, str]
) -> None:
    environment = {
        **os.environ,
        **certificate,
        **PASSWORDS,
        "NATS_SERVER_NAME": "n1",
        "NATS_STORE_DIR": str(tmp_path / "store"),
    }
    command = [nats_server_binary(), "-t", "-c", str(DEPLOY / "nats.conf")]
    checked = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    del environment["NATS_GATEWAY_PASSWORD"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "NATS_GATEWAY_PASSWORD" in refused.stdout + refused.stderr
    assert refused.returncode != 0


class RoleServer(NatsServer):
    """One embedded server with the users of production."""

    def _prepare(self) -> list[str]:
        command = super()._prepare()
        users = (DEPLOY / "users.conf").read_text()
        for name, password in PASSWORDS.items():
            users = users.replace(f"${name}", f'"{password}"')
        (self.directory / "users.conf").write_text(users)
        configuration = json.loads((self.directory / "nats.json").read_text())
        del configuration["authorization"]
        lines = [f"{name}: {json.dumps(value)}" for name, value in configuration.items()]
        path = self.directory / "roles.conf"
        path.write_text("\n".join([*lines, "include ./users.conf", ""]))
        return [command[0], "-c", str(path)]

    async def _ready(self) -> bool:
        try:
            client = await nats.connect(self.as_role("operator"), allow_reconnect=False)
        except (OSError, nats.errors.Error):
            return False
        await client.close()
        return True

    def as_role(self, role: str) -> str:
        return f"nats://{role}:{role}-password@127.0.0.1:{self.identity.port}"


@pytest_asyncio.fixture(scope="module")
async def role_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RoleServer]:
    async with RoleServer(tmp_path_factory.mktemp("roles") / "nats") as server:
        async with JetStream.connect(server.as_role("reactor")):
            pass  # creates the streams
        yield server


async def test_roles_can_do_their_work(role_server: RoleServer) -> None:
    async def echo(subject: str, payload: bytes) -> bytes:
        return payload

    async with (
        JetStream.connect(role_server.as_role("gateway")) as gateway,
        JetStream.connect(role_server.as_role("projector")) as projector,
        JetStream.connect(role_server.as_role("reactor")) as reactor,
        JetStream.connect(role_server.as_role("node")) as node,
    ):
        await gateway.events.append(FRAUD, [registered(), moved("1")], expected=0)
        machine = EntityId("system", "node", "n1")
        await node.events.append(machine, [moved("1")], expected=0)
        assert len(await first(projector.events, 3)) == 3
        assert len([r async for r in projector.events.read(FRAUD)]) == 2
        await node.bus.serve("inf.acme.fraud", echo, queue="nodes")
        assert await gateway.bus.request("inf.acme.fraud", b"x", timeout_s=5) == b"x"
        lease = await node.leases.acquire("node.n1", holder="n1")
        assert lease is not None
        assert list(await reactor.leases.held("node")) == ["node.n1"]
        await node.leases.release(lease)
        await reactor.timers.set("hold.acme.chat", due=datetime.now(UTC), payload=b"")
        async for wake in reactor.timers.wakes("hold"):
            await wake.done()
            break
        await reactor.timers.cancel("hold.acme.chat")


async def test_roles_can_do_nothing_else(role_server: RoleServer) -> None:
    for role in ("gateway", "projector", "reactor", "node"):
        client = await nats.connect(role_server.as_role(role), error_cb=_ignore)
        for call in ("STREAM.DELETE.EVENTS", "STREAM.PURGE.EVENTS", "STREAM.UPDATE.EVENTS"):
            with pytest.raises(nats.errors.TimeoutError):
                await client.request(f"$JS.API.{call}", b"", timeout=0.1)
        await client.close()
    entity = EntityId("acme", "model", "intruder")
    for role in ("projector", "node"):
        client = await nats.connect(role_server.as_role(role), error_cb=_ignore)
        with pytest.raises(nats.errors.TimeoutError):
            await client.request(entity.subject, b"", timeout=0.1)
        await client.close()
    operator = await nats.connect(role_server.as_role("operator"))
    assert "error" in await ask(operator, "STREAM.PURGE.EVENTS")
    await operator.close()


async def _ignore(error: Exception) -> None:
    """A refusal by permission is what is being tested."""


@pytest.mark.slow
async def test_every_single_append_is_one_fsync(tmp_path: Path) -> None:
    """Seen from outside, by strace. With the default configuration there is none."""
    assert await _fsyncs(tmp_path / "ours", NatsServer) >= 50
    assert await _fsyncs(tmp_path / "default", LazyServer) < 50


class LazyServer(NatsServer):
    """The negative control: NATS as it comes."""

    def _configuration(self) -> dict[str, object]:
        configuration = super()._configuration()
        configuration["jetstream"] = {"store_dir": str(self.directory / "store")}
        return configuration


async def _fsyncs(directory: Path, kind: type[NatsServer]) -> int:
    """How many fsyncs the server does while it acknowledges fifty appends."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = directory.with_suffix(".strace")
    async with kind(directory) as server, JetStream.connect(server.url) as jetstream:
        await jetstream.events.append(FRAUD, [registered()], expected=0)
        tracer = await asyncio.create_subprocess_exec(
            *(strace, "-f", "-e", "trace=fsync,fdatasync", "-o", str(trace)),
            *("-p", str(server.pid)),
            stderr=asyncio.subprocess.PIPE,
        )
        assert tracer.stderr is not None
        attached = await tracer.stderr.readline()
        if b"attached" not in attached:
            pytest.skip(f"strace cannot attach: {attached.decode(errors='replace')}")
        for n in range(50):
            entity = EntityId("acme", "model", f"m{n}")
            await jetstream.events.append(entity, [moved("1")], expected=0)
        tracer.send_signal(signal.SIGINT)
        await tracer.wait()
    return len(re.findall(r"fsync\(|fdatasync\(", trace.read_text()))
