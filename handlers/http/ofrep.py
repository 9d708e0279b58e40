"""`/ofrep/v1`: the OpenFeature Remote Evaluation Protocol, in which every endpoint is a flag.

The flag's value is the version that a request with `context.targetingKey` as its key gets by the
table in force now; the context's other texts are the request's attributes, what is no text is no
attribute. Nothing is executed, and nothing counts as traffic. Where no key decides (a policy that
is not sticky, between several versions) there is no value: the error GENERAL.

Scope `infer`, and the quota of inference requests: who asks for a key's version is who sends that
key's requests. Errors are problem documents with the protocol's members in them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from litestar import Request, Response, post
from litestar.params import FromPath, HeaderParameter, JSONBody
from xxhash import xxh3_128_hexdigest

from handlers.http.access import needs
from handlers.http.call import Call
from handlers.http.directory import Evaluation
from handlers.http.problems import Problem, Rejected, not_found, problem_response

ErrorCode: TypeAlias = Literal[
    "PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "FLAG_NOT_FOUND", "GENERAL"
]
KEY: Final = "targetingKey"
_NO_KEY_DECIDES: Final = "the policy is not sticky: no key decides between its versions"


class EvaluationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    context: dict[str, Any]
    """`targetingKey` is the routing key; other members that are strings are attributes."""


class FlagMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    model: str
    position: int
    """Of the event that set the policy."""
    rule: str | None = None
    """Missing: the policy's own split."""


class Flag(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An evaluated endpoint: a value and why, or, among others, why there is none."""

    key: str
    value: str | None = None
    reason: Literal["STATIC", "SPLIT", "TARGETING_MATCH"] | None = None
    variant: str | None = None
    metadata: FlagMetadata | None = None
    errorCode: ErrorCode | None = None  # noqa: N815 - the protocol's name
    errorDetails: str | None = None  # noqa: N815 - the protocol's name


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    flags: list[Flag]


class Unevaluable(Rejected):
    """A request that the protocol has an error code for."""

    def __init__(self, error_code: ErrorCode, field: str, detail: str) -> None:
        super().__init__("invalid", detail, fields={field: detail})
        self.error_code = error_code


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Problem documents in which OpenFeature's providers find their members."""

    def members(problem: Problem) -> dict[str, str]:
        flag = request.path_params.get("endpoint")
        found = {"errorCode": _error_code(error, problem), "errorDetails": problem.detail}
        return found if flag is None else found | {"key": str(flag)}

    return problem_response(error, members)


@post("/evaluate/flags/{endpoint:str}", status_code=200, **needs("infer", stored=False, answers=()))
async def evaluate_flag(
    request: Call, endpoint: FromPath[str], data: JSONBody[EvaluationRequest]
) -> Response[Flag]:
    """Which version the key gets from this endpoint, and why."""
    key, attributes = _asked(data)
    directory = request.front.services.directory
    await directory.reach(request.min_position)
    evaluation = directory.evaluate(
        request.tenant, endpoint=endpoint, key=key, attributes=attributes
    )
    if evaluation is None:
        raise not_found("endpoint", endpoint[:80])
    if evaluation.version is None:
        raise Unevaluable("GENERAL", "policy", _NO_KEY_DECIDES)
    return Response(_flag(evaluation))


@post(
    "/evaluate/flags",
    status_code=200,
    **needs("infer", stored=False, also=304, answers=("ETag",)),
)
async def evaluate_flags(
    request: Call,
    data: JSONBody[EvaluationRequest],
    known: Annotated[str | None, HeaderParameter(name="If-None-Match", max_length=4096)] = None,
) -> Response[Flags]:
    """Which version the key gets from each endpoint of the tenant; 304 while that is unchanged."""
    key, attributes = _asked(data)
    directory = request.front.services.directory
    await directory.reach(request.min_position)
    evaluations = directory.evaluate_all(request.tenant, key=key, attributes=attributes)
    answer = Flags(flags=[_flag(evaluation) for evaluation in evaluations])
    etag = f'"{xxh3_128_hexdigest(msgspec.json.encode(answer))}"'
    if known is not None and _names(known, etag):
        return Response(None, status_code=304, headers={"ETag": etag})  # type: ignore[arg-type]
    return Response(answer, headers={"ETag": etag})


def _asked(data: EvaluationRequest) -> tuple[str, dict[str, str]]:
    """The key and the attributes. Raises Unevaluable."""
    path = f"context.{KEY}"
    key = data.context.get(KEY)
    if key is None or key == "":
        raise Unevaluable("TARGETING_KEY_MISSING", path, f"{path}: required")
    if not isinstance(key, str):
        raise Unevaluable("INVALID_CONTEXT", path, f"{path}: not a string")
    others = data.context.items()
    return key, {name: each for name, each in others if isinstance(each, str) and name != KEY}


def _flag(evaluation: Evaluation) -> Flag:
    if evaluation.version is None:
        return Flag(key=evaluation.endpoint, errorCode="GENERAL", errorDetails=_NO_KEY_DECIDES)
    return Flag(
        key=evaluation.endpoint,
        value=evaluation.version,
        reason=evaluation.reason,
        variant=evaluation.version,
        metadata=FlagMetadata(
            model=evaluation.model, position=evaluation.position, rule=evaluation.rule
        ),
    )


def _names(header: str, etag: str) -> bool:
    """Whether `If-None-Match` names the tag; weak ones are as good here."""
    named = {each.strip().removeprefix("W/") for each in header.split(",")}
    return etag in named or "*" in named


def _error_code(error: Exception, problem: Problem) -> ErrorCode:
    if isinstance(error, Unevaluable):
        return error.error_code
    if problem.code == "not_found":
        return "FLAG_NOT_FOUND"
    if problem.code != "invalid":
        return "GENERAL"
    fields = problem.fields or {}
    in_context = any(field.startswith("context") for field in fields)
    return "INVALID_CONTEXT" if in_context else "PARSE_ERROR"


HANDLERS: tuple[Any, ...] = (evaluate_flag, evaluate_flags)
