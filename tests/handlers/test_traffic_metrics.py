"""What Prometheus is told of versions and shadows."""

from __future__ import annotations

import itertools
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from engine.budgets import Ledger
from engine.runtimes import RuntimeSettings
from events.memory import MemoryLog
from handlers.batching_metrics import BatchingMetrics
from handlers.budget_metrics import BudgetMetrics
from handlers.http.metering import HttpMetrics
from handlers.routing import Routing
from handlers.spending import Accounting
from handlers.traffic import units
from handlers.traffic.metrics import TrafficMetrics
from handlers.traffic.windows import Windows
from handlers.upstream_metrics import UpstreamMetrics
from handlers.upstreams import Upstreams
from tests.handlers.passing import CHAT_ROUTE, Seconds, begun, next_second, route
from tests.handlers.test_checks import rolling

CHAT = 'endpoint="chat",tenant="acme"'


class Rig:
    def __init__(self) -> None:
        self.clock = Seconds()
        self.windows = Windows(gateway="g1", log=MemoryLog(), clock=self.clock)
        self.registry = CollectorRegistry()
        self.registry.register(TrafficMetrics(self.windows))

    def samples(self) -> dict[str, float]:
        """As they are scraped: name and labels -> value."""
        lines = generate_latest(self.registry).decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {sample: float(value) for sample, value in pairs}


async def test_latencies_are_a_histogram_by_version():
    rig = Rig()
    for latency_ms in (2.0, 20.0, 20.0, 90_000.0):
        begun(rig.windows, CHAT_ROUTE).answered(latency_ms=latency_ms)
    begun(rig.windows, CHAT_ROUTE, version="2.0.0").answered(latency_ms=1.0)
    await next_second(rig.windows, rig.clock)
    samples = rig.samples()
    one = f'{CHAT},version="1.0.0"'
    buckets = {
        bound: samples[
            f'switchback_inference_seconds_bucket{{endpoint="chat",le="{bound}",'
            'tenant="acme",version="1.0.0"}'
        ]
        for bound in ("0.001", "0.0025", "0.01", "0.025", "60.0", "+Inf")
    }
    assert list(buckets.values()) == [0, 1, 1, 3, 3, 4]
    assert samples[f"switchback_inference_seconds_count{{{one}}}"] == 4
    assert samples[f"switchback_inference_seconds_sum{{{one}}}"] == pytest.approx(90.042)
    two = f'{CHAT},version="2.0.0"'
    assert samples[f"switchback_inference_seconds_count{{{two}}}"] == 1


async def test_fallbacks_are_counted_where_they_came_to():
    rig = Rig()
    for _ in range(3):
        chosen = begun(rig.windows, CHAT_ROUTE)
        fallback = chosen.fall_back("2.0.0")
        chosen.failed(code="timeout")
        fallback.answered(latency_ms=1.0)
    await next_second(rig.windows, rig.clock)
    samples = rig.samples()
    assert samples[f'switchback_fallbacks_total{{{CHAT},version="1.0.0"}}'] == 0
    assert samples[f'switchback_fallbacks_total{{{CHAT},version="2.0.0"}}'] == 3


async def test_counts_only_grow_from_second_to_second():
    rig = Rig()
    name = f'switchback_inference_seconds_count{{{CHAT},version="1.0.0"}}'
    seen = []
    for _ in range(3):
        begun(rig.windows, CHAT_ROUTE).answered(latency_ms=1.0)
        await next_second(rig.windows, rig.clock)
        seen.append(rig.samples()[name])
    assert seen == [1, 2, 3]


async def test_what_is_in_flight_is_a_gauge_of_this_moment():
    rig = Rig()
    name = f'switchback_inference_in_flight{{{CHAT},version="1.0.0"}}'
    passage = begun(rig.windows, CHAT_ROUTE)
    assert rig.samples()[name] == 1
    await next_second(rig.windows, rig.clock)
    assert rig.samples()[name] == 1
    passage.answered(latency_ms=1.0)
    assert rig.samples()[name] == 0
    await next_second(rig.windows, rig.clock)
    await next_second(rig.windows, rig.clock)
    assert rig.samples()[name] == 0


async def test_copies_are_counted_by_shadow_version():
    rig = Rig()
    passage = begun(rig.windows, CHAT_ROUTE)
    copy = passage.copy("3.0.0")
    for _ in range(5):
        copy.sent()
    copy.dropped()
    copy.compared(agreed=True, latency_ms=1.0, primary_latency_ms=1.0)
    copy.compared(agreed=False, latency_ms=1.0, primary_latency_ms=1.0)
    copy.failed(code="timeout")
    copy.failed(code="compare_failed")
    passage.answered(latency_ms=1.0)
    await next_second(rig.windows, rig.clock)
    samples = rig.samples()
    three = f'{CHAT},version="3.0.0"'
    counted = {
        name: samples[f"switchback_shadow_{name}_total{{{three}}}"]
        for name in ("mirrored", "dropped", "compared", "agreed")
    }
    assert counted == {"mirrored": 5, "dropped": 1, "compared": 2, "agreed": 1}
    for code in ("timeout", "compare_failed"):
        assert samples[f'switchback_shadow_errors_total{{code="{code}",{three}}}'] == 1


async def test_keys_that_were_too_many_are_counted_by_version(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(units, "UNIT_KEYS_MAX", 1)
    rig = Rig()
    for key in range(4):
        begun(rig.windows, CHAT_ROUTE, key=key).answered(latency_ms=1.0)
    await next_second(rig.windows, rig.clock)
    assert rig.samples()[f'switchback_units_left_out_total{{{CHAT},version="1.0.0"}}'] == 3


async def test_checks_are_counted_by_version_where_there_are_any():
    rig = Rig()
    at = rolling()
    for good in (True, False, False):
        passage = begun(rig.windows, at)
        passage.answered(latency_ms=1.0)
        passage.checking().found(good=good)
    passage.checking().failed()
    for _ in range(4):
        passage.checking().dropped()
    begun(rig.windows, at, version="2.0.0").answered(latency_ms=1.0)
    for _ in range(2):
        await next_second(rig.windows, rig.clock)
    counted = {
        name: n for name, n in rig.samples().items() if "answers_" in name or "checks" in name
    }
    one = f'{CHAT},version="1.0.0"'
    assert counted == {
        f"switchback_answers_checked_total{{{one}}}": 3,
        f"switchback_answers_bad_total{{{one}}}": 2,
        f"switchback_checks_failed_total{{{one}}}": 1,
        f"switchback_checks_dropped_total{{{one}}}": 4,
    }


def test_every_metric_of_inference_is_documented():
    registry = CollectorRegistry()
    registry.register(TrafficMetrics(Windows(gateway="g1", log=MemoryLog(), clock=Seconds())))
    registry.register(BatchingMetrics(None))
    registry.register(BudgetMetrics(Accounting(Ledger("g1"), Seconds())))
    registry.register(UpstreamMetrics(Upstreams(routing=Routing(), settings=RuntimeSettings())))
    HttpMetrics(registry)
    families = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in registry.collect()
        if not family.name.startswith("switchback_http_")
    }
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    assert set(re.findall(r"`(switchback_\w+)`", text)) == families


async def test_every_sample_names_its_tenant_endpoint_and_version():
    rig = Rig()
    passage = begun(rig.windows, route("search"))
    passage.copy("3.0.0").failed(code="timeout")
    passage.answered(latency_ms=1.0)
    begun(rig.windows, CHAT_ROUTE)
    await next_second(rig.windows, rig.clock)
    samples = rig.samples()
    assert len(samples) > 20
    for sample in samples:
        assert all(f'{label}="' in sample for label in ("tenant", "endpoint", "version")), sample


def test_a_scrape_in_another_thread_meets_no_change_half_made():
    rig = Rig()

    def scrape() -> int:
        return sum(bool(generate_latest(rig.registry)) for _ in range(20))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(1) as threads:
            scraping = threads.submit(scrape)
            for number in itertools.count():
                passage = begun(rig.windows, CHAT_ROUTE, version=f"1.0.{number % 40}")
                passage.copy("3.0.0").failed(code=f"c{number % 10}")
                passage.answered(latency_ms=1.0)
                rig.windows._close_window()
                if scraping.done():
                    break
    finally:
        sys.setswitchinterval(interval)
    assert scraping.result() == 20
