"""What a gateway tells of its traffic, through real servers: on the log, and to Prometheus."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing

import httpx
import pytest

from events.catalogue.traffic import WindowObserved
from tests.system import System

SOON_SECONDS = 20.0
REQUESTS = 12


async def windows_until_compared(system: System, copies: int) -> list[WindowObserved]:
    """The endpoint's windows, up to the one in which that many copies are compared."""
    found: list[WindowObserved] = []
    traffic = system.process.jetstream.traffic
    subject = "obs.default.traffic.scores"
    async with asyncio.timeout(SOON_SECONDS), aclosing(traffic.subscribe(subject)) as windows:
        async for recorded in windows:
            assert isinstance(recorded.event, WindowObserved)
            found.append(recorded.event)
            if sum(each.compared for w in found for each in w.shadows.values()) >= copies:
                return found
    raise AssertionError("a subscription has no end")


@pytest.mark.slow
@pytest.mark.settings(compare_functions={"same": "operator:eq"})
async def test_windows_and_metrics_tell_of_requests_units_and_copies(system: System):
    client = system.client
    await client.register_model("fraud")
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        config = {"answer": "no"} if version == "3.0.0" else {"answer": "yes"}
        await client.register_version("fraud", version, runtime="echo", config=config)
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    for version in ("2.0.0", "3.0.0"):
        await client.swap("scores", to=version)
    compare = {"kind": "function", "name": "same"}
    endpoint = await client.set_policy(
        "scores",
        {
            "split": {"1.0.0": 1, "2.0.0": 1},
            "shadow": [{"version": "3.0.0", "compare": compare}, {"version": "2.0.0"}],
        },
    )
    by = Counter(
        [(await client.infer("scores", n, key=f"u{n % 4}")).version for n in range(REQUESTS)]
    )
    windows = await windows_until_compared(system, REQUESTS + by["1.0.0"])

    assert {window.policy for window in windows} == {endpoint["position"]}
    requests = Counter[str]()
    seen = 0
    for window in windows:
        requests.update({name: each.requests for name, each in window.versions.items()})
        seen += sum(each.units.seen for each in window.versions.values())
    assert requests == by
    assert seen == 4
    agreed = {
        version: sum(w.shadows[version].agreed for w in windows if version in w.shadows)
        for version in ("2.0.0", "3.0.0")
    }
    assert agreed == {"2.0.0": by["1.0.0"], "3.0.0": 0}

    async with httpx.AsyncClient(base_url=system.url) as http:
        scraped = (await http.get("/metrics")).text
    labels = 'endpoint="scores",tenant="default",version='
    for version, count in by.items():
        assert f'switchback_inference_seconds_count{{{labels}"{version}"}} {count}.0' in scraped
    assert f'switchback_shadow_compared_total{{{labels}"3.0.0"}} {REQUESTS}.0' in scraped
    assert f'switchback_shadow_agreed_total{{{labels}"3.0.0"}} 0.0' in scraped
