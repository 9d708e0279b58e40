"""`history`, `as-of`, `explain`: what happened, how it was, and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from cyclopts import Parameter

from switchback.cli.application import DONE, FAILED, app
from switchback.cli.failures import Failed
from switchback.cli.output import print_json, print_problem, print_rows, print_thing
from switchback.cli.target import HERE, AsJson, Target, reading
from switchback.cli.telling import told


@app.command
async def history(endpoint: str, /, *, as_json: AsJson = False, target: Target = HERE) -> None:
    """Everything that happened to an endpoint, as the log has it."""
    async with reading(target) as client:
        await client.endpoint(endpoint)  # an endpoint that never was is refused, not empty
        events = [event async for event in client.events(entity=f"endpoint/{endpoint}")]
    if as_json:
        print_json(events)
        return
    rows = [_row(event) for event in events]
    print_rows(rows, ("position", "time", "actor", "what"), title=f"History of {endpoint}")


@app.command(name="as-of")
async def as_of(
    endpoint: str,
    when: Annotated[str, Parameter(help="A position, or a time such as 2026-03-02T09:00:00Z.")],
    /,
    *,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """An endpoint as it was."""
    at = moment(when)
    async with reading(target) as client:
        print_thing(await client.endpoint(endpoint, at=at), as_json=as_json)


@app.command
async def explain(receipt: str, /, *, as_json: AsJson = False, target: Target = HERE) -> int:
    """Recompute the decision a receipt tells of. Fails if it does not hold."""
    async with reading(target) as client:
        answer = await client.explain_receipt(receipt)
    print_thing(answer, as_json=as_json)
    if not answer["valid"]:
        print_problem("the receipt does not agree with the log")
        return FAILED
    return DONE


def moment(text: str) -> int | str:
    """A position or a time with a zone, as the API takes it. Raises Failed."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Failed(f"{text!r} is neither a position nor an RFC 3339 time") from None
    if time.tzinfo is None:
        raise Failed(f"{text!r} has no time zone; add one, such as Z")
    return text


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "position": event["position"],
        "time": event["time"],
        "actor": event["actor"],
        "what": told(event["type"], event["data"]),
    }
