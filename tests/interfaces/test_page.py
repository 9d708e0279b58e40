"""The examples of docs/interfaces.md, run as they stand."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.system import System

PAGE = Path(__file__).parent.parent.parent / "docs" / "interfaces.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", PAGE.read_text(), re.M | re.S)
SECONDS = 60.0


def test_each_interface_has_an_example():
    assert len(EXAMPLES) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "printed"), EXAMPLES, ids=["openai", "ofrep", "inference protocol"]
)
async def test_an_example_prints_what_the_page_says(
    served: System, tmp_path: Path, code: str, printed: str
):
    (tmp_path / ".switchback").symlink_to(served.settings.data_dir)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, error = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert (out.decode(), error.decode()) == (printed, "")
