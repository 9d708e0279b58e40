"""`nodes`: the processes that execute versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cyclopts import App

from switchback.cli.application import app
from switchback.cli.output import print_done, print_items, print_json, print_rows, print_thing
from switchback.cli.target import HERE, AsJson, Target, commanding, reading

_FIGURE: Final = "figure"
_FIGURES: Final = (
    "running",
    "waiting",
    "memory",
    "batch_use",
    "prefix_hits",
    "requests_per_s",
    "tokens_per_s",
    "first_token_ms",
    "token_ms",
    "request_ms",
)
nodes: Final = App(name="nodes", help="Nodes, and what is resident on them.")
app.command(nodes)


@nodes.command(name="list")
async def list_nodes(*, as_json: AsJson = False, target: Target = HERE) -> None:
    """All nodes."""
    async with reading(target) as client:
        items = [item async for item in client.nodes()]
    columns = ("id", "state", "memory_used_bytes", "memory_budget_bytes", "resident")
    print_items(items, columns, as_json=as_json)


@nodes.command(name="show")
async def show_node(node: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """One node."""
    async with reading(target) as client:
        print_thing(await client.node(node), as_json=as_json)


@nodes.command(name="batching")
async def show_batching(node: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """What a node's versions compute in batches: queue, memory, rates, P50/P95/P99 latencies."""
    async with reading(target) as client:
        answer = await client.batching(node)
    if as_json:
        print_json(answer)
        return
    told = {_named(item): _batching(item) for item in answer["items"]}
    told |= {_named(ref): {"running": "no answer"} for ref in answer["unanswered"]}
    rows = (
        {
            _FIGURE: figure.replace("_", " "),
            **{name: each.get(figure) for name, each in told.items()},
        }
        for figure in _FIGURES
    )
    print_rows(rows, [_FIGURE, *told], title=f"{node}: latencies are of the last minutes")


@nodes.command(name="drain")
async def drain_node(node: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """Let a node finish what it has and take nothing new."""
    async with commanding(target) as client:
        answer = await client.drain(node)
    print_done(f"node {node} is draining", answer, as_json=as_json)


def _batching(item: Mapping[str, Any]) -> dict[str, Any]:
    """The _FIGURES of a version."""
    return {
        "running": item["num_requests_running"],
        "waiting": item["num_requests_waiting"],
        "memory": f"{item['kv_cache_usage']:.0%}",
        "batch_use": f"{item['batch_utilisation']:.0%}",
        "prefix_hits": f"{item['prefix_cache_hit_rate']:.0%}",
        "requests_per_s": f"{item['requests_per_s']:.1f}",
        "tokens_per_s": f"{item['tokens_per_s']:.1f}",
        "first_token_ms": _percentiles(item["time_to_first_token"]),
        "token_ms": _percentiles(item["time_per_output_token"]),
        "request_ms": _percentiles(item["e2e_request_latency"]),
    }


def _named(ref: Mapping[str, Any]) -> str:
    return f"{ref['model']}@{ref['version']}"


def _percentiles(latency: Mapping[str, Any]) -> str | None:
    if latency["p50_s"] is None:
        return None
    return "/".join(f"{latency[name] * 1_000:.1f}" for name in ("p50_s", "p95_s", "p99_s"))
