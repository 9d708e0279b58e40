"""How much each line does. Times follow from these counts; nothing runs open-ended."""

from __future__ import annotations

from typing import Final

import msgspec

LINE_SECONDS_MAX: Final = 300.0
"""A line that takes longer is given up."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    rounds: int = 5
    connections: int = 100
    """Of clients that send commands as fast as they are answered."""
    commands: int = 5_000
    """In a round."""
    raw_publishes: int = 20_000
    replayed_events: int = 100_000
    visible_commands: int = 1_000
    routing_calls: int = 20_000
    gateways: int = 4
    switches: int = 50
    """Swaps in a round, each followed by a rollback."""
    inferences: int = 1_000
    chats: int = 1_000
    """With an upstream, in a round, as fast as they are answered."""
    paced_chats: int = 400
    """Likewise, at a steady rate."""
    chat_connections: tuple[int, ...] = (1, 16, 64)
    """Over which they come, one number after the other."""
    scheduled_steps: int = 200
    """Timed, for each number of running requests."""
    scheduled_requests: int = 1_000
    generated: int = 512
    """Answers of mixed lengths in a round; in batches of 64."""
    generated_singly: int = 48
    """Of those, one at a time."""
    prefixes: int = 10
    """In a round, each shared by two prompts."""
    answers: int = 1_000
    """Asked for at the same time, over HTTP, in a round."""
    long_prompts: int = 10
    streams: int = 50
    stream_tokens: int = 100
    remembered: int = 10_000
    """Requests between two looks at the memory of the processes."""
    remembered_before: int = 3_000
    """Requests before the first."""
    judged_runs: int = 2_000
    """Simulated runs behind each probability of a false alarm; of other figures, a tenth."""
    judged_windows: int = 20_000
    detections: int = 5
    """Canaries of each kind that are to be found out."""
    detected_per_s: tuple[int, ...] = (50, 500)
    """Requests to the endpoint of such a canary."""
    detection_seconds_max: float = 20.0
    """For those that fail only now and then."""
    swaps: int = 1_000
    """Of the soak, which is one long round."""
    swaps_before: int = 100
    """Of those, before memory is read for the first time."""
    rate_per_s: int = 200
    """Of clients that do not wait for each other."""


FULL: Final = Sizes()
QUICK: Final = Sizes(
    rounds=3,
    commands=2_000,
    raw_publishes=5_000,
    replayed_events=20_000,
    visible_commands=300,
    routing_calls=5_000,
    switches=10,
    inferences=300,
    chats=300,
    paced_chats=200,
    scheduled_steps=100,
    generated=128,
    generated_singly=16,
    prefixes=4,
    answers=300,
    long_prompts=3,
    streams=50,
    stream_tokens=50,
    remembered=2_000,
    remembered_before=1_000,
    judged_runs=400,
    judged_windows=5_000,
    detections=3,
    detected_per_s=(50,),
    detection_seconds_max=15.0,
    swaps=200,
    swaps_before=50,
)
