"""`nodes`: the processes that execute versions."""

from __future__ import annotations

from typing import Final

from cyclopts import App

from switchback.cli.application import app
from switchback.cli.output import print_done, print_items, print_thing
from switchback.cli.target import HERE, AsJson, Target, commanding, reading

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


@nodes.command(name="drain")
async def drain_node(node: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """Let a node finish what it has and take nothing new."""
    async with commanding(target) as client:
        answer = await client.drain(node)
    print_done(f"node {node} is draining", answer, as_json=as_json)
