"""`compare` and `shadow`: versions by the traffic of the last while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias

from cyclopts import Parameter

from switchback.cli.application import app
from switchback.cli.output import console, print_json, print_rows
from switchback.cli.target import HERE, AsJson, Target, reading

Since: TypeAlias = Annotated[
    float | None, Parameter(name="--since", help="Seconds before now; 300 when not given.")
]

_COMPARED = ("requests", "errors", "error_rate", "p50_ms", "p95_ms", "p99_ms")
_SHADOWED = ("mirrored", "dropped", "compared", "agreed", "errors")


@app.command
async def compare(
    endpoint: str,
    /,
    *,
    baseline: Annotated[str | None, Parameter(help="A version; the one before.")] = None,
    candidate: Annotated[str | None, Parameter(help="A version; the newest.")] = None,
    since: Since = None,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Two versions beside each other, and whether one is worse."""
    async with reading(target) as client:
        answer = await client.compare(
            endpoint, baseline=baseline, candidate=candidate, since_s=since
        )
    if as_json:
        print_json(answer)
        return
    title = f"{endpoint}: the last {answer['since_s']:g} s"
    print_rows(_sides(answer), ("version", *_COMPARED), title=title)
    difference = answer["difference"]
    told = (
        f"verdict {difference['verdict']}: {difference['detail']}",
        _percent("error rate", difference["error_rate"]),
        _percent("rate of bad answers", difference["bad_rate"]),
        _milliseconds(difference["mean_latency_ms"]),
    )
    for line in filter(None, told):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command
async def shadow(
    endpoint: str,
    /,
    *,
    since: Since = None,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """How versions that get copies of the traffic answered them."""
    async with reading(target) as client:
        answer = await client.shadow(endpoint, since_s=since)
    if as_json:
        print_json(answer)
        return
    since_s = answer["since_s"]
    versions = list(answer["versions"].values())
    print_rows(versions, ("version", *_SHADOWED), title=f"{endpoint}: the last {since_s:g} s")
    for line in filter(None, map(_disagreement, versions)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _sides(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for side in ("baseline", "candidate"):
        summary = answer["versions"][answer[side]]
        rate = summary["error_rate"]
        times = {name: _rounded(summary[name]) for name in ("p50_ms", "p95_ms", "p99_ms")}
        shown = {"version": f"{answer[side]} ({side})", **times}
        yield summary | shown | {"error_rate": f"{rate:.2%}" if rate is not None else None}


def _disagreement(summary: Mapping[str, Any]) -> str | None:
    """What the copies that were compared say, in a line; None without one."""
    if summary["disagreement_rate"] is None:
        return None
    low, high = summary["interval"]
    rate = f"disagrees in {summary['disagreement_rate']:.2%} ({low:.2%} to {high:.2%})"
    parts = [f"{summary['version']} {rate}"]
    if summary["latency"] is not None:
        p50_ms, p95_ms = summary["latency"]["p50_ms"], summary["latency"]["p95_ms"]
        parts.append(f"latency p50 {p50_ms:+.2f} ms, p95 {p95_ms:+.2f} ms")
    return "; ".join(parts)


def _percent(name: str, difference: Mapping[str, Any]) -> str | None:
    if difference["estimate"] is None:
        return None
    low, high = difference["interval"]
    return f"{name} {difference['estimate']:+.2%} ({low:+.2%} to {high:+.2%})"


def _milliseconds(difference: Mapping[str, Any]) -> str | None:
    if difference["estimate"] is None:
        return None
    text = f"mean latency {difference['estimate']:+.2f} ms"
    if difference["interval"] is None:
        return text
    low, high = difference["interval"]
    return f"{text} ({low:+.2f} to {high:+.2f} ms)"


def _rounded(milliseconds: float | None) -> float | None:
    return round(milliseconds, 2) if milliseconds is not None else None
