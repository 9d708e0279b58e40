"""A log carried from one installation to another, and messages on it that are none of ours."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest

from switchback.servers import addresses, own_servers
from switchback.settings import Settings
from tests.cli.running import Up, cli, done, running

pytestmark = pytest.mark.slow


def test_an_export_imported_elsewhere_is_the_same_log(up: Up, tmp_path: Path) -> None:
    file, again = tmp_path / "log.jsonl", tmp_path / "again.jsonl"
    exported = done("events", "export", file, "--json", "--data-dir", up.data_dir).json
    elsewhere = ("--data-dir", tmp_path / "elsewhere")
    imported = done("events", "import", file, "--json", *elsewhere).json
    assert exported["events"] == imported["events"] == len(file.read_bytes().splitlines())
    done("events", "export", again, *elsewhere)
    assert again.read_bytes() == file.read_bytes()
    refused = cli("events", "import", file, *elsewhere)
    assert refused.code == 1
    assert "already holds events" in refused.err


def test_an_export_does_not_overwrite(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("mine")
    ended = cli("events", "export", file, "--data-dir", up.data_dir)
    assert ended.code == 1
    assert file.read_text() == "mine"


def test_an_import_with_a_bad_line_writes_nothing(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    done("events", "export", file, "--data-dir", up.data_dir)
    file.write_bytes(file.read_bytes() + b"{}\n")
    elsewhere = ("--data-dir", tmp_path / "elsewhere")
    ended = cli("events", "import", file, *elsewhere)
    assert ended.code == 1
    assert f"line {len(file.read_bytes().splitlines())} of {file}" in ended.err
    exported = done("events", "export", tmp_path / "none.jsonl", "--json", *elsewhere).json
    assert exported["events"] == 0


async def test_doctor_lists_foreign_messages_with_position_and_subject(tmp_path: Path) -> None:
    with running(tmp_path):
        done("models", "register", "fraud", "--data-dir", tmp_path)
        client = await nats.connect(addresses(Settings(data_dir=tmp_path)).nats)
        ack = await client.jetstream().publish("evt.default.model.fraud", b"not an event")
        await client.close()
        ended = cli("doctor", "--json", "--data-dir", tmp_path)
    assert ended.code == 1
    (finding,) = [row for row in ended.json if row["part"] == "messages"]
    assert finding["state"] == "wrong"
    assert finding["position"] == ack.seq
    assert finding["subject"] == "evt.default.model.fraud"


async def test_doctor_names_the_setting_of_a_stream_that_is_not_as_declared(tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    # Changed behind our back, with servers of a verb that ended since.
    async with own_servers(Settings(data_dir=tmp_path)) as found:
        client = await nats.connect(found.nats)
        jetstream = client.jetstream()
        config = (await jetstream.stream_info("TRAFFIC")).config
        await jetstream.update_stream(config, max_msgs=10)
        await client.close()
    ended = cli("doctor", "--json", "--data-dir", tmp_path)
    assert ended.code == 1
    (finding,) = [row for row in ended.json if row["part"] == "streams"]
    assert "TRAFFIC" in finding["detail"]
    assert "max_msgs" in finding["detail"]
