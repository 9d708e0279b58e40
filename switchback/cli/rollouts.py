"""`rollout`: traffic moved to a version step by step, watched, and back if it is worse."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeAlias

from cyclopts import App, Parameter

from switchback.cli.application import DONE, FAILED, app
from switchback.cli.failures import Failed
from switchback.cli.output import console, print_done, print_json
from switchback.cli.plans import AS_IN_THE_FILE, Judgement, PolicyFile, StepTexts, plan_of
from switchback.cli.rollout_view import rollout_view, status_line
from switchback.cli.target import HERE, AsJson, Target, commanding, reading
from switchback.cli.watching import JsonLines, screen_on, watch
from switchback.client import Client

rollout: Final = App(name="rollout", help="Rollouts: traffic moved step by step, and watched.")
app.command(rollout)

RolloutId: TypeAlias = Annotated[
    str | None, Parameter(name="ID", help="A rollout; the endpoint's live one when not given.")
]


@rollout.command(name="start")
async def start_rollout(
    endpoint: str,
    version: str,
    /,
    *,
    step: StepTexts = None,
    judgement: Judgement = AS_IN_THE_FILE,
    policy: PolicyFile = None,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Load a version and begin to move traffic to it."""
    plan = plan_of(policy, step, judgement)
    async with commanding(target) as client:
        answer = await client.start_rollout(endpoint, to=version, **plan.members())
    print_done(f"rollout {answer['id']}\n{status_line(answer)}", answer, as_json=as_json)


@rollout.command(name="status")
async def show_rollout(
    endpoint: str,
    rollout_id: RolloutId = None,
    /,
    *,
    watched: Annotated[
        bool,
        Parameter(["--watch", "-w"], negative="", help="Go on until it ends; fails if aborted."),
    ] = False,
    as_json: AsJson = False,
    target: Target = HERE,
) -> int:
    """The split, the step, and what each metric says. Without ID: the live one, else the last."""
    async with reading(target) as client:
        wanted = rollout_id or await _live_or_last(client, endpoint)
        if watched:
            return await _watch(client, endpoint, wanted, as_json=as_json)
        answer = await client.rollout(endpoint, wanted)
    if as_json:
        print_json(answer)
    else:
        console.print(rollout_view(answer, now=datetime.now(UTC)), highlight=False)
    return DONE


@rollout.command(name="promote")
async def promote_rollout(
    endpoint: str,
    rollout_id: RolloutId = None,
    /,
    *,
    full: Annotated[bool, Parameter(negative="", help="All traffic to it, now.")] = False,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Go on to the next step without waiting. Two who do so at the same time take one step."""
    async with commanding(target) as client:
        shown = await client.rollout(endpoint, rollout_id or await _live(client, endpoint))
        answer = await client.promote_rollout(
            endpoint,
            shown["id"],
            to="full" if full else "next",
            from_step=None if full else shown["step"],
        )
    _print_steered(answer, as_json=as_json)


@rollout.command(name="pause")
async def pause_rollout(
    endpoint: str,
    rollout_id: RolloutId = None,
    /,
    *,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Stay at this step until resumed; a version that is worse is rolled back all the same."""
    async with commanding(target) as client:
        wanted = rollout_id or await _live(client, endpoint)
        answer = await client.pause_rollout(endpoint, wanted)
    _print_steered(answer, as_json=as_json)


@rollout.command(name="resume")
async def resume_rollout(
    endpoint: str,
    rollout_id: RolloutId = None,
    /,
    *,
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Go on with a rollout that is held."""
    async with commanding(target) as client:
        wanted = rollout_id or await _live(client, endpoint)
        answer = await client.resume_rollout(endpoint, wanted)
    _print_steered(answer, as_json=as_json)


@rollout.command(name="abort")
async def abort_rollout(
    endpoint: str,
    rollout_id: RolloutId = None,
    /,
    *,
    reason: str = "",
    as_json: AsJson = False,
    target: Target = HERE,
) -> None:
    """Return all traffic to the version before, now."""
    async with commanding(target) as client:
        wanted = rollout_id or await _live(client, endpoint)
        answer = await client.abort_rollout(endpoint, wanted, reason=reason)
    _print_steered(answer, as_json=as_json)


async def _watch(client: Client, endpoint: str, rollout_id: str, *, as_json: bool) -> int:
    if as_json:
        ended = await watch(client, endpoint, rollout_id, JsonLines())
    else:
        with screen_on(console) as screen:
            ended = await watch(client, endpoint, rollout_id, screen)
    return DONE if ended["state"] == "completed" else FAILED


async def _live(client: Client, endpoint: str) -> str:
    """Raises Failed when the endpoint is in none."""
    live = (await client.endpoint(endpoint))["rollout"]
    if live is None:
        raise Failed(f"{endpoint} is in no rollout")
    return str(live["id"])


async def _live_or_last(client: Client, endpoint: str) -> str:
    """Raises Failed when the endpoint never was in one."""
    async for found in client.rollouts(endpoint):  # the newest first, and only it can be live
        return str(found["id"])
    raise Failed(f"{endpoint} never was in a rollout")


def _print_steered(answer: Mapping[str, Any], *, as_json: bool) -> None:
    print_done(status_line(answer), answer, as_json=as_json)
