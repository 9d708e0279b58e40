"""`swap` and `rollback`: moving all traffic."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from switchback.cli.application import DONE, FAILED, app
from switchback.cli.output import print_done, print_problem
from switchback.cli.target import HERE, AsJson, Target, commanding

COMPLETED = "completed"


@app.command
async def swap(
    endpoint: str,
    version: str,
    /,
    *,
    wait: Annotated[bool, Parameter(help="Until it has completed or failed.")] = True,
    timeout: Annotated[float, Parameter(help="Seconds the version may take to load.")] = 60.0,
    as_json: AsJson = False,
    target: Target = HERE,
) -> int:
    """Move all traffic to a version, once it is loaded. Fails if the swap does."""
    async with commanding(target) as client:
        ask = client.swap if wait else client.request_swap
        answer = await ask(endpoint, to=version, timeout_s=timeout)
    if wait and answer["state"] != COMPLETED:
        why = answer.get("detail") or answer.get("reason") or answer["state"]
        print_problem(f"the swap failed ({why}); {answer['from']} goes on serving")
        return FAILED
    done = f"{endpoint}: {answer['from']} -> {answer['to']}, {answer['state']}"
    print_done(done, answer, as_json=as_json)
    return DONE


@app.command
async def rollback(
    endpoint: str,
    /,
    *,
    reason: str = "",
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Move all traffic to the last good version, now."""
    async with commanding(target) as client:
        answer = await client.rollback(endpoint, reason=reason)
    done = f"{endpoint}: {answer['from']} -> {answer['to']} in {answer['duration_ms']} ms"
    print_done(done, answer, as_json=as_json)
