"""Whatever is wrong with a request is answered by a problem document, and leaves no event."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.errors import (
    AppendOutcomeUnknown,
    EventTooLarge,
    InvalidIdentifier,
    LogUnavailable,
    NoResponders,
    RemoteFailure,
    RequestTimeout,
    WrongExpectedPosition,
)
from events.event import EntityId
from handlers.executions import EndpointUnknown, InferenceFailed, NotServed, VersionFailed
from handlers.http.bodies import NESTING_LEVELS_MAX, check_storable
from handlers.http.problems import STATUS, Rejected, problem_of
from projections.errors import DatabaseTimeout, DatabaseUnavailable, StalePosition
from tests.http.conftest import House

MODELS = "/api/v1/models"
OF_PROTOCOLS = {"error", "errorCode", "errorDetails", "key"}
"""Members that clients of open protocols look for."""
VERSIONS = "/api/v1/models/fraud/versions"
ROLLOUTS = "/api/v1/endpoints/score/rollouts"


def checked(response: httpx.Response, code: str) -> dict[str, Any]:
    """The problem document of a response, whose form is right and whose code is `code`."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, Any] = response.json()
    assert set(problem) - OF_PROTOCOLS <= {"type", "title", "status", "detail", "code", "fields"}
    assert problem["code"] == code, problem
    assert problem["status"] == response.status_code
    assert ("fields" in problem) == (code == "invalid")
    return problem


def nested(levels: int) -> bytes:
    return b'{"name":"m","labels":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (MODELS, b"", "body"),
        (MODELS, b"{", "body"),
        (MODELS, b"[]", "body"),
        (MODELS, b"null", "body"),
        (MODELS, b'{"name":"m"} x', "body"),
        (MODELS, b'{"name":NaN}', "body"),
        (MODELS, b'{"name":"\xff"}', "body"),
        (MODELS, b'{"name":"\\ud800"}', "body"),
        (MODELS, b'{"name":"m\\u0000"}', "body"),
        (MODELS, nested(NESTING_LEVELS_MAX), "body"),
        (MODELS, nested(100_000), "body"),
        (MODELS, b"{}", "name"),
        (MODELS, b'{"name":7}', "name"),
        (MODELS, b'{"name":"m","colour":"red"}', "colour"),
        (MODELS, b'{"name":"m","labels":{"a":1}}', "labels[...]"),
        (MODELS, b'{"name":"a.b"}', "name"),
        (MODELS, b'{"name":"*"}', "name"),
        (MODELS, b'{"name":">"}', "name"),
        (MODELS, b'{"name":"a\\nb"}', "name"),
        (MODELS, b'{"name":"' + b"a" * 10_000 + b'"}', "name"),
        (VERSIONS, b'{"version":"2.0.0","runtime":"java"}', "runtime"),
        (VERSIONS, b'{"version":"2.0.0","runtime":"echo","memory_bytes":"1"}', "memory_bytes"),
        (VERSIONS, b'{"version":"2.0.0","runtime":"echo","metrics":{"a":1e999}}', "metrics[...]"),
        (VERSIONS, b'{"version":"2.0.0","runtime":"echo","artifact":{}}', "artifact.uri"),
        ("/api/v1/explain", b'{"receipt":""}', "receipt"),
        ("/api/v1/endpoints/score/swap", b'{"to":"2","timeout_s":0}', "timeout_s"),
        ("/api/v1/endpoints/score/alerts", b'{"kind":"k","severity":"mild"}', "severity"),
        (ROLLOUTS, b"{}", "to"),
        (ROLLOUTS, b'{"to":"2.0.0","colour":"red"}', "colour"),
        (ROLLOUTS, b'{"to":"2.0.0","steps":[]}', "steps"),
        (ROLLOUTS, b'{"to":"2.0.0","steps":[{"weight":5}]}', "steps[0].hold_s"),
        (ROLLOUTS, b'{"to":"2.0.0","steps":[{"weight":"5","hold_s":1}]}', "steps[0].weight"),
        (ROLLOUTS, b'{"to":"2.0.0","steps":[{"weight":5,"hold_s":1e999}]}', "steps[0].hold_s"),
        (ROLLOUTS, b'{"to":"2.0.0","steps":[{"weight":5,"hold":1}]}', "steps[0].hold"),
        (ROLLOUTS, b'{"to":"2.0.0","analysis":{"metric":"beauty"}}', "analysis.metric"),
        (
            ROLLOUTS,
            b'{"to":"2.0.0","analysis":{"on_inconclusive":"x"}}',
            "analysis.on_inconclusive",
        ),
        (ROLLOUTS, b'{"to":"2.0.0","analysis":{"maximum":1}}', "analysis.maximum"),
        (f"{ROLLOUTS}/r/promote", b'{"to":"half"}', "to"),
        (f"{ROLLOUTS}/r/promote", b'{"from_step":-1}', "from_step"),
        (f"{ROLLOUTS}/r/pause", b'{"reason":"lunch"}', "reason"),
        (f"{ROLLOUTS}/r/resume", b"[]", "body"),
        (f"{ROLLOUTS}/r/abort", b'{"reason":"' + b"a" * 1001 + b'"}', "reason"),
        ("/api/v1/endpoints/score/infer", b'{"key":"k"}', "inputs"),
        ("/api/v1/endpoints/score/infer", b'{"inputs":' + b"[" * 100_000, "body"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_by_field_and_leaves_no_event(
    shared: House, path: str, body: bytes, field: str
) -> None:
    before = await shared.log.position()
    problem = checked(await shared.client.post(path, content=body), "invalid")
    assert list(problem["fields"]) == [field]
    assert await shared.log.position() == before


@pytest.mark.parametrize(
    "name", ["a.b", "*", ">", "a%20b", "a%00", "a%0A", "%FF", "%E2%80%AE", "-a", "a" * 10_000]
)
@pytest.mark.parametrize(
    "path",
    [
        "models/{}",
        "endpoints/{}",
        "endpoints/{}/rollouts",
        "endpoints/score/rollouts/{}",
        "nodes/{}",
        "models/fraud/aliases/{}",
        "endpoints/{}/x",
    ],
)
async def test_a_hostile_id_in_a_path_is_a_problem_and_never_a_failure(
    shared: House, path: str, name: str
) -> None:
    response = await shared.client.get(f"/api/v1/{path.format(name)}")
    checked(response, "not_found" if path.endswith("x") else "invalid")


@pytest.mark.parametrize("path", ["/", "/nope", "/api", "/api/v1", "/api/v2/models", "/schema"])
async def test_an_unknown_route_is_not_found(shared: House, path: str) -> None:
    checked(await shared.client.get(path), "not_found")


async def test_another_method_is_told_which_are_allowed(client: httpx.AsyncClient) -> None:
    response = await client.patch(MODELS)
    assert response.status_code == 405
    checked(response, "invalid")
    assert set(response.headers["allow"].split(", ")) == {"OPTIONS", "GET", "POST"}


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", f"after={'a' * 65}"])
async def test_a_wrong_query_parameter_is_named(client: httpx.AsyncClient, query: str) -> None:
    problem = checked(await client.get(f"{MODELS}?{query}"), "invalid")
    assert list(problem["fields"]) == [query.partition("=")[0]]


@pytest.mark.parametrize(
    "query",
    [
        "since_s=0",
        "since_s=-1",
        "since_s=nan",
        "since_s=inf",
        "since_s=604801",
        "since_s=soon",
        "baseline=",
        "candidate=*",
        "candidate=1.0.0%00",
    ],
)
async def test_a_span_or_a_version_that_is_none_is_named(shared: House, query: str) -> None:
    response = await shared.client.get(f"/api/v1/endpoints/score/compare?{query}")
    assert list(checked(response, "invalid")["fields"]) == [query.partition("=")[0]]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Switchback-Min-Position", "x"),
        ("Switchback-Min-Position", "-1"),
        ("Switchback-Min-Position", "9" * 40),
        ("Idempotency-Key", "k" * 256),
        ("Idempotency-Key", "soft\xadhyphen"),
    ],
)
async def test_a_wrong_header_is_named(client: httpx.AsyncClient, header: str, value: str) -> None:
    problem = checked(
        await client.get(MODELS, headers=[(header.encode(), value.encode("latin-1"))]), "invalid"
    )
    assert list(problem["fields"]) == [header]


@pytest.mark.parametrize("at", ["x", "", "2026-01-01", "2026-01-01T00:00:00", "-1", "9" * 30, "²"])
async def test_a_moment_that_is_none_is_refused(shared: House, at: str) -> None:
    response = await shared.client.get("/api/v1/endpoints/score", params={"at": at})
    assert list(checked(response, "invalid")["fields"]) == ["at"]


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(
    house: House,
) -> None:
    reader, writer = await asyncio.open_connection(house.server.host, house.server.port)
    writer.write(
        f"POST {MODELS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.admin}\r\n"
        f"Content-Length: {1024 * 1024 + 1}\r\n\r\n".encode()
    )
    assert await reader.readline() == b"HTTP/1.1 413 Payload Too Large\r\n"
    writer.close()


async def test_a_body_without_a_length_is_refused_once_it_is_too_large(house: House) -> None:
    async def chunks() -> Any:
        for _ in range(320):
            yield b" " * 65_536

    response = await house.client.post(MODELS, content=chunks())
    checked(response, "too_large")
    assert await house.log.position() == 0


async def test_inference_has_a_larger_limit_of_its_own(client: httpx.AsyncClient) -> None:
    path = "/api/v1/endpoints/score/infer"
    body = json.dumps({"inputs": "a" * 1_500_000}).encode()
    assert (await client.post(path, content=body)).status_code == 200
    checked(await client.post(path, content=b" " * (2 * 1024 * 1024 + 1)), "too_large")


def test_an_unknown_error_says_nothing_about_the_inside() -> None:
    problem, _ = problem_of(ZeroDivisionError("secret detail of the inside"))
    assert (problem.status, problem.code) == (500, "internal")
    assert "secret" not in problem.detail


ENTITY = EntityId("acme", "model", "fraud")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidIdentifier("id", "*"), "invalid"),
        (WrongExpectedPosition(ENTITY, 1, 2), "conflict"),
        (LogUnavailable("away"), "unavailable"),
        (AppendOutcomeUnknown("away"), "unavailable"),
        (EventTooLarge(ENTITY, 2, 1), "too_large"),
        (NoResponders("inf.a.b"), "unavailable"),
        (RequestTimeout("inf.a.b", 1), "timeout"),
        (RemoteFailure("inf.a.b", "runtime_failed", "it failed"), "runtime_failed"),
        (StalePosition(2, 1), "stale"),
        (DatabaseUnavailable("away"), "unavailable"),
        (DatabaseTimeout("query", 1), "timeout"),
        (TimeoutError(), "timeout"),
        (Rejected("overloaded", "busy"), "overloaded"),
    ],
)
def test_every_error_of_the_house_has_its_code(error: Exception, code: str) -> None:
    problem, headers = problem_of(error)
    assert (problem.code, problem.status) == (code, STATUS[code])
    assert ("Retry-After" in headers) == (code in ("unavailable", "overloaded"))


@pytest.mark.parametrize(
    ("failed", "version", "headers"),
    [
        (VersionFailed("it failed"), "2.0.0", {"Switchback-Version": "2.0.0"}),
        (NotServed("nobody"), "2.0.0", {"Switchback-Version": "2.0.0", "Retry-After": "1"}),
        (EndpointUnknown("no endpoint"), "", {}),
    ],
)
def test_a_failed_inference_names_the_version_that_was_chosen_for_it(
    failed: InferenceFailed, version: str, headers: dict[str, str]
) -> None:
    failed.version = version
    assert problem_of(failed)[1] == headers


@pytest.mark.parametrize(
    ("wait_s", "told"), [(None, "1"), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.2, "2"), (60.0, "60")]
)
def test_clients_wait_whole_seconds_and_no_longer_than_the_next(
    wait_s: float | None, told: str
) -> None:
    busy = Rejected("overloaded", "busy", retry_after_s=wait_s)
    assert problem_of(busy)[1]["Retry-After"] == told


@settings(max_examples=200)
@given(st.text())
def test_a_body_holds_nul_exactly_if_it_is_refused_for_it(text: str) -> None:
    body = json.dumps({"name": text.replace("{", "").replace("[", "")}).encode()
    if "\0" in text:
        with pytest.raises(Rejected):
            check_storable(body)
    else:
        check_storable(body)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.binary(max_size=200),
    path=st.sampled_from([MODELS, VERSIONS, ROLLOUTS, "/api/v1/tenants"]),
)
async def test_no_bytes_make_it_fail(shared: House, body: bytes, path: str) -> None:
    response = await shared.client.post(path, content=body)
    assert response.status_code < 500, response.text


@pytest.mark.parametrize("key", ["right", "wrong"])
async def test_who_sends_a_large_body_still_reads_the_refusal(house: House, key: str) -> None:
    headers = {"Authorization": f"Bearer {house.admin if key == 'right' else key}"}
    response = await house.client.post(MODELS, content=b" " * 20_000_000, headers=headers)
    checked(response, "too_large" if key == "right" else "unauthenticated")
    assert (await house.client.get(MODELS)).status_code == 200
