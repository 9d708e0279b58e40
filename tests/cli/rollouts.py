"""A rollout as the API shows it, for tests of what is made of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
ERROR_RATE = {
    "metric": "error_rate",
    "outcome": "inconclusive",
    "baseline_samples": 9_500,
    "candidate_samples": 500,
    "estimate": 0.0123,
    "interval": [-0.0021, 0.0345],
    "e_value": 3.5,
    "alpha": 0.025,
    "threshold": 40.0,
    "detail": "the candidate's rate may exceed the baseline's by 3.45%; 2.00% are allowed",
}
SAMPLE_RATIO = {
    "metric": "sample_ratio",
    "outcome": "pass",
    "baseline_samples": 9_500,
    "candidate_samples": 500,
    "estimate": 0.0,
    "e_value": 0.2,
    "alpha": 0.001,
    "threshold": 1_000.0,
    "detail": "keys fall to the candidate in the proportion of its share",
}


def rollout(**members: Any) -> dict[str, Any]:
    """In its second step of three."""
    return {
        "id": "r1",
        "endpoint": "chat",
        "baseline": "1.0.0",
        "candidate": "2.0.0",
        "state": "running",
        "step": 1,
        "weight": 25.0,
        "steps": [{"weight": weight, "hold_s": 60.0} for weight in (5.0, 25.0, 100.0)],
        "analysis": {},
        "hold_until": "2026-03-02T09:00:42Z",
        "held_reason": None,
        "reason": None,
        "detail": None,
        "verdicts": [ERROR_RATE, SAMPLE_RATIO],
        "position": 12,
        **members,
    }
