"""What the client promises: once, in order, with the server's own reasons."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import httpx
import msgspec
import pytest

from switchback.client import Client, Credentials, CredentialsMissing, Problem
from switchback.client.credentials import read_credentials
from switchback.client.transport import RETRY_SECONDS
from tests.client.gateway import Answer, Gateway, problem

LOST = httpx.ReadError("connection reset")


def accepted(position: int) -> Answer:
    return Answer(
        status=201,
        headers={"Switchback-Position": str(position)},
        body={"position": position},
    )


async def test_a_command_lost_on_the_way_is_sent_again_under_the_same_key(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(LOST, LOST, accepted(7))
    assert (await client.register_model("fraud"))["position"] == 7
    keys = {request.headers["idempotency-key"] for request in gateway.requests}
    assert len(gateway.requests) == 3
    assert len(keys) == 1
    assert UUID(keys.pop())


async def test_two_commands_never_share_a_key(client: Client, gateway: Gateway) -> None:
    gateway.will(accepted(1), accepted(2))
    await client.register_model("fraud")
    await client.register_model("fraud")
    first, second = (request.headers["idempotency-key"] for request in gateway.requests)
    assert first != second


async def test_a_command_that_the_server_took_but_did_not_answer_is_not_sent_again(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(httpx.ReadTimeout("30 s"))
    with pytest.raises(httpx.ReadTimeout):
        await client.register_model("fraud")
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("code", "status"), [("unavailable", 503), ("overloaded", 503), ("rate_limited", 429)]
)
async def test_what_the_server_asks_to_send_again_is_sent_again_after_the_time_it_asks_for(
    client: Client, gateway: Gateway, pauses: list[float], code: str, status: int
) -> None:
    gateway.will(problem(code, status, retry_after="3"), accepted(1))
    await client.rollback("chat")
    assert pauses == [3.0]


async def test_pauses_grow_and_end_with_the_servers_last_reason(
    client: Client, gateway: Gateway, pauses: list[float]
) -> None:
    gateway.will(*[problem("unavailable", 503, detail="no leader")] * 50)
    with pytest.raises(Problem, match="no leader"):
        await client.rollback("chat")
    assert pauses[:4] == [0.05, 0.1, 0.2, 0.4]
    assert pauses == sorted(pauses)
    assert 15 < sum(pauses) <= RETRY_SECONDS


@pytest.mark.parametrize(
    ("code", "status"),
    [("invalid", 400), ("forbidden", 403), ("conflict", 409), ("stale", 412), ("timeout", 504)],
)
async def test_every_other_refusal_is_final(
    client: Client, gateway: Gateway, code: str, status: int
) -> None:
    gateway.will(problem(code, status, detail="because", fields={"split.1.0.0": "negative"}))
    with pytest.raises(Problem) as raised:
        await client.set_policy("chat", {"split": {"1.0.0": -1}})
    assert (raised.value.code, raised.value.status) == (code, status)
    assert raised.value.detail == "because"
    assert raised.value.fields == {"split.1.0.0": "negative"}
    assert len(gateway.requests) == 1


async def test_an_error_that_is_no_problem_document_is_told_as_it_came(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(Answer(status=502, body=b"<html>bad gateway</html>"))
    with pytest.raises(Problem, match="bad gateway") as raised:
        await client.model("fraud")
    assert (raised.value.code, raised.value.status) == ("unknown", 502)


async def test_inference_is_sent_once_whatever_happens(client: Client, gateway: Gateway) -> None:
    gateway.will(LOST, problem("overloaded", 503, retry_after="1"))
    with pytest.raises(httpx.ReadError):
        await client.infer("chat", [1])
    with pytest.raises(Problem, match="overloaded"):
        await client.infer("chat", [1])
    assert len(gateway.requests) == 2
    assert "idempotency-key" not in gateway.last.headers


async def test_an_inference_carries_its_proof(client: Client, gateway: Gateway) -> None:
    headers = {
        "Switchback-Position": "12",
        "Switchback-Receipt": "r",
        "Switchback-Rule": "",
        "Switchback-Overhead-Ms": "0.5",
        "Switchback-Attempts": "2",
    }
    body = {"outputs": {"label": 7}, "version": "2.0.0", "request_id": "q"}
    gateway.will(Answer(headers=headers, body=body))
    answer = await client.infer("chat", [1], key="user-17", attributes={"tier": "beta"})
    assert gateway.last.body == {"inputs": [1], "key": "user-17", "attributes": {"tier": "beta"}}
    assert (answer.outputs, answer.version, answer.receipt) == ({"label": 7}, "2.0.0", "r")
    assert (answer.position, answer.rule, answer.overhead_ms, answer.attempts) == (12, None, 0.5, 2)
    assert client.min_position == 0


async def test_a_failed_inference_names_its_version(client: Client, gateway: Gateway) -> None:
    failure = problem("runtime_failed", 502)
    gateway.will(msgspec.structs.replace(failure, headers={"Switchback-Version": "2.0.0"}))
    with pytest.raises(Problem) as raised:
        await client.infer("chat", [1])
    assert raised.value.version == "2.0.0"


async def test_a_read_waits_for_the_commands_that_were_answered_before(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(Answer(), accepted(9), accepted(4), Answer(), Answer())
    await client.endpoint("chat")
    assert "switchback-min-position" not in gateway.last.headers
    await client.register_model("fraud")
    await client.register_model("older")
    await client.endpoint("chat")
    assert gateway.last.headers["switchback-min-position"] == "9"
    client.min_position = 100
    await client.endpoint("chat")
    assert gateway.last.headers["switchback-min-position"] == "100"


async def test_a_swap_waits_for_its_end_and_a_requested_one_does_not(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(accepted(1), accepted(2))
    await client.swap("chat", to="2.0.0", timeout_s=5)
    assert gateway.last.query == {"wait": "true"}
    assert gateway.last.body == {"to": "2.0.0", "timeout_s": 5}
    await client.request_swap("chat", to="2.0.0")
    assert gateway.last.query == {}


async def test_a_list_goes_over_all_pages(client: Client, gateway: Gateway) -> None:
    gateway.will(
        Answer(body={"items": [{"n": 1}, {"n": 2}], "next": "b c"}),
        Answer(body={"items": [{"n": 3}], "next": None}),
    )
    assert [event["n"] async for event in client.events(entity="endpoint/chat")] == [1, 2, 3]
    first, second = gateway.requests
    assert first.query == {"limit": "1000", "after": "0", "entity": "endpoint/chat"}
    assert second.query["after"] == "b c"


async def test_names_cannot_leave_their_place_in_the_path(client: Client, gateway: Gateway) -> None:
    gateway.will(Answer())
    await client.version("../../x?y", "1.0.0+build/7")
    assert gateway.last.path == "/api/v1/models/..%2F..%2Fx%3Fy/versions/1.0.0%2Bbuild%2F7"


async def test_another_tenants_resources_are_named_in_the_path(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(Answer(), accepted(3))
    await client.of_tenant("acme").endpoint("chat")
    assert gateway.last.path == "/api/v1/tenants/acme/endpoints/chat"
    await client.issue_key("acme", scopes=["read"])
    assert gateway.last.path == "/api/v1/tenants/acme/keys"
    assert gateway.last.body == {"scopes": ["read"]}
    assert gateway.last.headers["authorization"] == "Bearer secret"


def test_credentials_come_from_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text('{"url": "http://a", "tenant": "t", "key": "k"}')
    assert read_credentials(tmp_path) == Credentials(url="http://a", tenant="t", key="k")


@pytest.mark.parametrize("content", [None, "", "{}", '{"url": 1}'])
def test_credentials_that_cannot_be_used_are_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "credentials.json").write_text(content)
    with pytest.raises(CredentialsMissing, match=r"credentials\.json"):
        Client.from_data_dir(tmp_path)
