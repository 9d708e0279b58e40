"""The README's example does what it says, as it stands there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.system import System

README = Path(__file__).parent.parent / "README.md"


async def test_the_python_example_runs(
    system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    home = system.settings.data_dir
    home.rename(home.with_name(".switchback"))
    monkeypatch.chdir(home.parent)
    names: dict[str, object] = {}
    exec("async def example():\n" + textwrap.indent(example, "    "), names)
    await names["example"]()  # type: ignore[operator]
    assert "'valid': True" in capsys.readouterr().out
    assert (await system.client.endpoint("reader"))["active"] == "1.0.0"
