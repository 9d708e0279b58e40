"""The plan of a rollout as a command line gives it: its steps, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from cyclopts import Parameter

from events.catalogue.endpoints import Analysis, Metric, Step
from switchback.cli.failures import Failed

_STEP_FORM: Final = "WEIGHT:HOLD_S[:MIN_SAMPLES]"
_STEP_PARTS: Final = (2, 3)


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rollout is asked for with, besides its version. The form of a `--policy` file."""

    steps: tuple[Step, ...] | None = None
    """None: the server's."""
    analysis: Analysis = Analysis()

    def members(self) -> dict[str, Any]:
        """As the API takes it."""
        steps = msgspec.to_builtins(self.steps) if self.steps is not None else None
        return {"steps": steps, "analysis": msgspec.to_builtins(self.analysis)}


def _check_finite(_: type, value: float | None) -> None:
    """Raises ValueError, which is wrong use: JSON has no such numbers."""
    if value is not None and not math.isfinite(value):
        raise ValueError("not a finite number")


_Float: TypeAlias = Annotated[float | None, Parameter(validator=_check_finite)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How the candidate is judged; what is not given is as in the policy file, or the server's."""

    metric: Annotated[Metric | None, Parameter(help="Judged besides the error rate.")] = None
    check: Annotated[
        str | None, Parameter(help="Says of an answer whether it is good; for --metric quality.")
    ] = None
    alpha: Annotated[_Float, Parameter(help="How often a good version may fail.")] = None
    margin: Annotated[_Float, Parameter(help="How much worse still passes.")] = None
    max_error_rate: Annotated[_Float, Parameter(help="Fail above it, 0 to 1.")] = None
    max_latency_ms: Annotated[_Float, Parameter(help="95 % must be faster.")] = None
    max_latency_ratio: Annotated[
        _Float, Parameter(help="Of the mean latencies, candidate to baseline.")
    ] = None
    max_disagreement_rate: Annotated[
        _Float, Parameter(help="Of the candidate as a shadow, 0 to 1.")
    ] = None
    on_inconclusive: Annotated[
        Literal["hold", "rollback", "promote"] | None,
        Parameter(help="When a hold is over and the evidence is not clear."),
    ] = None


AS_IN_THE_FILE: Final = Judgement()


def _check_steps(_: type, steps: Sequence[str] | None) -> None:
    """Raises ValueError, which is wrong use."""
    for text in steps or ():
        step_of(text)


StepTexts: TypeAlias = Annotated[
    list[str] | None,
    Parameter(
        name="--step",
        negative="",
        validator=_check_steps,
        help=f"{_STEP_FORM}, once for each step; the server's steps without any.",
    ),
]
PolicyFile: TypeAlias = Annotated[
    Path | None, Parameter(name="--policy", help='JSON: {"steps": [...], "analysis": {...}}.')
]


def step_of(text: str) -> Step:
    """A step out of WEIGHT:HOLD_S[:MIN_SAMPLES]. Raises ValueError."""
    parts = text.split(":")
    if len(parts) not in _STEP_PARTS:
        raise ValueError(f"{text!r} is not {_STEP_FORM}")
    try:
        weight, hold_s = map(float, parts[:2])
        _check_finite(float, weight)
        _check_finite(float, hold_s)
        return Step(weight=weight, hold_s=hold_s, min_samples=int(parts[2]) if parts[2:] else 0)
    except ValueError:
        raise ValueError(f"{text!r} is not {_STEP_FORM}") from None


def plan_of(file: Path | None, steps: Sequence[str] | None, judgement: Judgement) -> Plan:
    """The file's plan, with what the command line says in its place. Raises Failed."""
    plan = _read(file) if file is not None else Plan()
    given = {name: value for name, value in asdict(judgement).items() if value is not None}
    return Plan(
        steps=tuple(map(step_of, steps)) if steps else plan.steps,
        analysis=msgspec.structs.replace(plan.analysis, **given),
    )


def _read(file: Path) -> Plan:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Plan)
    except (OSError, msgspec.MsgspecError) as error:
        raise Failed(f"{file}: {error}") from error
