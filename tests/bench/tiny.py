"""A bench so small that what it says about time means nothing."""

from __future__ import annotations

from typing import Final

from switchback.bench import Sizes

TINY: Final = Sizes(
    rounds=2,
    connections=4,
    commands=20,
    raw_publishes=200,
    replayed_events=300,
    visible_commands=10,
    routing_calls=100,
    gateways=2,
    switches=2,
    inferences=20,
    chats=20,
    paced_chats=8,
    chat_connections=(1, 4),
    scheduled_steps=10,
    scheduled_requests=200,
    generated=8,
    generated_singly=1,
    prefixes=1,
    answers=6,
    long_prompts=1,
    streams=3,
    stream_tokens=4,
    remembered=10,
    remembered_before=4,
    judged_runs=20,
    judged_windows=20,
    detections=2,
    detected_per_s=(200,),
    detection_seconds_max=1.0,
    swaps=6,
    swaps_before=2,
)
