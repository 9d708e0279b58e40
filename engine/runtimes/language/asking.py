"""What a language version is asked: inputs and parameters of OpenAI's protocol, read and checked.

Nothing that a caller says is dropped in silence. A member that this runtime heeds is read; one that
it cannot heed may have the value that asks for nothing, and is refused with any other; one that it
does not know is refused. Members that are null count as absent, as clients send them so.

What depends on the model, such as how many tokens a prompt has, is checked where the model is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engine.batching.requests import STOP_CHARS_MAX, STOP_STRINGS_MAX
from engine.runtimes.configs import TEMPERATURE_MAX, LanguageConfig
from engine.runtimes.documents import kind_of
from engine.runtimes.language.prompting import Prompt, read_messages, read_prompts
from engine.runtimes.language.sampling import TOP_LOGPROBS_MAX, Sampling
from engine.runtimes.language.texts import check_text
from engine.runtimes.runtime import RequestRefused

N_MAX: Final = 16
TIMEOUT_SECONDS_MAX: Final = 86_400
TEXT_TOKENS: Final = 16
"""Of an answer to a `prompt` whose request names no number, as with OpenAI."""
SEEDS: Final = 2**63
_TOP_P_MIN: Final = 1e-9
"""What 0, which OpenAI allows, comes to: the most likely token alone."""

IGNORED: Final = frozenset(
    {"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
"""Members that say nothing of the answer."""
NEUTRAL: Final[Mapping[str, Sequence[Any]]] = MappingProxyType(
    {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "response_format": ({"type": "text"},),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "best_of": (1,),
        "suffix": ("",),
        "modalities": (["text"],),
        "verbosity": ("medium",),
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "parallel_tool_calls": (True, False),
        "functions": ([],),
        "function_call": ("none", "auto"),
    }
)
"""Members that cannot be heeded -> their values that ask for nothing."""

Priority: TypeAlias = Literal["low", "normal", "high"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as the process of the model gets it."""

    kind: Literal["chat", "text"]
    prompts: tuple[Prompt, ...]
    n: int = 1
    """Choices for each prompt."""
    max_tokens: int | None = None
    """Of each answer; None for as many as there is room for, up to the version's default."""
    sampling: Sampling
    """Of the first choice; the one with index i has its seed plus i."""
    stop: tuple[str, ...] = ()
    echo: bool = False
    """Answers begin with their prompt."""
    priority: Priority = "normal"
    timeout_s: float | None = None

    @property
    def choices(self) -> int:
        return len(self.prompts) * self.n


class _Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=TEMPERATURE_MAX)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] = 1.0
    top_k: Annotated[int, Meta(ge=0, le=2**31)] = 0
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=N_MAX)] = 1
    stop: Any = ()
    logprobs: bool | int | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=TOP_LOGPROBS_MAX)] | None = None
    echo: bool = False
    ignore_eos: bool = False
    priority: Priority = "normal"
    timeout_s: Annotated[float, Meta(gt=0, le=TIMEOUT_SECONDS_MAX)] | None = None


def read(inputs: Any, parameters: Mapping[str, Any], config: LanguageConfig, *, seed: int) -> Asked:
    """`seed` is for requests that bring none. Raises RequestRefused, naming OpenAI's member."""
    kind = kind_of(inputs)
    if kind is None:
        raise RequestRefused("inputs", "must have one member: `messages` or `prompt`")
    if kind == "embeddings":
        raise RequestRefused("input", "this version writes texts, and has no embeddings")
    given = _parameters(parameters)
    chars_max = config.prompt_chars_max
    if kind == "chat":
        prompts: tuple[Prompt, ...] = (read_messages(inputs["messages"], chars_max=chars_max),)
    else:
        prompts = read_prompts(inputs["prompt"], chars_max=chars_max)
    asked = Asked(
        kind=kind,
        prompts=prompts,
        n=given.n,
        max_tokens=_max_tokens(given, kind, config),
        sampling=_sampling(given, kind, config, seed),
        stop=_stop(given.stop),
        echo=given.echo,
        priority=given.priority,
        timeout_s=given.timeout_s,
    )
    _check(asked, config)
    return asked


def _parameters(parameters: Mapping[str, Any]) -> _Parameters:
    heeded = {}
    for name, value in parameters.items():
        if value is None or name in IGNORED:
            continue
        if name not in NEUTRAL:
            heeded[name] = value
        elif value not in NEUTRAL[name]:
            allowed = " or ".join(
                msgspec.json.encode(neutral).decode() for neutral in NEUTRAL[name]
            )
            raise RequestRefused(name, f"this version cannot heed it: leave it out, or {allowed}")
    try:
        return msgspec.convert(heeded, _Parameters)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from error


def _refusal(error: str) -> RequestRefused:
    """msgspec names the member behind ` - at `, or in the text if it is unknown."""
    detail, _, path = error.partition(" - at `$.")
    if path:
        return RequestRefused(path.rstrip("`"), detail)
    name = error.partition("`")[2].partition("`")[0]
    return RequestRefused(name[:64], "this version does not know it")


def _max_tokens(given: _Parameters, kind: str, config: LanguageConfig) -> int | None:
    name, wanted = "max_tokens", given.max_tokens
    if given.max_completion_tokens is not None:
        if kind != "chat":
            raise RequestRefused("max_completion_tokens", "is for chats; use max_tokens")
        if wanted not in (None, given.max_completion_tokens):
            raise RequestRefused("max_tokens", "is not what max_completion_tokens is")
        name, wanted = "max_completion_tokens", given.max_completion_tokens
    if wanted is not None and wanted > config.max_tokens_limit:
        raise RequestRefused(name, f"{wanted} is more than {config.max_tokens_limit}")
    return wanted


def _sampling(given: _Parameters, kind: str, config: LanguageConfig, seed: int) -> Sampling:
    return Sampling(
        temperature=config.temperature if given.temperature is None else given.temperature,
        top_k=given.top_k,
        top_p=max(given.top_p, _TOP_P_MIN),
        seed=(seed if given.seed is None else given.seed) % SEEDS,
        logprobs=_logprobs(given, kind),
        ignore_eos=given.ignore_eos,
    )


def _logprobs(given: _Parameters, kind: str) -> int | None:
    """How many of the most likely tokens are told of beside each; None for no word of any."""
    wanted, top = given.logprobs, given.top_logprobs
    if kind == "text":
        if top is not None:
            raise RequestRefused("top_logprobs", "is for chats; use logprobs")
        if isinstance(wanted, bool):
            raise RequestRefused("logprobs", "must be a number here")
        if wanted is not None and not 0 <= wanted <= TOP_LOGPROBS_MAX:
            raise RequestRefused("logprobs", f"must be 0 to {TOP_LOGPROBS_MAX}")
        if wanted is not None and given.echo:
            raise RequestRefused("logprobs", "this version has none of a prompt: not with echo")
        return wanted
    if wanted is not None and not isinstance(wanted, bool):
        raise RequestRefused("logprobs", "must be true or false here; see top_logprobs")
    if top is not None and not wanted:
        raise RequestRefused("top_logprobs", "needs logprobs")
    return (top or 0) if wanted else None


def _stop(given: Any) -> tuple[str, ...]:
    strings = [given] if isinstance(given, str) else given
    if not isinstance(strings, list | tuple):
        raise RequestRefused("stop", "must be a text or a list of texts")
    if len(strings) > STOP_STRINGS_MAX:
        raise RequestRefused("stop", f"{len(strings)} texts; at most {STOP_STRINGS_MAX}")
    for index, string in enumerate(strings):
        field = "stop" if isinstance(given, str) else f"stop[{index}]"
        if not 0 < len(check_text(string, field)) <= STOP_CHARS_MAX:
            raise RequestRefused(field, f"must have 1 to {STOP_CHARS_MAX} characters")
    return tuple(strings)


def _check(asked: Asked, config: LanguageConfig) -> None:
    if asked.echo and asked.kind == "chat":
        raise RequestRefused("echo", "is for a prompt, not for chats")
    choices_max = min(config.choices_max, config.waiting_max)
    if asked.choices > choices_max:
        field = "n" if asked.n > 1 else "prompt"
        raise RequestRefused(field, f"{asked.choices} choices; at most {choices_max}")
