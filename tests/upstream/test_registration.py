"""What a version on an upstream may look like is decided when it is registered."""

from __future__ import annotations

from typing import Any

import pytest

from engine.decisions.registration import version_problems
from events.catalogue.models import VersionRegistered

URL = "http://127.0.0.1:8000/v1"


def problems(**config: Any) -> dict[str, str]:
    version = VersionRegistered(version="1.0.0", runtime="upstream", config=config)
    return version_problems(version)


@pytest.mark.parametrize("url", [URL, "https://models.example", "http://[::1]:8000/v1"])
def test_an_address_and_a_name_are_enough(url: str) -> None:
    assert problems(url=url, model="small") == {}


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"model": "small"}, "config.url"),
        ({"url": URL}, "config.model"),
        ({"url": "ftp://x/v1", "model": "small"}, "config.url"),
        ({"url": "http://x:0/v1", "model": "small"}, "config.url"),
        ({"url": "http://me:secret@x/v1", "model": "small"}, "config.url"),
        ({"url": f"{URL}?key=secret", "model": "small"}, "config.url"),
        ({"url": URL, "model": "small", "api_key": "sk-secret"}, "config.api_key"),
        ({"url": URL, "model": "small", "api_key_env": "sk-secret"}, "config.api_key_env"),
        ({"url": URL, "model": "small", "timeout_s": 0}, "config.timeout_s"),
        ({"url": URL, "model": "small", "in_flight_max": 0}, "config.in_flight_max"),
    ],
)
def test_what_cannot_be_called_is_refused_with_its_place(config: dict[str, Any], path: str) -> None:
    found = problems(**config)
    assert list(found) == [path]
    assert "secret" not in found[path]
