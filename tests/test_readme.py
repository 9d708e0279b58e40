"""The README's examples do what it says, as they stand there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.cli.running import inside, running
from tests.system import System

README = (Path(__file__).parent.parent / "README.md").read_text()
SWITCHING, ASKING = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^\$ switchback (.*)$", README, flags=re.MULTILINE)


@pytest.fixture
def home(system: System, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the system's data directory is what the examples take it for."""
    data_dir = system.settings.data_dir
    data_dir.rename(data_dir.with_name(".switchback"))
    monkeypatch.chdir(data_dir.parent)
    return data_dir.parent


async def test_the_example_of_the_client_runs(
    system: System, home: Path, capsys: pytest.CaptureFixture[str]
):
    names: dict[str, object] = {}
    exec("async def example():\n" + textwrap.indent(SWITCHING, "    "), names)
    await names["example"]()  # type: ignore[operator]
    assert "'valid': True" in capsys.readouterr().out
    assert (await system.client.endpoint("reader"))["active"] == "1.0.0"


def test_the_language_model_is_registered_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with running(tmp_path / ".switchback"):
        assert COMMANDS
        for command in COMMANDS:
            ended = inside(*command.split())
            assert ended.code == 0, ended.err
        capsys.readouterr()
        exec(ASKING, {})
        assert capsys.readouterr().out.strip() == "Paris."
