"""vLLM's scheduler, in the environment that it needs to be imported."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

PYTHON: Final = Path(".peers/vllm/bin/python")
SCRIPT: Final = Path(__file__).with_name("vllm_steps.py")
SECONDS_MAX: Final = 300.0
_INSTALLED: Final = ".installed-*"


def is_vllm_there() -> bool:
    return any(PYTHON.parent.parent.glob(_INSTALLED))


def vllm_costs_us(steps: int, running: Sequence[int]) -> Mapping[int, float]:
    """Of a running request in a step, by how many run; empty where vLLM is not. Raises
    CalledProcessError, TimeoutExpired."""
    if not is_vllm_there():
        return {}
    finished = subprocess.run(
        [PYTHON, SCRIPT, str(steps), *map(str, running)],
        capture_output=True,
        check=True,
        timeout=SECONDS_MAX,
    )
    return msgspec.json.decode(finished.stdout.splitlines()[-1], type=dict[int, float])
