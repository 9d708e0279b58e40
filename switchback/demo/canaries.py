"""The second act: versions let in step by step by a rollout that judges them.

A good version is compared as a shadow first, then it takes every step and completes. Another one
fails on some requests; it is rolled back with nobody there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import aclosing
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.live import Live

from switchback.cli.watching import watch as follow
from switchback.client import Client
from switchback.demo.canary import ENDS_A_ROLLOUT, JSON, STARTS_A_ROLLOUT, Canary
from switchback.demo.checks import Check
from switchback.demo.history import history
from switchback.demo.ramp import Ramp
from switchback.demo.watch import Watch, watched_traffic

ENDPOINT: Final = "read-postcode"
REQUESTS_PER_S: Final = 200
BASELINE, GOOD, BAD = "1.0.0", "2.0.0", "4.0.0"
STEPS: Final = tuple(
    {"weight": weight, "hold_s": 2.0, "min_samples": 50} for weight in (5, 10, 25, 50, 100)
)
ANALYSIS: Final = {"margin": 0.15}
"""A rehearsal must not take minutes: 15 % more errors is what some 50 samples can exclude."""
SAME_LABEL: Final = "same_label"
COMPARED_MIN: Final = 300
REQUESTS_AFTER: Final = 200
REFRESH_SECONDS: Final = 0.2
ACT_SECONDS: Final = 180.0


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What the second act came to."""

    shadow: dict[str, Any]
    """How the good version did as a shadow."""
    good: Canary
    bad: Canary


async def rehearse(
    console: Console, client: Client, *, model: str, url: str, key: str
) -> Rehearsed:
    """A shadow, a canary that completes, and one that does not."""
    await client.create_endpoint(ENDPOINT, model=model, version=BASELINE)
    console.print(f"\n[bold]Canaries.[/bold] {REQUESTS_PER_S} requests/s to another endpoint,")
    console.print(f"{ENDPOINT!r}, which {BASELINE} serves. Nobody touches it from here on.\n")
    async with (
        asyncio.timeout(ACT_SECONDS),
        watched_traffic(url, key, ENDPOINT, requests_per_s=REQUESTS_PER_S) as watch,
    ):
        shadow = await _shadowed(client)
        _tell_shadow(console, shadow)
        good = await _let_in(console, client, watch, to=GOOD)
        took_s = good.ended - good.began
        console.print(f"{GOOD} was let in within {took_s:.1f} s, with nobody there.\n")
        bad = await _let_in(console, client, watch, to=BAD)
        await watch.more(REQUESTS_AFTER)
    return Rehearsed(shadow=shadow, good=good, bad=bad)


async def _shadowed(client: Client) -> dict[str, Any]:
    """The report on the good version, once it was sent enough copies."""
    compare = {"kind": "function", "name": SAME_LABEL}
    only_baseline = {"split": {BASELINE: 100}}
    shadow = {"version": GOOD, "compare": compare}
    await client.set_policy(ENDPOINT, only_baseline | {"shadow": [shadow]})
    report: dict[str, Any] = {"compared": 0}
    while report["compared"] < COMPARED_MIN:
        await asyncio.sleep(REFRESH_SECONDS)
        report = (await client.shadow(ENDPOINT))["versions"].get(GOOD, report)
    await client.set_policy(ENDPOINT, only_baseline)
    return report


def _tell_shadow(console: Console, report: dict[str, Any]) -> None:
    low, high = report["interval"]
    console.print(
        f"{GOOD} as a shadow: of {report['compared']} copies it named another digit in"
        f" {report['disagreement_rate']:.1%} ({low:.1%} to {high:.1%}), and failed on"
        f" {report['errors']}.\n"
    )


async def _let_in(console: Console, client: Client, watch: Watch, *, to: str) -> Canary:
    """Start a rollout and look on until it has ended."""
    rollout = await client.start_rollout(ENDPOINT, to=to, steps=STEPS, analysis=ANALYSIS)
    baseline, position = rollout["baseline"], rollout["position"]
    [started] = await _events(client, position, until={STARTS_A_ROLLOUT})
    with Live(console=console, auto_refresh=False) as live:
        title = f"{to} as a canary beside {baseline}"
        ramp = Ramp(live, watch, title=title, started=started)
        await follow(client, ENDPOINT, rollout["id"], ramp)
        events = await _events(client, position, until=ENDS_A_ROLLOUT)
        ramp.ended(events)
    console.print()
    return Canary(baseline=baseline, candidate=to, events=tuple(events), watch=watch)


async def _events(client: Client, position: int, *, until: Collection[str]) -> list[JSON]:
    """The endpoint's, from a position to the first of one of these types; waits for it."""
    found: list[JSON] = []
    coming = client.follow_events(after=position - 1, entity=f"endpoint/{ENDPOINT}")
    async with aclosing(coming) as events:
        async for event in events:
            found.append(event)
            if event["type"] in until:
                break
    return found


def canaries_told(console: Console, rehearsed: Rehearsed) -> None:
    """Print how the bad one ended, and the endpoint's history."""
    bad = rehearsed.bad
    if bad.aborted is None or not bad.failed:
        console.print(f"{bad.candidate} was not found out.")
        return
    first, last = min(r.answered for r in bad.failed), max(r.answered for r in bad.failed)
    sent = bad.watch.between(bad.began, bad.ended)
    console.print(
        f"{bad.candidate} was rolled back by {_rule(bad.aborted)}, with nobody there."
        f" From the first bad answer to the last: {last - first:.1f} s, and to the first by the"
        f" old policy: {bad.ended - first:.1f} s."
        f" {len(bad.failed)} of {len(sent)} requests failed meanwhile"
        f" ({len(bad.failed) / len(sent):.1%}), {len(bad.failed_elsewhere) or 'none'} of them"
        f" sent to {bad.baseline}.\n"
    )
    both = (*rehearsed.good.events, *bad.events)
    console.print(history(both, title="Both canaries, from the log"))


def _rule(aborted: JSON) -> str:
    data = aborted["data"]
    if data["reason"] == "alert":
        return f"the fast alert ({data.get('detail', '')})"
    verdict = next(v for v in data["verdicts"] if v["outcome"] == "fail")
    return (
        f"the test of its {verdict['metric']} (e-value {verdict['e_value']:.3g}, which is an alarm"
        f" from {verdict['threshold']:.3g}, after {verdict['candidate_samples']} requests)"
    )


def checks_of_canaries(rehearsed: Rehearsed) -> list[Check]:
    good, bad = rehearsed.good, rehearsed.bad
    before = bad.watch.between(0.0, bad.began)
    return [
        Check(
            what=f"{good.candidate} passed all {len(STEPS)} steps by itself",
            held=good.completed,
        ),
        Check(
            what="no request failed while it was shadow and canary",
            held=not any(request.failure for request in before),
        ),
        Check(
            what=f"{bad.candidate} was rolled back with nobody there",
            held=bad.rolled_back_by_itself,
        ),
        Check(
            what=f"no request failed but {len(bad.failed)} that went to {bad.candidate}",
            held=bool(bad.failed) and not bad.failed_elsewhere,
        ),
        Check(
            what=f"after its rollback was seen, {bad.candidate} took no new request",
            held=not bad.taken_after_the_end,
        ),
    ]
