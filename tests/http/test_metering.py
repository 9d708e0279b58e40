"""Metrics of inference: by version, and never more than there is room for."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from engine.runtimes.documents import Usage
from handlers.http import metering
from handlers.http.inference_ports import StreamedInference
from handlers.http.metering import HttpMetrics
from handlers.http.stream_times import StreamTimes
from tests.batching.fakes import Clock


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


class Began(msgspec.Struct, frozen=True):
    """As much of a stream as is counted."""

    version: str = "2.0.0"
    overhead_ms: float = 1.0


def streamed(metrics: HttpMetrics, code: str, *chunks: Any) -> None:
    clock = Clock()
    times = StreamTimes(0.0, clock=clock)
    for chunk in chunks:
        clock.now_s += 0.5
        times.chunk(chunk)
    metrics.streamed("acme", "chat", cast(StreamedInference, Began()), times, code)


def samples(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {sample: float(value) for sample, value in pairs if "_created" not in sample}


TWO = 'endpoint="chat",tenant="acme",version="2.0.0"'
CHUNKS = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("a", "b", "c")]
USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}


def test_a_stream_counts_its_first_token_the_others_and_what_it_used():
    registry = CollectorRegistry()
    streamed(HttpMetrics(registry), "ok", *CHUNKS, USAGE)
    told = samples(registry)
    first, token = "switchback_time_to_first_token", "switchback_time_per_output_token"
    assert told[f"{first}_seconds_sum{{{TWO}}}"] == 0.5
    assert told[f"{token}_seconds_sum{{{TWO}}}"] == 0.5
    for kind, count in (("prompt", 5), ("completion", 3)):
        sample = f'endpoint="chat",kind="{kind}",tenant="acme",version="2.0.0"'
        assert told[f"switchback_tokens_total{{{sample}}}"] == count
    assert told[f'switchback_inference_requests_total{{code="ok",{TWO}}}'] == 1


def test_a_stream_that_broke_counts_what_it_had_begun_by_its_code():
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    streamed(metrics, "runtime_failed", *CHUNKS)
    streamed(metrics, "left")
    told = samples(registry)
    assert told[f"switchback_time_to_first_token_seconds_count{{{TWO}}}"] == 1
    assert not any(name.startswith("switchback_time_per_output") for name in told)
    for code in ("runtime_failed", "left"):
        assert told[f'switchback_inference_requests_total{{code="{code}",{TWO}}}'] == 1


def test_an_answer_that_came_whole_counts_its_tokens():
    registry = CollectorRegistry()
    usage = Usage(prompt_tokens=4)
    HttpMetrics(registry).inferred("acme", "chat", "2.0.0", 0.001, usage)
    assert {name: n for name, n in samples(registry).items() if "_tokens_" in name} == {
        'switchback_tokens_total{endpoint="chat",kind="prompt",tenant="acme",version="2.0.0"}': 4
    }


def test_times_of_tokens_are_bounded_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metering, "SERIES_MAX", 2)
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        times = StreamTimes(0.0, clock=lambda: 1.0)
        for chunk in (*CHUNKS, USAGE):
            times.chunk(chunk)
        stream = cast(StreamedInference, Began(version=version))
        metrics.streamed("acme", "chat", stream, times, "ok")
    for name in ("time_to_first_token", "time_per_output_token"):
        assert scraped(registry, f"switchback_{name}_seconds_count") == {"2.0.0", "3.0.0"}
    assert scraped(registry, "switchback_tokens_total{") == {"3.0.0"}
