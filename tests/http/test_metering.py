"""Metrics of inference: by version, and never more than there is room for."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from handlers.http import metering
from handlers.http.metering import HttpMetrics


def scraped(registry: CollectorRegistry, name: str) -> set[str]:
    """The versions that a family tells of."""
    lines = generate_latest(registry).decode().splitlines()
    return {line.split('version="')[1].split('"')[0] for line in lines if line.startswith(name)}


def test_of_too_many_versions_those_not_asked_for_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metering, "SERIES_MAX", 2)
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    for version in ("1.0.0", "2.0.0", "1.0.0", "3.0.0"):
        metrics.inferred("acme", "chat", version, 0.001)
    assert scraped(registry, "switchback_inference_requests_total{") == {"1.0.0", "3.0.0"}
    assert scraped(registry, "switchback_inference_overhead_seconds_count") == {"1.0.0", "3.0.0"}


def test_a_failure_is_counted_at_its_version_by_its_code():
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    metrics.inference_failed("acme", "chat", "2.0.0", "timeout")
    metrics.inference_failed("acme", "none", "", "not_found")
    text = generate_latest(registry).decode()
    assert 'code="timeout",endpoint="chat",tenant="acme",version="2.0.0"} 1.0' in text
    assert "none" not in text
