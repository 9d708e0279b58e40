"""A pytest plugin for decisions and replays, installed with Switchback.

`given` tells a decision as a story; `event_log` is a log in memory; `replay` answers what a
recorded log ends in. See docs/replay-tests.md.

    def test_a_canary_is_rolled_back(given):
        given(DECIDER, [created("1.0.0"), split({"1.0.0": 90, "2.0.0": 10})]) \\
            .when(RollBack(reason="errors")) \\
            .then([RolledBack(from_versions=("2.0.0",), to_version="1.0.0", ...)])

No servers, no clock: a history, a command, and the events or the refusal. `then` gives back the
history with the new events on it, so a test can go on with the next `when`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

from engine.decisions.decider import Decider, Refused, fold
from events import Event, EventLog, Recorded

if TYPE_CHECKING:  # imported when a test asks: every pytest run loads this plugin
    from switchback.replaying import Replayed, ReplayServers
    from switchback.replaying.whatif import RolloutReport

LogSource: TypeAlias = str | Path | Iterable[Recorded]
"""A JSONL file, or events."""

_ABSENT: Final = object()


class History:
    """Events of one entity, and the decider that reads them."""

    def __init__(self, decider: Decider[Any, Any], events: Iterable[Event]) -> None:
        self.decider = decider
        self.events = tuple(events)

    @property
    def state(self) -> Any:
        """All events folded."""
        return fold(self.decider, self.events)

    def when(self, command: object) -> Outcome:
        """Decide. What comes of it is judged by `then` or `refused`."""
        try:
            decided: Sequence[Event] | Refused = tuple(self.decider.decide(self.state, command))
        except Refused as refusal:
            decided = refusal
        return Outcome(self, command, decided)


class Outcome:
    """What a command led to: events, or a refusal."""

    def __init__(
        self, history: History, command: object, decided: Sequence[Event] | Refused
    ) -> None:
        self.history = history
        self.command = command
        self.decided = decided

    @property
    def fields(self) -> Mapping[str, str]:
        """Of a refusal: path of each bad field -> what is wrong with it. Empty otherwise."""
        return self.decided.fields if isinstance(self.decided, Refused) else {}

    def then(self, events: Iterable[Event]) -> History:
        """Exactly these events, in this order; the history that holds them. Else AssertionError."""
        __tracebackhide__ = True
        expected = tuple(events)
        if self.decided != expected:
            raise AssertionError(self._story(_listed(expected)))
        return History(self.history.decider, (*self.history.events, *expected))

    def refused(self, error: type[Refused], **data: object) -> History:
        """Refused so, carrying this data; the unchanged history. Else AssertionError."""
        __tracebackhide__ = True
        if not isinstance(self.decided, error) or any(
            getattr(self.decided, name, _ABSENT) != value for name, value in data.items()
        ):
            raise AssertionError(self._story(f"  refused by {error.__name__} {data or ''}"))
        return self.history

    def _story(self, expected: str) -> str:
        got = (
            f"  refused by {type(self.decided).__name__} {vars(self.decided)}"
            if isinstance(self.decided, Refused)
            else _listed(self.decided)
        )
        given = _listed(self.history.events)
        return f"given\n{given}\nwhen\n  {self.command}\nexpected\n{expected}\nbut got\n{got}"


class Given:
    """The beginning of a test: a decider and what happened so far."""

    def __call__(self, decider: Decider[Any, Any], events: Iterable[Event] = ()) -> History:
        return History(decider, events)


def _listed(events: Iterable[Event]) -> str:
    return "\n".join(f"  {event}" for event in events) or "  no events"


@pytest.fixture
def given() -> Given:
    """`given(decider, events).when(command).then(events)` or `.refused(error, **data)`."""
    return Given()


class Replay:
    """Answers what a log ends in. Paths are relative to the directory of the test."""

    def __init__(self, directory: Path, servers: ReplayServers) -> None:
        self._directory = directory
        self._servers = servers

    def __call__(self, log: LogSource) -> Replayed:
        """Folded in memory: what gateways route by, and the rows of every table.

        Raises MalformedEvent with the line's number as its position, EventRefused.
        """
        from switchback.replaying import replay

        return replay(self.events(log))

    async def through_servers(self, log: LogSource) -> Replayed:
        """The same, through JetStream, the projector and Postgres of its own.

        The first use in a test session starts the servers, which takes about a second. Raises
        MalformedEvent, ProjectionStopped.
        """
        return await self._servers.replay(list(self.events(log)))

    def what_if(self, log: LogSource, policy: Mapping[str, Any]) -> list[RolloutReport]:
        """What each rollout of a log with traffic windows would have done under other `steps` and
        another `analysis`, as `switchback what-if` tells it.

        Raises MalformedEvent, PolicyRefused, NothingRecorded.
        """
        from switchback.replaying import read_traffic_log
        from switchback.replaying.whatif import rollouts_policy, what_if

        if isinstance(log, str | Path):
            log = read_traffic_log(self._directory / log)
        return what_if(log, rollouts_policy(policy))

    def events(self, log: LogSource) -> Iterable[Recorded]:
        """The events of a JSONL file, or those given."""
        from switchback.replaying import read_log

        return read_log(self._directory / log) if isinstance(log, str | Path) else log


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "event_log(path): the fixture `event_log` begins with the events of this file"
    )


@pytest.fixture
def event_log(request: pytest.FixtureRequest) -> EventLog:
    """A log in memory: empty, or with the events of `@pytest.mark.event_log(path)`.

    The path is relative to the directory of the test; the file is never written.
    """
    from switchback.replaying import LoadedLog, read_log

    marker = request.node.get_closest_marker("event_log")
    return LoadedLog(read_log(request.path.parent / marker.args[0]) if marker else ())


@pytest.fixture
def replay(request: pytest.FixtureRequest, replay_servers: ReplayServers) -> Replay:
    """`replay(log)` in memory, `await replay.through_servers(log)` on real servers."""
    return Replay(request.path.parent, replay_servers)


@pytest.fixture(scope="session")
def replay_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplayServers]:
    """The servers of `replay.through_servers`, started when first used."""
    from switchback.replaying import ReplayServers

    servers = ReplayServers(tmp_path_factory.mktemp("replays"))
    yield servers
    servers.kill()
