"""`/endpoints/{endpoint}/rollouts`: moving traffic to a version step by step, watched."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from litestar import Response, get, post
from litestar.params import JSONBody

from engine.decisions.rollout_plan import DEFAULT_STEPS
from events.catalogue.endpoints import Analysis, Step
from handlers.http.access import needs
from handlers.http.call import Call, done
from handlers.http.parameters import LIMIT_DEFAULT, AfterName, Limit, Name
from handlers.http.problems import not_found
from handlers.http.rollout_ports import PromoteTo
from projections.results import Page, Rollout

LIVE: Final = frozenset({"running", "held"})
_REASON_CHARS_MAX: Final = 1000

Steps: TypeAlias = Annotated[tuple[Step, ...], msgspec.Meta(min_length=1)]
"""Those of a rollout; to get the default ones, leave them out."""


class StartRollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    to: str
    """The candidate: a registered version of the endpoint's model."""
    steps: Steps = DEFAULT_STEPS
    analysis: Analysis = Analysis()


class PromoteRollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    to: PromoteTo = "next"
    """The next step, or all traffic to the candidate at once."""
    from_step: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The step to end, counted from 0; one that is over changes nothing, so that two who promote
    it at the same time take one step. Without it, the one in force."""


class SteerRollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing needs saying; what is said is refused rather than ignored."""


class AbortRollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=_REASON_CHARS_MAX)] = ""


TO_NEXT: Final = PromoteRollout()
NO_REASON: Final = AbortRollout()
NO_MEMBERS: Final = SteerRollout()


@post("/endpoints/{endpoint:str}/rollouts", status_code=201, **needs("operate"))
async def start_rollout(
    request: Call, endpoint: Name, data: JSONBody[StartRollout]
) -> Response[Rollout]:
    """Move traffic to a version in steps, and back as soon as it is shown to be worse.

    Answers when the version is loaded and the first step is in force at every live gateway.
    """
    started = await request.operations.start_rollout(
        request.tenant,
        endpoint=endpoint,
        to=data.to,
        steps=data.steps,
        analysis=data.analysis,
        metadata=await request.metadata(),
    )
    return done(started, position=started.position, status=201)


@get("/endpoints/{endpoint:str}/rollouts", **needs("read"))
async def list_rollouts(
    request: Call, endpoint: Name, limit: Limit = LIMIT_DEFAULT, after: AfterName = ""
) -> Page[Rollout]:
    """The endpoint's rollouts, the newest first, with the verdicts that their last events say."""
    page = await request.queries.rollouts.list(
        request.tenant, endpoint, after=after, limit=limit, min_position=request.min_position
    )
    if not page.items and not after:
        await _check_endpoint(request, endpoint)
    return page


@get("/endpoints/{endpoint:str}/rollouts/{rollout:str}", **needs("read"))
async def get_rollout(request: Call, endpoint: Name, rollout: Name) -> Rollout:
    """One rollout. While it lives, its verdicts are what the evidence says at this moment."""
    found = await request.queries.rollouts.get(
        request.tenant, endpoint, rollout, min_position=request.min_position
    )
    if found is None:
        raise not_found("rollout", f"{endpoint}/{rollout}")
    if found.state not in LIVE:
        return found
    verdicts = await request.operations.verdicts(
        request.tenant, endpoint=endpoint, rollout_id=rollout
    )
    return found if verdicts is None else msgspec.structs.replace(found, verdicts=list(verdicts))


@post(
    "/endpoints/{endpoint:str}/rollouts/{rollout:str}/promote",
    status_code=200,
    **needs("operate"),
)
async def promote_rollout(
    request: Call, endpoint: Name, rollout: Name, data: JSONBody[PromoteRollout] = TO_NEXT
) -> Response[Rollout]:
    """End the step in force as if it had passed, or the whole rollout."""
    promoted = await request.operations.promote_rollout(
        request.tenant,
        endpoint=endpoint,
        rollout_id=rollout,
        to=data.to,
        from_step=data.from_step,
        metadata=await request.metadata(),
    )
    return done(promoted, position=promoted.position)


@post("/endpoints/{endpoint:str}/rollouts/{rollout:str}/pause", status_code=200, **needs("operate"))
async def pause_rollout(
    request: Call, endpoint: Name, rollout: Name, data: JSONBody[SteerRollout] = NO_MEMBERS
) -> Response[Rollout]:
    """Stay at the step in force until resumed; a candidate that is worse is still rolled back."""
    paused = await request.operations.pause_rollout(
        request.tenant, endpoint=endpoint, rollout_id=rollout, metadata=await request.metadata()
    )
    return done(paused, position=paused.position)


@post(
    "/endpoints/{endpoint:str}/rollouts/{rollout:str}/resume", status_code=200, **needs("operate")
)
async def resume_rollout(
    request: Call, endpoint: Name, rollout: Name, data: JSONBody[SteerRollout] = NO_MEMBERS
) -> Response[Rollout]:
    """Go on with what was left of the step's hold."""
    resumed = await request.operations.resume_rollout(
        request.tenant, endpoint=endpoint, rollout_id=rollout, metadata=await request.metadata()
    )
    return done(resumed, position=resumed.position)


@post("/endpoints/{endpoint:str}/rollouts/{rollout:str}/abort", status_code=200, **needs("operate"))
async def abort_rollout(
    request: Call, endpoint: Name, rollout: Name, data: JSONBody[AbortRollout] = NO_REASON
) -> Response[Rollout]:
    """Return all traffic to the baseline; answers when every live gateway has applied it."""
    aborted = await request.operations.abort_rollout(
        request.tenant,
        endpoint=endpoint,
        rollout_id=rollout,
        reason=data.reason,
        metadata=await request.metadata(),
    )
    return done(aborted, position=aborted.position)


async def _check_endpoint(request: Call, endpoint: str) -> None:
    if await request.queries.endpoints.get(request.tenant, endpoint) is None:
        raise not_found("endpoint", endpoint)


HANDLERS: tuple[Any, ...] = (
    start_rollout,
    list_rollouts,
    get_rollout,
    promote_rollout,
    pause_rollout,
    resume_rollout,
    abort_rollout,
)
