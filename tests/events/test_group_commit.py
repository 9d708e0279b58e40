"""Appends that wait together are written together; only the loser of a race hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from events import UNCHECKED, Append, EntityId, Metadata, Position, WrongExpectedPosition
from events.drafts import Draft, draft
from events.event import Expected
from events.jetstream import JetStream
from events.jetstream.failures import WRONG_LAST_SEQUENCE, Refused, Unanswered
from events.jetstream.group_commit import (
    BATCH_APPENDS_MIN,
    BATCH_MESSAGES_MAX,
    SINGLES_MAX,
    Drafts,
    GroupCommit,
)
from tests.events.examples import CHAT, first, moved


class Server:
    """Notes what is sent, refuses what stands on a subject in `losers`."""

    def __init__(self, *, losers: Sequence[str] = (), answers: bool = True) -> None:
        self.singles: list[str] = []
        self.batches: list[list[str]] = []
        self.position = 0
        self._losers = losers
        self._answers = answers

    async def alone(self, drafts: Drafts) -> Position:
        await asyncio.sleep(0)
        self.singles.append(drafts[0].subject)
        for part in drafts:
            if part.subject in self._losers:
                raise WrongExpectedPosition(part.entity, 0, 1)
        self.position += sum(len(part.messages) for part in drafts)
        return self.position

    async def together(self, drafts: Sequence[Draft]) -> Position:
        await asyncio.sleep(0)
        self.batches.append([part.subject for part in drafts])
        if not self._answers:
            raise Unanswered("batch")
        if any(part.subject in self._losers for part in drafts):
            raise Refused(400, WRONG_LAST_SEQUENCE, "wrong last sequence")
        self.position += sum(len(part.messages) for part in drafts)
        return self.position

    def commits(self) -> GroupCommit:
        return GroupCommit(alone=self.alone, together=self.together)


def model(n: int) -> EntityId:
    return EntityId("acme", "model", f"m{n}")


def one(entity: EntityId, *, expected: Expected = 0, events: int = 1) -> Drafts:
    facts = [moved(str(n)) for n in range(events)]
    return draft([Append(entity=entity, events=facts, expected=expected)], Metadata())


async def test_a_few_are_sent_singly() -> None:
    server = Server()
    commits = server.commits()
    appends = [commits.append(one(model(n))) for n in range(BATCH_APPENDS_MIN - 1)]
    assert await asyncio.gather(*appends) == list(range(1, BATCH_APPENDS_MIN))
    assert server.batches == []


async def test_many_are_sent_together_and_each_learns_its_own_position() -> None:
    server = Server()
    commits = server.commits()
    appends = [commits.append(one(model(n), events=1 + n % 3)) for n in range(60)]
    positions = await asyncio.gather(*appends)
    assert server.singles == []
    assert [len(batch) for batch in server.batches] == [60]
    sizes = [1 + n % 3 for n in range(60)]
    assert positions == [sum(sizes[: n + 1]) for n in range(60)]


async def test_a_batch_is_bounded() -> None:
    server = Server()
    commits = server.commits()
    await asyncio.gather(*(commits.append(one(model(n))) for n in range(3 * BATCH_MESSAGES_MAX)))
    assert [len(batch) for batch in server.batches] == [BATCH_MESSAGES_MAX] * 3


async def test_an_entity_stands_in_a_batch_once() -> None:
    server = Server()
    commits = server.commits()
    await asyncio.gather(*(commits.append(one(model(n % 30))) for n in range(90)))
    assert all(len(set(batch)) == len(batch) for batch in server.batches)
    assert sum(map(len, server.batches)) + len(server.singles) == 90


async def test_unchecked_appends_of_one_entity_share_a_batch() -> None:
    server = Server()
    commits = server.commits()
    await asyncio.gather(*(commits.append(one(CHAT, expected=UNCHECKED)) for _ in range(50)))
    assert [len(batch) for batch in server.batches] == [50]


async def test_a_checked_append_does_not_overtake_an_unchecked_one() -> None:
    server = Server()
    commits = server.commits()
    order: list[Expected] = []
    expectations: list[Expected] = [UNCHECKED, 1, UNCHECKED]

    async def append(expected: Expected) -> None:
        await commits.append(one(CHAT, expected=expected))
        order.append(expected)

    others = [commits.append(one(model(n))) for n in range(40)]
    await asyncio.gather(*map(append, expectations), *others)
    assert order == expectations
    assert sum(batch.count(CHAT.subject) for batch in server.batches[:1]) == 1


async def test_only_the_loser_fails() -> None:
    server = Server(losers=[model(7).subject])
    commits = server.commits()
    outcomes = await asyncio.gather(
        *(commits.append(one(model(n))) for n in range(50)), return_exceptions=True
    )
    assert [n for n, o in enumerate(outcomes) if isinstance(o, WrongExpectedPosition)] == [7]
    assert sorted(o for o in outcomes if isinstance(o, int)) == list(range(1, 50))


async def test_a_batch_without_an_answer_is_settled_one_by_one() -> None:
    server = Server(answers=False)
    commits = server.commits()
    positions = await asyncio.gather(*(commits.append(one(model(n))) for n in range(50)))
    assert sorted(positions) == list(range(1, 51))
    assert len(server.singles) == 50


async def test_one_who_gives_up_does_not_disturb_the_others() -> None:
    server = Server()
    commits = server.commits()
    appends = [asyncio.ensure_future(commits.append(one(model(n)))) for n in range(50)]
    await asyncio.sleep(0)
    appends[3].cancel()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [n for n, o in enumerate(outcomes) if not isinstance(o, int)] == [3]


async def test_finish_waits_for_all() -> None:
    server = Server()
    commits = server.commits()
    appends = [
        asyncio.ensure_future(commits.append(one(model(n)))) for n in range(SINGLES_MAX + 200)
    ]
    await asyncio.sleep(0)
    await commits.finish()
    assert server.position == len(appends)
    await asyncio.gather(*appends)


async def test_on_a_real_server_only_the_loser_of_a_batch_fails(jetstream: JetStream) -> None:
    log = jetstream.events
    await log.append(model(7), [moved("0")], expected=0)
    outcomes = await asyncio.gather(
        *(log.append(model(n), [moved("1")], expected=0) for n in range(100)),
        return_exceptions=True,
    )
    [lost] = [o for o in outcomes if not isinstance(o, int)]
    assert isinstance(lost, WrongExpectedPosition)
    assert (lost.entity, lost.actual) == (model(7), 1)
    assert await log.position() == 100


async def test_on_a_real_server_each_learns_where_its_event_stands(jetstream: JetStream) -> None:
    log = jetstream.events
    commands = [Metadata() for _ in range(300)]
    positions = await asyncio.gather(
        *(
            log.append(model(n), [moved("1")], expected=0, metadata=command)
            for n, command in enumerate(commands)
        )
    )
    stands = {r.id: r.position for r in await first(log, 300)}
    assert [stands[command.event_id(0)] for command in commands] == positions


@pytest.mark.parametrize("events", [1, 5])
async def test_long_appends_and_short_ones_share_batches(jetstream: JetStream, events: int) -> None:
    log = jetstream.events
    facts = [moved(str(n)) for n in range(events)]
    positions = await asyncio.gather(*(log.append(model(n), facts, expected=0) for n in range(80)))
    recorded = await first(log, 80 * events)
    last = {r.entity: r.position for r in recorded}
    assert [last[model(n)] for n in range(80)] == positions
