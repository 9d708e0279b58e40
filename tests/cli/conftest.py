"""One running `up` for the verbs that only ask or that do not disturb each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.running import Up, done, running


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """With model `fraud`, two versions, endpoint `score` that was swapped and rolled back, and
    endpoint `rolled` that a rollout moved."""
    with running(tmp_path_factory.mktemp("up") / "data") as up:
        here = ("--data-dir", up.data_dir)
        done("models", "register", "fraud", "--description", "Card fraud", *here)
        for version in ("1.0.0", "2.0.0"):
            answer = f'{{"answer": "{version}"}}'
            register = ("versions", "register", "fraud", version, "--runtime", "echo")
            done(*register, "--config", answer, *here)
        done("models", "alias", "fraud", "production", "1.0.0", *here)
        done("endpoints", "create", "score", "fraud", "1.0.0", *here)
        done("swap", "score", "2.0.0", *here)
        done("rollback", "score", "--reason", "complaints", *here)
        done("endpoints", "create", "rolled", "fraud", "1.0.0", *here)
        done("rollout", "start", "rolled", "2.0.0", *here)
        done("rollout", "promote", "rolled", "--full", *here)
        yield up
