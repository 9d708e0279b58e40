"""What an engine keeps of the requests that have been with it."""

from __future__ import annotations

import asyncio
import gc

import msgspec

from engine.runtimes.configs import LanguageConfig
from engine.runtimes.language.asking import Asked
from engine.runtimes.language.choices import Choice
from engine.runtimes.language.engine import Engine
from engine.runtimes.language.prompting import Prompt
from engine.runtimes.language.sampling import Sampling
from engine.runtimes.language.wire import Answer, Cancel, Pieces, decode_report
from tests.language.models import random_model

ASKED = Asked(
    kind="text",
    prompts=(Prompt(text="one"), Prompt(text="two")),
    n=2,
    max_tokens=5,
    sampling=Sampling(ignore_eos=True),
)
LONGER = msgspec.structs.replace(ASKED, max_tokens=400)


class Ends:
    """Counts the choices that have ended, by what was written."""

    def __init__(self) -> None:
        self.count = 0
        self.changed = asyncio.Event()

    def take(self, written: bytes) -> None:
        while written:
            end = 4 + int.from_bytes(written[:4], "big")
            report, written = decode_report(written[4:end]), written[end:]
            if isinstance(report, Pieces):
                self.count += sum(piece.end is not None for piece in report.pieces)
                self.changed.set()

    async def reach(self, count: int) -> None:
        while self.count < count:
            self.changed.clear()
            await self.changed.wait()


def choices_kept() -> int:
    gc.collect()
    return sum(type(each) is Choice for each in gc.get_objects())


async def test_nothing_is_kept_of_requests_that_have_ended_or_were_cancelled() -> None:
    ends = Ends()
    engine = Engine(random_model(), LanguageConfig(kv_bytes=2**20))
    await engine.start(ends.take)
    for request in range(10):
        engine.follow(Answer(request, ASKED, streams=False))
    await ends.reach(40)
    assert choices_kept() == 0

    engine.follow(Answer(10, LONGER, streams=True))
    assert choices_kept() == 4
    engine.follow(Cancel(10))
    assert choices_kept() == 0


async def test_what_is_cancelled_after_its_end_harms_nobody() -> None:
    ends = Ends()
    engine = Engine(random_model(), LanguageConfig(kv_bytes=2**20))
    await engine.start(ends.take)
    engine.follow(Answer(1, ASKED, streams=True))
    await ends.reach(4)
    engine.follow(Cancel(1))
    engine.follow(Answer(2, ASKED, streams=True))
    await ends.reach(8)
