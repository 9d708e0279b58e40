"""A language model that serves: orders are followed, answers go to the outbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psutil
import structlog

from engine.batching import (
    Closed,
    ContextExceeded,
    Executor,
    NeverFits,
    QueueFull,
    Request,
    RequestInvalid,
    Scheduler,
    Serving,
)
from engine.runtimes.configs import LanguageConfig
from engine.runtimes.documents import CONTEXT_EXCEEDED
from engine.runtimes.language.asking import Asked
from engine.runtimes.language.choices import Choice, requests_of, tokens_of
from engine.runtimes.language.decoder import empty_cache
from engine.runtimes.language.executor import BLOCK_TOKENS, LanguageExecutor
from engine.runtimes.language.outbox import Outbox
from engine.runtimes.language.rehearsal import RehearsingExecutor
from engine.runtimes.language.sampling import Sampling
from engine.runtimes.language.tokenizer import END
from engine.runtimes.language.weights import LanguageModel
from engine.runtimes.language.wire import Answer, Cancel, Do, Done, Order, Piece, Ready, framed
from engine.runtimes.language.wire import Refused as Refusal
from engine.runtimes.python_host import describe
from engine.runtimes.runtime import RequestRefused

QUICK_CHARS: Final = 4_096
"""Longer prompts are cut into tokens in a thread: steps go on meanwhile."""
WARM_TOKENS: Final = 8

_log = structlog.get_logger(__name__)


class Engine:
    """One model, and the requests that are with it."""

    outbox: Outbox

    def __init__(self, model: LanguageModel, config: LanguageConfig) -> None:
        """Takes the memory of all keys and values at once. Raises MemoryError."""
        self._config = config
        self._tokenizer = model.tokenizer
        self._rehearsing: RehearsingExecutor | None = None
        self._executor: Executor = _executor(model, config)
        if config.rehearsal is not None:
            self._executor = self._rehearsing = RehearsingExecutor(self._executor, config.rehearsal)
        self._scheduler = self._new_scheduler()
        self._serving = Serving(self._scheduler)
        self._numbers: dict[int, dict[int, int]] = {}
        """Request -> those of its choices that have not ended -> their number with the scheduler.
        """
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """Request -> what is done about it beside the steps."""

    async def start(self, write: Callable[[bytes], None]) -> None:
        """Begin to take requests in."""
        self._write = write
        self.outbox = Outbox(write)
        await self._serving.start()
        write(framed(Ready()))

    async def failed(self) -> str:
        """Returns, with the reason, once nothing is computed any more; until then waits."""
        return await self._serving.failed()

    def follow(self, order: Order) -> None:
        """Returns at once; what it takes is done before, or beside, the next steps."""
        match order:
            case Cancel(request):
                self._forget(request)
            case Do():
                self._do(order)
            case Answer(request, asked):
                if _chars(asked) > QUICK_CHARS:
                    self._beside(request, self._answer_long(order))
                else:
                    self._answer(order)

    def _answer(self, order: Answer) -> None:
        with self._refusing(order):
            self._enter(order, self._tokens(order.asked))

    async def _answer_long(self, order: Answer) -> None:
        with self._refusing(order):
            self._enter(order, await asyncio.to_thread(self._tokens, order.asked))

    @contextmanager
    def _refusing(self, order: Answer) -> Iterator[None]:
        """Whatever goes wrong with a request here is told to who asked, and harms no other."""
        try:
            yield
        except Exception as error:
            refused = _refusal(order, error)
            if refused.kind == "failed":
                _log.exception("request_broke")
            self._write(framed(refused))

    def _tokens(self, asked: Asked) -> list[list[int]]:
        context_tokens = self._executor.context_tokens
        return [tokens_of(prompt, self._tokenizer, context_tokens) for prompt in asked.prompts]

    def _enter(self, order: Answer, prompts: Sequence[list[int]]) -> None:
        """All choices, or none. Raises Refused, RequestRefused."""
        requests = requests_of(
            order.asked,
            prompts,
            context_tokens=self._executor.context_tokens,
            max_tokens=min(self._config.max_tokens, self._config.max_tokens_limit),
            now_s=time.monotonic(),
        )
        self._numbers[order.request] = {}
        try:
            for index, request in enumerate(requests):
                self._enter_choice(order, index, request)
        except BaseException:
            self._forget(order.request)
            raise

    def _enter_choice(self, order: Answer, index: int, request: Request) -> None:
        """The prompt of a chat has no text of its own, but what was said in it."""
        prompt = ""
        if order.asked.echo or self._rehearsing is not None:
            prompt = self._tokenizer.decode(request.prompt)
        choice = Choice(
            Piece(order.request, index, prompt if order.asked.echo else ""),
            prompt_tokens=len(request.prompt),
            streams=order.streams,
            token_bytes=self._tokenizer.token_bytes,
            give=self._give,
        )
        number = self._serving.enter(request, choice.take)
        self._numbers[order.request][index] = number
        if self._rehearsing is not None and self._rehearsing.marks(prompt):
            self._rehearsing.failing.add(number)

    def _give(self, piece: Piece) -> None:
        """Nothing is kept of a choice that has ended, but its piece on the way out."""
        self.outbox.add(piece)
        if piece.end is None:
            return
        numbers = self._numbers[piece.request]
        number = numbers.pop(piece.choice)
        if self._rehearsing is not None:
            self._rehearsing.failing.discard(number)
        if not numbers:
            del self._numbers[piece.request]

    def _forget(self, request: int) -> None:
        """Nobody waits for it: no later step computes it."""
        task = self._tasks.pop(request, None)
        if task is not None:
            task.cancel()
        for number in self._numbers.pop(request, {}).values():
            self._serving.leave(number)
            if self._rehearsing is not None:
                self._rehearsing.failing.discard(number)
        self.outbox.forget(request)

    def _do(self, order: Do) -> None:
        try:
            done = self._done(order)
        except Exception as error:
            _log.exception("order_broke", what=order.what)
            done = Done(order.request, failed=describe(error))
        self._write(framed(done))

    def _done(self, order: Do) -> Done:
        match order.what:
            case "warm":
                return Done(order.request, failed=self._warm())
            case "tell":
                return Done(order.request, self._scheduler.statistics())

    def _warm(self) -> str | None:
        """Generate a little, unless that was done; why it could not be. Of what the statistics
        count, nothing is this: it has a scheduler of its own."""
        if not self._scheduler.busy:
            scheduler = self._new_scheduler()
            scheduler.submit(
                Request(prompt=[END], max_tokens=WARM_TOKENS, sampling=Sampling(ignore_eos=True))
            )
            while scheduler.busy:
                for chunk in scheduler.step():
                    if chunk.ending == "failed":
                        return str(chunk.detail)
        if self._rehearsing is not None:
            self._rehearsing.begin()
        return None

    def _beside(self, request: int, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[request] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(request, None))

    def _new_scheduler(self) -> Scheduler:
        return Scheduler(
            self._executor,
            self._tokenizer.token_bytes,
            limits=self._config.limits(),
            clock=time.monotonic,
        )


def _executor(model: LanguageModel, config: LanguageConfig) -> LanguageExecutor:
    one = empty_cache(model.config, blocks=1, block_tokens=BLOCK_TOKENS).block_bytes
    if config.kv_bytes < one:
        raise MemoryError(f"kv_bytes: {config.kv_bytes}; one block takes {one}")
    # Some systems promise any amount, and kill somebody when it is written.
    there_are = psutil.virtual_memory().total
    if config.kv_bytes > there_are:
        raise MemoryError(f"kv_bytes: {config.kv_bytes}; this machine has {there_are}")
    return LanguageExecutor(model, blocks=config.kv_bytes // one)


def _chars(asked: Asked) -> int:
    return sum(
        len(prompt.text or "") + sum(len(message.content) for message in prompt.messages or ())
        for prompt in asked.prompts
    )


def _refusal(order: Answer, error: Exception) -> Refusal:
    request = order.request
    field = "messages" if order.asked.kind == "chat" else "prompt"
    match error:
        case RequestRefused():
            return Refusal(request, "invalid", error.field, error.detail, error.openai_code)
        case RequestInvalid():
            return Refusal(request, "invalid", error.field, error.detail)
        case ContextExceeded() | NeverFits():
            return Refusal(request, "invalid", field, f"would take {error}", CONTEXT_EXCEEDED)
        case QueueFull():
            return Refusal(request, "overloaded", "", str(error))
        case Closed():
            return Refusal(request, "closed", "", "the version is being unloaded")
    return Refusal(request, "failed", "", describe(error))
