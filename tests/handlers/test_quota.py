"""A tenant has no more models and endpoints than its quota allows."""

from __future__ import annotations

import pytest

from switchback.client import Problem
from tests.system import System


async def test_one_more_than_the_quota_is_refused_and_what_is_there_stays(system: System):
    client = system.client
    await client.set_quota("default", models_max=1, endpoints_max=1)
    await client.register_model("fraud")
    await client.register_model("fraud")
    with pytest.raises(Problem) as refused:
        await client.register_model("churn")
    assert refused.value.code == "conflict"
    await client.register_version("fraud", "1.0.0", runtime="echo")
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    with pytest.raises(Problem) as refused:
        await client.create_endpoint("others", model="fraud", version="1.0.0")
    assert refused.value.code == "conflict"
    await client.set_quota("default")
    await client.register_model("churn")
    await client.create_endpoint("others", model="fraud", version="1.0.0")
