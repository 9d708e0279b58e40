"""The official OpenFeature SDK against a whole system, and the protocol beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagEvaluationDetails, Reason

from handlers import directory
from tests.http.test_problems import checked
from tests.interfaces.blocking import OneThread
from tests.interfaces.windows import first_window
from tests.system import System

FLAGS = "/ofrep/v1/evaluate/flags"
KEYS = [f"user-{number}" for number in range(100)]


@pytest.fixture
def flags(served: System) -> Iterator[OpenFeatureClient]:
    """The SDK as an application uses it."""
    yield from a_client(served.url, served.key)


def a_client(url: str, key: str) -> Iterator[OpenFeatureClient]:
    headers = {"Authorization": f"Bearer {key}"}
    provider = OFREPProvider(url, headers_factory=lambda: headers, timeout=20.0)
    api.set_provider(provider)
    try:
        yield api.get_client()
    finally:
        api.shutdown()
        api.clear_providers()
        provider.session.close()


async def evaluated(
    thread: OneThread, flags: OpenFeatureClient, flag: str, key: str | None, **attributes: Any
) -> FlagEvaluationDetails[str]:
    context = EvaluationContext(targeting_key=key, attributes=attributes)
    return await thread(flags.get_string_details, flag, "the code's default", context)


def asked(key: str, **attributes: Any) -> dict[str, Any]:
    return {"context": {"targetingKey": key, **attributes}}


# ---- the SDK


@pytest.mark.slow
async def test_a_flag_says_which_version_answers_the_key_before_and_after_a_policy(
    served: System, thread: OneThread, flags: OpenFeatureClient
):
    client = served.client
    await client.create_endpoint("flagged", model="fraud", version="1.0.0")
    before: dict[str, str] = {}
    for split, reason in (
        ({"1.0.0": 1}, Reason.STATIC),
        ({"1.0.0": 70, "2.0.0": 30}, Reason.SPLIT),
        ({"1.0.0": 20, "2.0.0": 40, "3.0.0": 40}, Reason.SPLIT),
    ):
        position = (await client.set_policy("flagged", {"split": split}))["position"]
        now: dict[str, str] = {}
        for key in KEYS:
            details = await evaluated(thread, flags, "flagged", key)
            answered = await client.infer("flagged", 1, key=key)
            assert details.value == details.variant == answered.version
            assert (details.reason, details.error_code) == (reason, None)
            assert details.flag_metadata == {"model": "fraud", "position": answered.position}
            now[key] = details.value
        assert set(now.values()) == set(split)
        assert now != before
        assert answered.position <= position
        before = now


async def test_a_rule_is_targeting_and_texts_of_the_context_are_its_attributes(
    served: System, thread: OneThread, flags: OpenFeatureClient
):
    client = served.client
    await client.create_endpoint("targeted", model="fraud", version="1.0.0")
    beta = {"name": "beta", "when": {"attributes": {"tier": "7"}}, "split": {"2.0.0": 1}}
    await client.set_policy("targeted", {"split": {"1.0.0": 1}, "rules": [beta]})
    details = await evaluated(thread, flags, "targeted", "u", tier="7", other=True)
    assert (details.value, details.reason) == ("2.0.0", Reason.TARGETING_MATCH)
    assert details.flag_metadata["rule"] == "beta"
    answered = await client.infer("targeted", 1, key="u", attributes={"tier": "7"})
    assert (answered.version, answered.rule) == ("2.0.0", "beta")
    for attributes in ({"tier": 7}, {"tier": "8"}, {}):
        details = await evaluated(thread, flags, "targeted", "u", **attributes)
        assert (details.value, details.reason) == ("1.0.0", Reason.STATIC)
        assert "rule" not in details.flag_metadata


@pytest.mark.parametrize(
    ("flag", "key", "attributes", "code"),
    [
        ("nothing", "u", {}, ErrorCode.FLAG_NOT_FOUND),
        ("no.endpoint/could be*called>so", "u", {}, ErrorCode.FLAG_NOT_FOUND),
        ("chat", None, {}, ErrorCode.TARGETING_KEY_MISSING),
        ("chat", None, {"targetingKey": 7}, ErrorCode.INVALID_CONTEXT),
    ],
)
async def test_without_a_value_the_code_s_default_holds_and_the_sdk_knows_why(
    thread: OneThread,
    flags: OpenFeatureClient,
    flag: str,
    key: str | None,
    attributes: dict[str, Any],
    code: ErrorCode,
):
    details = await evaluated(thread, flags, flag, key, **attributes)
    assert (details.value, details.reason) == ("the code's default", Reason.ERROR)
    assert details.error_code == code


async def test_where_no_key_decides_there_is_no_value(
    served: System, thread: OneThread, flags: OpenFeatureClient, http: httpx.AsyncClient
):
    client = served.client
    await client.create_endpoint("loose", model="fraud", version="1.0.0")
    await client.set_policy("loose", {"split": {"1.0.0": 1}, "sticky": False})
    assert (await evaluated(thread, flags, "loose", "u")).value == "1.0.0"
    await client.set_policy("loose", {"split": {"1.0.0": 1, "2.0.0": 1}, "sticky": False})
    details = await evaluated(thread, flags, "loose", "u")
    assert (details.error_code, details.value) == (ErrorCode.GENERAL, "the code's default")
    assert "not sticky" in (details.error_message or "")
    every = (await http.post(FLAGS, json=asked("u"))).json()["flags"]
    [loose] = [flag for flag in every if flag["key"] == "loose"]
    assert loose["errorCode"] == "GENERAL" and "value" not in loose


async def test_a_wrong_key_is_no_reason_to_fail_an_application(served: System, thread: OneThread):
    for flags in a_client(served.url, "wrong"):
        details = await evaluated(thread, flags, "chat", "u")
        assert details.value == "the code's default"
        assert (details.error_code, details.error_message) == (ErrorCode.GENERAL, "unauthorized")


# ---- the protocol


async def test_every_endpoint_of_the_tenant_is_evaluated_at_once(
    served: System, http: httpx.AsyncClient
):
    answer = await http.post(FLAGS, json=asked("u"))
    flags = {flag["key"]: flag for flag in answer.json()["flags"]}
    assert list(flags) == sorted(flags)
    assert set(flags) == {endpoint["name"] async for endpoint in served.client.endpoints()}
    for name in ("chat", "shapes"):
        assert (await http.post(f"{FLAGS}/{name}", json=asked("u"))).json() == flags[name]


async def test_what_is_unchanged_is_not_sent_again(served: System, http: httpx.AsyncClient):
    client = served.client
    await client.create_endpoint("tagged", model="fraud", version="1.0.0")
    first = await http.post(FLAGS, json=asked("u"))
    tag = first.headers["etag"]
    for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = await http.post(FLAGS, json=asked("u"), headers={"If-None-Match": header})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    for header in ('"x"', tag.strip('"'), ""):
        again = await http.post(FLAGS, json=asked("u"), headers={"If-None-Match": header})
        assert (again.status_code, again.json()) == (200, first.json())
    await client.set_policy("tagged", {"split": {"1.0.0": 1, "2.0.0": 1}})
    changed = await http.post(FLAGS, json=asked("u"), headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_an_evaluation_is_no_traffic(served: System, http: httpx.AsyncClient):
    await served.client.create_endpoint("quiet", model="fraud", version="1.0.0")
    for _ in range(5):
        assert (await http.post(f"{FLAGS}/quiet", json=asked("u"))).status_code == 200
        assert (await http.post(FLAGS, json=asked("u"))).status_code == 200
    assert 'endpoint="quiet"' not in (await http.get("/metrics")).text
    await served.client.infer("quiet", 1)
    assert await first_window(served, "quiet") == {"1.0.0": 1}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "PARSE_ERROR"),
        (b"{", "PARSE_ERROR"),
        (b"[]", "PARSE_ERROR"),
        (b'{"context":{"targetingKey":"u"},"colour":1}', "PARSE_ERROR"),
        (b'{"context":{"targetingKey":"\xff"}}', "PARSE_ERROR"),
        (b'{"context":{"a":' + b"[" * 100_000, "PARSE_ERROR"),
        (b"{}", "INVALID_CONTEXT"),
        (b'{"context":7}', "INVALID_CONTEXT"),
        (b'{"context":{"targetingKey":{}}}', "INVALID_CONTEXT"),
        (b'{"context":{}}', "TARGETING_KEY_MISSING"),
        (b'{"context":{"targetingKey":null}}', "TARGETING_KEY_MISSING"),
        (b'{"context":{"targetingKey":""}}', "TARGETING_KEY_MISSING"),
    ],
)
async def test_a_body_that_cannot_be_evaluated_is_told_in_the_protocols_words(
    http: httpx.AsyncClient, body: bytes, code: str
):
    for path in (FLAGS, f"{FLAGS}/chat"):
        problem = checked(await http.post(path, content=body), "invalid")
        assert problem["errorCode"] == code
        assert problem["errorDetails"] == problem["detail"]
        assert problem.get("key") == ("chat" if path.endswith("chat") else None)


async def test_a_tenant_over_its_quota_is_told_when_to_come_back(
    served: System, http: httpx.AsyncClient
):
    await served.client.create_tenant("limited")
    issued = await served.client.issue_key("limited", scopes=["infer"])
    await served.client.of_tenant("limited").set_quota("limited", requests_per_s=0)
    headers = {"Authorization": f"Bearer {issued['key']}"}
    answer = await http.post(FLAGS, json=asked("u"), headers=headers)
    assert checked(answer, "rate_limited")["errorCode"] == "GENERAL"
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_minimum_position_is_waited_for_or_refused(
    served: System, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(directory, "REACH_SECONDS", 0.01)
    position = await served.process.jetstream.events.position()
    headers = {"Switchback-Min-Position": str(position)}
    assert (await http.post(FLAGS, json=asked("u"), headers=headers)).status_code == 200
    headers = {"Switchback-Min-Position": str(position + 1_000_000)}
    answer = await http.post(FLAGS, json=asked("u"), headers=headers)
    checked(answer, "stale")
