"""Bad input, over a real socket: each gets its problem document, and nothing reaches the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import nats
import pytest
import pytest_asyncio

from engine.runtimes import describe_artifact
from handlers.http.problems import STATUS
from handlers.http.switching import SWAP_TIMEOUT_S_MAX
from switchback.embedded import PostgresServer
from tests.scenarios.standing import beside, standing
from tests.system import System

MIB = 1024 * 1024
INFERENCE_BYTES_MAX = 2 * MIB
SHA = "0" * 64
FULL_WIDTH_M = "\N{FULLWIDTH LATIN SMALL LETTER M}"
CYRILLIC_A = "\N{CYRILLIC SMALL LETTER A}"

HOSTILE = {
    "asterisk": "*",
    "greater": ">",
    "dot": "a.b",
    "slash": "a/b",
    "parent": "..",
    "escaped slash": "a%2Fb",
    "space": "a b",
    "newline": "a\n",
    "carriage return": "a\r\nX: y",
    "NUL": "a\x00",
    "escape": "a\x1b[31m",
    "lookalike": CYRILLIC_A,
    "full width": FULL_WIDTH_M,
    "combining": "e\N{COMBINING ACUTE ACCENT}",
    "zero width": "a\N{ZERO WIDTH SPACE}",
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}a",
    "system subject": "$SYS",
    "leading dash": "-a",
    "65 characters": "a" * 65,
    "10 kB": "a" * 10_240,
}


class Target:
    """A system with model `m@1.0.0` behind endpoint `e`, and what an attack is measured by."""

    def __init__(self, system: System, http: httpx.AsyncClient) -> None:
        self.system = system
        self.http = http

    async def refuses(
        self, method: str, path: str, code: str, *fields: str, **request: Any
    ) -> dict[str, Any]:
        """The problem, which is right in every respect; the log stands where it stood."""
        before = await self.position()
        response = await self.http.request(method, "/api/v1" + path, **request)
        problem = problem_in(response, code)
        if fields:
            assert sorted(problem["fields"]) == sorted(fields)
        assert await self.position() == before
        return problem

    async def position(self) -> int:
        return await self.system.process.jetstream.events.position()


def problem_in(response: httpx.Response, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (STATUS[code], code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == response.status_code
    assert problem["type"] and problem["title"] and problem["detail"]
    assert "Traceback" not in response.text
    if code == "invalid":
        assert problem["fields"] and all(problem["fields"].values())
    return problem


@pytest_asyncio.fixture(scope="module")
async def target(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> AsyncIterator[Target]:
    directory = tmp_path_factory.mktemp("bad_input")
    async with standing(
        directory, postgres_server, inference_body_bytes_max=INFERENCE_BYTES_MAX
    ) as system:
        await system.client.register_model("m")
        await system.client.register_version("m", "1.0.0", runtime="echo")
        await system.client.register_version("m", "1.1.0", runtime="echo")
        await system.client.create_endpoint("e", model="m", version="1.0.0")
        headers = {"Authorization": f"Bearer {system.key}"}
        async with httpx.AsyncClient(base_url=system.url, headers=headers) as http:
            yield Target(system, http)


# -------------------------------------------------------------------------------------- Hostile ids


@pytest.mark.parametrize("id_", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_name_in_a_body_is_refused_by_its_member(target: Target, id_: str):
    named = ["body"] if "\x00" in id_ else ["name"]
    await target.refuses("POST", "/models", "invalid", *named, json={"name": id_})
    await target.refuses("POST", "/tenants", "invalid", *named, json={"name": id_})
    endpoint = {"model": id_, "version": "1.0.0"}
    await target.refuses("PUT", "/endpoints/x", "invalid", json=endpoint)
    version = {"version": id_, "runtime": "echo"}
    await target.refuses("POST", "/models/m/versions", "invalid", json=version)
    version = {"version": "2.0.0", "runtime": "echo", "parent": f"{id_}@1.0.0"}
    await target.refuses("POST", "/models/m/versions", "invalid", json=version)


@pytest.mark.parametrize("id_", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_name_in_a_path_reaches_nothing(target: Target, id_: str):
    part = quote(id_, safe="").replace("..", "%2E%2E")
    beyond = "not_found" if "/" in id_ else "invalid"
    for method, path, body in (
        ("GET", "/models/{}", None),
        ("PUT", "/endpoints/{}", {"model": "m", "version": "1.0.0"}),
        ("PUT", "/models/m/aliases/{}", {"version": "1.0.0"}),
        ("POST", "/endpoints/{}/infer", {"inputs": 1}),
        ("POST", "/nodes/{}/drain", {}),
        ("DELETE", "/keys/{}", None),
    ):
        await target.refuses(method, path.format(part), beyond, json=body)
    await target.refuses("GET", f"/tenants/{part}/models", "not_found")
    await target.refuses("POST", f"/tenants/{part}/models", "not_found", json={"name": "x"})


@pytest.mark.parametrize("version", ["1", "v1.0.0", "01.0.0", "1.0", "1.0.0-", "1.0.0+a_b"])
async def test_what_is_no_semantic_version_is_refused(target: Target, version: str):
    body = {"version": version, "runtime": "echo"}
    await target.refuses("POST", "/models/m/versions", "invalid", "version", json=body)


async def test_the_reserved_tenant_takes_no_commands(target: Target):
    await target.refuses("POST", "/tenants", "invalid", "name", json={"name": "system"})
    await target.refuses("POST", "/tenants/system/models", "not_found", json={"name": "m"})
    await target.refuses("POST", "/tenants/system/keys", "not_found", json={"scopes": ["read"]})


# ------------------------------------------------------------------------------------------- Bodies

MODELS: dict[bytes, str] = {
    b"": "body",
    b"{": "body",
    b"[]": "body",
    b"null": "body",
    b'{"name": "x"} trailing': "body",
    b'{"name": "x",}': "body",
    b"{'name': 'x'}": "body",
    b'{"name": NaN}': "body",
    b'{"name": "\xff"}': "body",
    b'{"name": "\xc0\xaf"}': "body",
    b'{"name": "x", "description": "\\ud800"}': "body",
    b'{"name": "x", "description": "\\u0000"}': "body",
    b'{"name": "x", "labels": {"\\u0000": ""}}': "body",
    b'\xef\xbb\xbf{"name": "x"}': "body",
    '{"name": "x"}'.encode("utf-16"): "body",
    b'{"name": "x", "labels": ' + b'{"a":' * 100 + b"1" + b"}" * 101: "body",
    b"[" * 200_000: "body",
    b'{"a":' * 200_000: "body",
    b'{"name": "x", "name": "y"}': "name",
    b'{"name": "x", "labels": {"a": "1", "a": "2"}}': "a",
    b"{}": "name",
    b'{"name": 7}': "name",
    b'{"name": null}': "name",
    b'{"name": "x", "colour": "red"}': "colour",
    b'{"name": "x", "labels": {"a": 1}}': "labels[...]",
    b'{"name": "x", "description": "' + b"x" * 2_001 + b'"}': "description",
}


@pytest.mark.parametrize("body", MODELS, ids=lambda body: repr(body[:40]))
async def test_a_body_that_is_wrong_is_refused_and_says_where(target: Target, body: bytes):
    await target.refuses("POST", "/models", "invalid", MODELS[body], content=body)


async def test_an_object_of_many_members_is_looked_at_once(target: Target):
    members = b",".join(b'"%d":""' % n for n in range(80_000))
    await target.refuses("POST", "/models", "invalid", content=b"{" + members + b"}")
    body = b'{"name": "x", "labels": {' + members + b"}}"
    await target.refuses("POST", "/models", "invalid", "labels", content=body)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"runtime": "bash"}, "runtime"),
        ({"runtime": "upstream", "config": {"url": "http://x"}}, "config.model"),
        ({"runtime": "upstream", "config": {"url": "ftp://x", "model": "y"}}, "config.url"),
        (
            {"runtime": "upstream", "config": {"url": "http://me:secret@x", "model": "y"}},
            "config.url",
        ),
        (
            {"runtime": "upstream", "config": {"url": "http://x", "model": "y", "api_key": "k"}},
            "config.api_key",
        ),
        ({"runtime": "language-model"}, "artifact"),
        ({"runtime": "language-model", "artifact": {"uri": "builtin://none"}}, "artifact.uri"),
        (
            {
                "runtime": "language-model",
                "artifact": {"uri": "builtin://facts-1"},
                "config": {"batch_max": 0},
            },
            "config.batch_max",
        ),
        ({"config": {"answers": 1}}, "config.answers"),
        ({"config": {"latency_ms": -1}}, "config.latency_ms"),
        ({"config": {"error_rate": "half"}}, "config.error_rate"),
        ({"config": {"answer": 2**64}}, "body"),
        ({"config": {"answer": "x" * 20_000}}, "config"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"memory_bytes": 1.5}, "memory_bytes"),
        ({"metrics": {"accuracy": "good"}}, "metrics[...]"),
        ({"labels": {"": "x"}}, "labels."),
        ({"labels": {str(n): "x" for n in range(65)}}, "labels"),
        ({"parent": "m@7.7.7"}, "parent"),
        ({"parent": "nowhere@1.0.0"}, "parent"),
        ({"parent": "m@2.0.0"}, "parent"),
        ({"parent": "m"}, "parent"),
        ({"artifact": {"uri": "builtin://none", "sha256": SHA, "size_bytes": 1}}, "artifact.uri"),
        ({"artifact": {"uri": "http://x/y", "sha256": SHA, "size_bytes": 1}}, "artifact.uri"),
        ({"runtime": "python", "config": {"factory": "m:f"}}, "artifact"),
    ],
    ids=str,
)
async def test_a_version_that_is_wrong_is_refused(
    target: Target, changes: dict[str, Any], field: str
):
    body = {"version": "2.0.0", "runtime": "echo"} | changes
    await target.refuses("POST", "/models/m/versions", "invalid", field, json=body)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sha256": "abc"}, "artifact.sha256"),
        ({"sha256": "A" * 64}, "artifact.sha256"),
        ({"sha256": SHA + "\n"}, "artifact.sha256"),
        ({"size_bytes": -1}, "artifact.size_bytes"),
        ({"size_bytes": "1"}, "artifact.size_bytes"),
        ({"mode": "0777"}, "artifact.mode"),
    ],
    ids=str,
)
async def test_a_digest_that_is_none_is_refused(
    target: Target, changes: dict[str, Any], field: str
):
    root = target.system.settings.artifact_roots[0]
    artifact = {"uri": (root / "x").as_uri(), "sha256": SHA, "size_bytes": 1} | changes
    body = {"version": "2.0.0", "runtime": "echo", "artifact": artifact}
    await target.refuses("POST", "/models/m/versions", "invalid", field, json=body)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "file://{root}/../outside",
        "file://{root}/%2e%2e/outside",
        "file://{root}/link/secret",
        "file://{root}/deep/../../outside",
        "file://localhost{root}/x",
        "file://{root}/x?y",
        "file://{root}/x%00",
        "file://{root}/%ff",
        "file://{root}-beside/x",
        "FILE://{root}/x",
        "{root}/x",
    ],
)
async def test_an_artifact_outside_the_roots_is_refused_when_it_is_registered(
    target: Target, uri: str
):
    root = target.system.settings.artifact_roots[0]
    root.mkdir(exist_ok=True)
    if not (root / "link").is_symlink():
        (root / "link").symlink_to("/etc")
    artifact = {"uri": uri.format(root=root), "sha256": SHA, "size_bytes": 1}
    body = {"version": "2.0.0", "runtime": "echo", "artifact": artifact}
    await target.refuses("POST", "/models/m/versions", "invalid", "artifact.uri", json=body)


def rule(**members: Any) -> dict[str, Any]:
    always = {"name": "r", "when": {"days": ["mon"]}, "split": {"1.0.0": 1}}
    return {"split": {"1.0.0": 1}, "rules": [always | members]}


def window(**when: Any) -> dict[str, Any]:
    return rule(when={"from": "09:00", "to": "17:00"} | when)


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({}, "split"),
        ({"split": {}}, "split"),
        ({"split": {"1.0.0": 0}}, "split"),
        ({"split": {"1.0.0": -1}}, "split.1.0.0"),
        ({"split": {"1.0.0": 1e300}}, "split.1.0.0"),
        ({"split": {"1.0.0": 1e-300}}, "split.1.0.0"),
        ({"split": {"7.7.7": 1}}, "split.7.7.7"),
        ({"split": {"*": 1}}, "split.*"),
        ({"split": {"1.0.0": "1"}}, "split[...]"),
        ({"split": {"1.0.0": 1}, "sticky": "yes"}, "sticky"),
        ({"split": {"1.0.0": 1}, "shadow": [{"version": "7.7.7"}]}, "shadow[0].version"),
        (
            {"split": {"1.0.0": 1}, "shadow": [{"version": "1.0.0", "fraction": 2}]},
            "shadow[0].fraction",
        ),
        (window(timezone="Mars/Olympus"), "rules[0].when.timezone"),
        (window(timezone="../../etc/passwd"), "rules[0].when.timezone"),
        (window(timezone=""), "rules[0].when.timezone"),
        (window(timezone="europe/paris"), "rules[0].when.timezone"),
        (window(to="24:00"), "rules[0].when.to"),
        (window(to="09:00"), "rules[0].when.to"),
        (window(days=["someday"]), "rules[0].when.days[0]"),
        (window(days=[]), "rules[0].when.days"),
        (rule(when={}), "rules[0].when"),
        (rule(name="a\r\nSet-Cookie: x"), "rules[0].name"),
        (rule(split={"1.0.0": -1}), "rules[0].split.1.0.0"),
        (rule(unless={}), "rules[0].unless"),
    ],
    ids=str,
)
async def test_a_policy_without_a_meaning_is_refused(
    target: Target, policy: dict[str, Any], field: str
):
    await target.refuses("PUT", "/endpoints/e/policy", "invalid", field, json=policy)


def steps(*weights: Any, **step: Any) -> dict[str, Any]:
    return {"steps": [{"weight": weight, "hold_s": 1} | step for weight in weights]}


def judged(**analysis: Any) -> dict[str, Any]:
    return {"analysis": analysis}


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        (steps(10, 10), "steps[1].weight"),
        (steps(10, 5), "steps[1].weight"),
        (steps(-1), "steps[0].weight"),
        (steps(10, 100.1), "steps[1].weight"),
        (steps(0), "steps[0].weight"),
        (steps("10"), "steps[0].weight"),
        (steps(10, hold_s=-0.001), "steps[0].hold_s"),
        (steps(10, hold_s=30 * 86_400 + 1), "steps[0].hold_s"),
        (steps(10, hold_s=1e300), "steps[0].hold_s"),
        (steps(10, min_samples=-1), "steps[0].min_samples"),
        (steps(10, min_samples=1.5), "steps[0].min_samples"),
        (steps(10, until="tomorrow"), "steps[0].until"),
        ({"steps": [{"weight": 10}]}, "steps[0].hold_s"),
        (steps(*range(1, 40)), "steps"),
        (judged(metric="happiness"), "analysis.metric"),
        (judged(metric="latency"), "analysis.max_latency_ms"),
        (judged(alpha=0), "analysis.alpha"),
        (judged(alpha=1), "analysis.alpha"),
        (judged(margin=-0.1), "analysis.margin"),
        (judged(max_error_rate=0), "analysis.max_error_rate"),
        (judged(max_error_rate=1.5), "analysis.max_error_rate"),
        (judged(max_latency_ms=-5), "analysis.max_latency_ms"),
        (judged(max_latency_ratio=0), "analysis.max_latency_ratio"),
        (judged(max_disagreement_rate=0.1), "analysis.max_disagreement_rate"),
        (judged(on_inconclusive="pray"), "analysis.on_inconclusive"),
        (judged(luck=1), "analysis.luck"),
        ({"to": "1.0.0"}, "to"),
        ({"to": "7.7.7"}, "to"),
        ({"to": "*"}, "to"),
        ({"to": None}, "to"),
        ({"from": "1.0.0"}, "from"),
    ],
    ids=str,
)
async def test_a_rollout_that_cannot_be_is_refused(
    target: Target, plan: dict[str, Any], field: str
):
    body = {"to": "1.1.0"} | plan
    await target.refuses("POST", "/endpoints/e/rollouts", "invalid", field, json=body)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_a_hold_that_is_no_finite_number_is_refused(target: Target, number: str):
    body = b'{"to": "1.1.0", "steps": [{"weight": 5, "hold_s": %s}]}' % number.encode()
    await target.refuses("POST", "/endpoints/e/rollouts", "invalid", content=body)


@pytest.mark.parametrize("verb", ["promote", "pause", "resume", "abort"])
async def test_a_rollout_that_is_none_is_not_steered(target: Target, verb: str):
    await target.refuses("POST", f"/endpoints/e/rollouts/none/{verb}", "not_found")
    await target.refuses("POST", f"/endpoints/x/rollouts/none/{verb}", "not_found")
    await target.refuses("POST", f"/endpoints/e/rollouts/a.b/{verb}", "invalid")


@pytest.mark.parametrize("weight", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
async def test_a_weight_that_is_no_finite_number_is_refused(target: Target, weight: str):
    body = b'{"split": {"1.0.0": %s}}' % weight.encode()
    await target.refuses("PUT", "/endpoints/e/policy", "invalid", content=body)


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "field"),
    [
        ("PUT", "/endpoints/e", {"model": "m", "version": "2.0.0"}, "conflict", None),
        ("PUT", "/endpoints/x", {"model": "m", "version": "7.7.7"}, "invalid", "version"),
        ("POST", "/endpoints/e/swap", {"to": "7.7.7"}, "invalid", "to"),
        ("POST", "/endpoints/e/swap", {"to": "1.0.0", "timeout_s": 0}, "invalid", "timeout_s"),
        ("POST", "/endpoints/e/swap?wait=soon", {"to": "1.0.0"}, "invalid", "wait"),
        ("POST", "/endpoints/x/swap", {"to": "1.0.0"}, "not_found", None),
        ("POST", "/endpoints/e/rollback", {"reason": 7}, "invalid", "reason"),
        ("POST", "/endpoints/e/rollback", None, "conflict", None),
        ("POST", "/endpoints/e/alerts", {"kind": "", "severity": "warning"}, "invalid", "kind"),
        ("POST", "/endpoints/e/alerts", {"kind": "k", "severity": "x"}, "invalid", "severity"),
        ("POST", "/models/m/versions/1.0.0/retire", None, "conflict", None),
        ("PUT", "/models/m/aliases/a", {"version": "7.7.7"}, "not_found", None),
        ("POST", "/models/x/versions", {"version": "1.0.0", "runtime": "echo"}, "not_found", None),
        ("POST", "/explain", {"receipt": "x"}, "invalid", "receipt"),
        ("POST", "/explain", {"receipt": "x" * 5_000}, "invalid", "receipt"),
        ("POST", "/tenants/default/keys", {"scopes": []}, "invalid", "scopes"),
        ("POST", "/tenants/default/keys", {"scopes": ["root"]}, "invalid", "scopes[0]"),
        ("POST", "/keys", {"scopes": ["read"], "expires_s": -1}, "invalid", "expires_s"),
        ("POST", "/keys", {"scopes": ["read"], "expires_s": 1e300}, "invalid", "expires_s"),
        ("PUT", "/tenants/default/quota", {"models_max": -1}, "invalid", "models_max"),
        ("PUT", "/quota", {"requests_per_s": 1.5}, "invalid", "requests_per_s"),
        ("POST", "/nodes/nowhere/drain", {}, "not_found", None),
        ("DELETE", "/keys/nobody", None, "not_found", None),
    ],
    ids=str,
)
async def test_a_command_that_makes_no_sense_is_refused(
    target: Target, method: str, path: str, body: Any, code: str, field: str | None
):
    fields = () if field is None else (field,)
    await target.refuses(method, path, code, *fields, json=body)


# ---------------------------------------------------------------------------------------- Inference


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "inputs"),
        (b'{"inputs": NaN}', "body"),
        (b'{"inputs": 1e999}', "inputs"),
        (b'{"inputs": %d}' % 2**64, "body"),
        (b'{"inputs": 1, "parameters": {"n": -%d}}' % 2**70, "body"),
        (b'{"inputs": 1, "attributes": {"tier": 7}}', "attributes[...]"),
        (b'{"inputs": 1, "key": 7}', "key"),
        (b'{"inputs": 1, "model": "m"}', "model"),
        (b'{"inputs": ' + b"[" * 100_000, "body"),
    ],
    ids=lambda value: repr(value[:40]),
)
async def test_an_inference_request_that_is_wrong_is_refused(
    target: Target, body: bytes, field: str
):
    await target.refuses("POST", "/endpoints/e/infer", "invalid", field, content=body)


@pytest.mark.parametrize("levels", [10, 100, 500, 900, 970, 980, 990, 1_000, 1_100, 10_000])
async def test_inputs_are_answered_or_refused_however_deep_they_are(target: Target, levels: int):
    body = b'{"inputs": ' + b"[" * levels + b"]" * levels + b"}"
    response = await target.http.post("/api/v1/endpoints/e/infer", content=body)
    if response.status_code == 200:
        assert response.json()["outputs"]["inputs"] == json.loads(b"[" * levels + b"]" * levels)
    else:
        problem_in(response, "invalid")


# -------------------------------------------------------------------------------------------- Sizes


async def test_a_body_beyond_the_limit_is_refused_and_one_within_it_is_not(target: Target):
    envelope = len(b'{"receipt": ""}')
    for size, code in ((MIB, "invalid"), (MIB + 1, "too_large")):
        body = b'{"receipt": "' + b"x" * (size - envelope) + b'"}'
        assert len(body) == size
        await target.refuses("POST", "/explain", code, content=body)
    envelope = len(b'{"inputs": ""}')
    within = b'{"inputs": "' + b"x" * (INFERENCE_BYTES_MAX - envelope) + b'"}'
    answered = await target.http.post("/api/v1/endpoints/e/infer", content=within)
    assert answered.status_code == 200
    beyond = within + b" "
    await target.refuses("POST", "/endpoints/e/infer", "too_large", content=beyond)


async def test_a_limit_holds_without_a_content_length(target: Target):
    async def chunks(total: int) -> AsyncIterator[bytes]:
        for _ in range(total // 65_536):
            yield b"x" * 65_536

    await target.refuses("POST", "/models", "too_large", content=chunks(2 * MIB))
    infer = "/endpoints/e/infer"
    await target.refuses("POST", infer, "too_large", content=chunks(2 * INFERENCE_BYTES_MAX))


# ------------------------------------------------------------------------------------------ Sockets


async def exchanged(target: Target, *sent: bytes | None) -> tuple[int, bytes]:
    """The status and the body that the server answers bytes with; None is the end of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.system.process.http.port)
    for part in sent:
        writer.write_eof() if part is None else writer.write(part)
    answer = await reader.read()
    writer.close()
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def request(target: Target, line: str, *headers: bytes, body: bytes = b"") -> bytes:
    key = f"Authorization: Bearer {target.system.key}".encode()
    lines = (line.encode("latin-1"), b"Host: x", b"Connection: close", key, *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ([b"Content-Length: 500"], b'{"name": "lie"}'),
        ([b"Content-Length: 5"], b'{"name": "lie"}'),
        ([b"Content-Length: -5"], b'{"name": "lie"}'),
        ([b"Content-Length: many"], b'{"name": "lie"}'),
        ([b"Content-Length: 99999999999999999999"], b'{"name": "lie"}'),
        ([b"Content-Length: 15", b"Content-Length: 5"], b'{"name": "lie"}'),
        ([b"Transfer-Encoding: chunked"], b'5\r\n{"nam'),
        ([b"Transfer-Encoding: chunked"], b'zz\r\n{"name": "lie"}\r\n0\r\n\r\n'),
        ([b"Transfer-Encoding: ychunked"], b"0\r\n\r\n"),
        (
            [b"Content-Length: 4", b"Transfer-Encoding: chunked"],
            b'0\r\n\r\nPOST /api/v1/models HTTP/1.1\r\nContent-Length: 15\r\n\r\n{"name": "lie"}',
        ),
    ],
    ids=str,
)
async def test_a_body_that_is_not_as_long_as_it_says_does_nothing(
    target: Target, framing: list[bytes], body: bytes
):
    before = await target.position()
    status, answer = await exchanged(
        target, request(target, "POST /api/v1/models HTTP/1.1", *framing, body=body), None
    )
    assert status == 400
    if answer:  # what is not HTTP is refused by the server itself, without a document
        assert json.loads(answer)["code"] == "invalid"
    assert await target.position() == before


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        ("GET /api/v1/models/.. HTTP/1.1", {400}),
        ("GET /api/v1/models/%2e%2e HTTP/1.1", {400}),
        ("GET /api/v1/../../etc/passwd HTTP/1.1", {404}),
        ("GET /api/v1/models/%2e%2e/keys HTTP/1.1", {404}),
        ("GET /api/v1/models/a%2Fversions%2F1.0.0 HTTP/1.1", {404}),
        ("GET /api/v1/models/%ff HTTP/1.1", {400}),
        ("GET /api/v1/models/%zz HTTP/1.1", {400}),
        ("GET /api/v1/models/%00 HTTP/1.1", {400}),
        ("GET /api/v1/models/\x00 HTTP/1.1", {400}),
        ("GET /api/v1/models/\xe9 HTTP/1.1", {400}),
        ("GET /api/v1/models/" + "a" * 100_000 + " HTTP/1.1", {414}),
        ("TRACE /api/v1/models HTTP/1.1", {405}),
        ("NONSENSE /api/v1/models HTTP/1.1", {405}),
        ("GET /api/v1/models HTTP/9.9", {400}),
        ("\x16\x03\x01\x02", {400}),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_a_request_line_that_is_wrong_is_refused(
    target: Target, line: str, statuses: set[int]
):
    status, answer = await exchanged(target, request(target, line))
    assert status in statuses
    if answer:
        assert json.loads(answer)["status"] == status


# --------------------------------------------------------------------------------- Headers, queries


@pytest.mark.parametrize(
    "authorization",
    [
        b"Bearer",
        b"Bearer nobody",
        b"Bearer \xff\xfe",
        b"Basic eDp5",
        b"{key}",
        b"Token {key}",
        b"Bearer {key} {key}",
        b"Bearer {key}x",
        b"Bearer " + b"k" * 50_000,
    ],
    ids=lambda value: repr(value[:30]),
)
async def test_an_authorization_that_is_none_is_refused(target: Target, authorization: bytes):
    filled = authorization.replace(b"{key}", target.system.key.encode())
    headers = [(b"Authorization", filled)]
    async with httpx.AsyncClient(base_url=target.system.url) as nobody:
        for method, path in (("GET", "/models"), ("POST", "/models"), ("GET", "/events/stream")):
            response = await nobody.request(method, "/api/v1" + path, headers=headers)
            problem_in(response, "unauthenticated")
            assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("name", ["Authorization", "Idempotency-Key", "Switchback-Min-Position"])
async def test_a_header_that_says_two_things_says_nothing(target: Target, name: str):
    key = f"Bearer {target.system.key}"
    ours, other = (key, "Bearer nobody") if name == "Authorization" else ("1", "2")
    rest = [] if name == "Authorization" else [("Authorization", key)]
    async with httpx.AsyncClient(base_url=target.system.url) as http:
        for first, second in ((ours, other), (other, ours)):
            headers = [*rest, (name, first), (name, second)]
            response = await http.post("/api/v1/models", headers=headers, json={"name": "twice"})
            assert problem_in(response, "invalid")["fields"] == {name: "occurs twice"}
    assert (await target.http.get("/api/v1/models/twice")).status_code == 404


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Idempotency-Key", ""),
        ("Idempotency-Key", "k" * 256),
        ("Idempotency-Key", "k" * 100_000),
        ("Idempotency-Key", "a\tb"),
        ("Switchback-Min-Position", ""),
        ("Switchback-Min-Position", "-1"),
        ("Switchback-Min-Position", "1.0"),
        ("Switchback-Min-Position", "0x10"),
        ("Switchback-Min-Position", "9" * 40),
    ],
    ids=lambda value: value[:30],
)
async def test_a_header_that_is_wrong_is_refused_by_name(target: Target, name: str, value: str):
    headers = {name: value}
    await target.refuses("GET", "/models", "invalid", name, headers=headers)
    body = {"name": "never"}
    await target.refuses("POST", "/models", "invalid", name, headers=headers, json=body)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "abc", "1.5", "", "%00", "%ff"])
async def test_a_limit_out_of_bounds_is_refused(target: Target, limit: str):
    for path in ("/models", "/models/m/versions", "/endpoints", "/events", "/nodes", "/keys"):
        await target.refuses("GET", f"{path}?limit={limit}", "invalid", "limit")


@pytest.mark.parametrize("after", ["%00", "a/b", "a%0Ab", "%ff", "*", "a" * 65, CYRILLIC_A])
async def test_an_after_that_is_no_name_is_refused(target: Target, after: str):
    for path in ("/models", "/models/m/versions", "/endpoints", "/nodes", "/keys"):
        await target.refuses("GET", f"{path}?after={after}", "invalid", "after")


@pytest.mark.parametrize("after", ["-1", "abc", "1.5", "", "9" * 30, "%00"])
async def test_an_after_that_is_no_position_is_refused(target: Target, after: str):
    for path in ("/events", "/events/stream"):
        await target.refuses("GET", f"{path}?after={after}", "invalid", "after")


@pytest.mark.parametrize("entity", ["m", "*/m", "model/>", "model/a.b", "model/a/b", "traffic/e"])
async def test_an_entity_that_could_widen_a_subject_is_refused(target: Target, entity: str):
    for path in ("/events", "/events/stream"):
        await target.refuses("GET", f"{path}?entity={entity}", "invalid", "entity")


@pytest.mark.parametrize(
    "at", ["yesterday", "-1", "", "2020-01-01", "2020-01-01T00:00:00", "10000-01-01T00:00:00Z"]
)
async def test_a_moment_that_is_none_is_refused(target: Target, at: str):
    for path in ("/endpoints/e", "/endpoints", "/endpoints/e/explain?key=k"):
        separator = "&" if "?" in path else "?"
        await target.refuses("GET", f"{path}{separator}at={at}", "invalid", "at")


async def test_moments_before_and_after_everything_have_answers(target: Target):
    for before in ("0", "1", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00"):
        await target.refuses("GET", f"/endpoints/e?at={before}", "not_found")
    now = (await target.http.get("/api/v1/endpoints/e")).json()
    for later in (str(2**62), "2999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00"):
        response = await target.http.get(f"/api/v1/endpoints/e?at={later}")
        assert (response.status_code, response.json()) == (200, now)


async def test_a_question_without_what_it_asks_about_is_refused(target: Target):
    await target.refuses("GET", "/endpoints/e/explain", "invalid")
    explain = "/endpoints/e/explain?key=k&attributes="
    for wrong in ("x", "[]", '{"tier":7}', '{"tier":'):
        await target.refuses("GET", explain + quote(wrong), "invalid", "attributes")
    await target.refuses("GET", "/endpoints/e/explain?key=" + "k" * 2_000, "invalid", "key")


# ------------------------------------------------------------------------------- The python runtime


def python_version(root: Path) -> dict[str, Any]:
    directory = root / "python"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "answering.py").write_text("def load(path):\n    return lambda i, p: i\n")
    artifact = describe_artifact(directory)
    return {
        "version": "9.0.0",
        "runtime": "python",
        "config": {"factory": "answering:load"},
        "artifact": {
            "uri": artifact.uri,
            "sha256": artifact.sha256,
            "size_bytes": artifact.size_bytes,
        },
    }


async def test_code_is_registered_by_administrators_only_and_not_where_it_is_switched_off(
    target: Target,
):
    body = python_version(target.system.settings.artifact_roots[0])
    issued = await target.http.post("/api/v1/keys", json={"scopes": ["operate", "read", "infer"]})
    operator = {"Authorization": f"Bearer {issued.json()['key']}"}
    versions = "/models/m/versions"
    await target.refuses("POST", versions, "forbidden", json=body, headers=operator)
    other = beside(target.system, gateway_id="without-python", python_runtime=False)
    async with other as without, httpx.AsyncClient(base_url=without.url) as http:
        elsewhere = Target(without, http)
        administrator = {"Authorization": f"Bearer {without.key}"}
        await elsewhere.refuses(
            "POST", versions, "invalid", "runtime", json=body, headers=administrator
        )
    registered = await target.http.post("/api/v1" + versions, json=body)
    assert registered.status_code == 201


@pytest.mark.parametrize(
    "factory", ["os", "os:", ":x", "os:system;x", "../x:y", "a b:c", "x" * 500]
)
async def test_a_factory_that_is_no_name_is_refused(target: Target, factory: str):
    body = python_version(target.system.settings.artifact_roots[0])
    body |= {"version": "9.1.0", "config": {"factory": factory}}
    await target.refuses("POST", "/models/m/versions", "invalid", "config.factory", json=body)


# --------------------------------------------------------------------------------- Commands by NATS


@pytest.mark.parametrize(
    ("command", "payload", "code"),
    [
        ("endpoint.swap", {"endpoint": "e", "to": "1.0.0", "timeout_s": 1e300}, "invalid"),
        (
            "endpoint.swap",
            {"endpoint": "e", "to": "1.0.0", "timeout_s": SWAP_TIMEOUT_S_MAX + 1},
            "invalid",
        ),
        ("tenant.issue_key", {"scopes": ["read"], "expires_s": -1}, "invalid"),
        ("model.register", {"model": "a.b"}, "invalid"),
        ("model.register", {"model": "x", "colour": "red"}, "invalid"),
        ("model.forget", {"model": "m"}, "not_found"),
        (
            "model.register_version",
            {"model": "m", "version": "2.0.0", "runtime": "echo", "config": {"answer": 2**64}},
            "invalid",
        ),
        (
            "model.register_version",
            {
                "model": "m",
                "version": "2.0.0",
                "runtime": "echo",
                "artifact": {"uri": "file:///etc/passwd", "sha256": SHA, "size_bytes": 1},
            },
            "invalid",
        ),
    ],
    ids=str,
)
async def test_a_bad_command_over_nats_is_refused_alike(
    target: Target, command: str, payload: dict[str, Any], code: str
):
    before = await target.position()
    client = await nats.connect(target.system.settings.nats_url)
    reply = await client.request(f"cmd.default.{command}", json.dumps(payload).encode(), timeout=5)
    await client.close()
    assert reply.headers is not None
    assert reply.headers["Nats-Service-Error-Code"] == code
    assert await target.position() == before


async def test_a_command_id_used_for_another_payload_is_another_command(target: Target):
    client = await nats.connect(target.system.settings.nats_url)
    command_id = str(uuid4())
    positions = set()
    for model in ("by-nats", "by-nats", "by-nats-too"):
        payload = json.dumps({"model": model, "command_id": command_id}).encode()
        reply = await client.request("cmd.default.model.register", payload, timeout=5)
        positions.add(position := json.loads(reply.data)["position"])
        headers = {"Switchback-Min-Position": str(position)}
        shown = await target.http.get(f"/api/v1/models/{model}", headers=headers)
        assert shown.json()["position"] == position
    await client.close()
    assert len(positions) == 2


async def test_after_all_this_the_system_is_as_it_was(target: Target):
    ready = (await target.http.get("/readyz")).json()
    assert ready["status"] == "ready", ready
    assert {part["state"] for part in ready["parts"].values()} == {"ok"}
    answer = await target.http.post("/api/v1/endpoints/e/infer", json={"inputs": [1]})
    assert answer.json()["outputs"]["inputs"] == [1]
    assert not target.system.process.failure.done()
