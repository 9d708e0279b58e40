"""Bodies of every kind: what can be read is passed on, what cannot is its sender's fault."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.http.bodies import NESTING_LEVELS_MAX
from handlers.http.openai.bodies import MEMBERS_MAX
from handlers.http.parameters import ATTRIBUTES_CHARS_MAX, ATTRIBUTES_MAX
from tests.http.test_problems import checked
from tests.openai.voices import Voices, chat, delta

CHAT = "/chat/completions"
MESSAGES = [{"role": "user", "content": "hello"}]
BODY: dict[str, Any] = {"model": "chat", "messages": MESSAGES}


def nested(levels: int) -> bytes:
    inner = b"[" * levels + b"]" * levels
    return b'{"model":"chat","messages":[],"deep":' + inner + b"}"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b'"chat"', None),
        (b'{"model":"chat"} x', None),
        (b'{"model":"\xff","messages":[]}', None),
        (b'{"model":"chat","messages":[],"seed":18446744073709551616}', None),
        (nested(NESTING_LEVELS_MAX + 1), None),
        (nested(100_000), None),
        (b"{}", "model"),
        (b'{"model":null,"messages":[]}', "model"),
        (b'{"model":7,"messages":[]}', "model"),
        (b'{"model":"chat"}', "messages"),
        (b'{"model":"chat","messages":null}', "messages"),
        (b'{"model":"chat","messages":"hello"}', "messages"),
        (b'{"model":"chat","messages":{}}', "messages"),
        (b'{"model":"chat","messages":[],"stream":"yes"}', "stream"),
        (b'{"model":"chat","messages":[],"stream":1}', "stream"),
        (b'{"model":"chat","messages":[],"stream_options":[]}', "stream_options"),
        (
            b'{"model":"chat","messages":[],"stream_options":{"include_usage":1}}',
            "stream_options.include_usage",
        ),
        (b'{"model":"chat","messages":[],"user":7}', "user"),
    ],
    ids=lambda each: str(each)[:60],
)
async def test_a_body_that_cannot_be_read_names_what_is_wrong(
    http: httpx.AsyncClient, voices: Voices, body: bytes, param: str | None
):
    problem = checked(await http.post(CHAT, content=body), "invalid")
    assert problem["error"]["type"] == "invalid_request_error"
    assert problem["error"]["param"] == param
    assert problem["error"]["message"] == problem["detail"]
    assert voices.asked == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/completions", {"model": "chat"}, "prompt"),
        ("/completions", {"model": "chat", "prompt": 7}, "prompt"),
        ("/completions", {"model": "chat", "prompt": {}}, "prompt"),
        ("/embeddings", {"model": "chat"}, "input"),
        ("/embeddings", {"model": "chat", "input": 7}, "input"),
    ],
)
async def test_what_is_asked_has_the_form_of_its_kind(
    http: httpx.AsyncClient, path: str, body: Any, param: str
):
    assert checked(await http.post(path, json=body), "invalid")["error"]["param"] == param


@pytest.mark.parametrize("prompt", ["", "x", [], ["a", "b"], [1, 2], [[1], [2]]])
async def test_prompts_of_every_form_reach_the_version(
    http: httpx.AsyncClient, voices: Voices, prompt: Any
):
    voices.says["chat"] = "said"
    answer = await http.post("/completions", json={"model": "chat", "prompt": prompt})
    assert answer.status_code == 200, answer.text
    assert voices.asked[0]["inputs"] == {"prompt": prompt}


async def test_members_that_are_null_count_as_absent(http: httpx.AsyncClient, voices: Voices):
    voices.says["chat"] = "said"
    nulls = dict.fromkeys(
        (
            "stream",
            "stream_options",
            "user",
            "stop",
            "tools",
            "functions",
            "logit_bias",
            "max_tokens",
        )
    )
    answer = await http.post(CHAT, json=BODY | nulls | {"n": 1})
    assert answer.status_code == 200, answer.text
    assert voices.asked[0]["parameters"] == {"n": 1}
    assert voices.asked[0]["key"] is None


async def test_nulls_within_a_message_stay(http: httpx.AsyncClient, voices: Voices):
    voices.says["chat"] = "said"
    messages = [{"role": "assistant", "content": None, "tool_calls": []}]
    await http.post(CHAT, json=BODY | {"messages": messages})
    assert voices.asked[0]["inputs"] == {"messages": messages}


async def test_stream_false_is_a_whole_answer_whatever_the_stream_options(
    http: httpx.AsyncClient, voices: Voices
):
    voices.says["chat"] = "said"
    more = {
        "stream": False,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
    }
    answer = await http.post(CHAT, json=BODY | more)
    assert answer.headers["content-type"] == "application/json"
    assert voices.asked[0]["parameters"] == {}


@pytest.mark.parametrize(
    "media", ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"]
)
async def test_a_body_is_json_whatever_its_sender_calls_it(
    http: httpx.AsyncClient, voices: Voices, media: str
):
    """`curl -d @file` says that it is a form, and ends it with a newline."""
    voices.says["chat"] = "said"
    body = json.dumps(BODY, indent=2) + "\n"
    answer = await http.post(CHAT, content=body, headers={"Content-Type": media})
    assert answer.status_code == 200, answer.text
    assert voices.asked[0]["inputs"] == {"messages": MESSAGES}


async def test_text_of_any_script_comes_and_goes(http: httpx.AsyncClient, voices: Voices):
    text = "Zażółć \u0000 🦜 \u2028 \\u0041 \r\n\n data: [DONE]"
    voices.says["chat"] = chat(text)
    body = BODY | {"messages": [{"role": "user", "content": text}]}
    answer = await http.post(CHAT, json=body)
    assert answer.json()["choices"][0]["message"]["content"] == text
    assert voices.asked[0]["inputs"]["messages"][0]["content"] == text
    voices.says["chat"] = [delta(text)]
    frame, done, end = (await http.post(CHAT, json=body | {"stream": True})).text.split("\n\n")
    assert json.loads(frame.removeprefix("data: "))["choices"][0]["delta"]["content"] == text
    assert (done, end) == ("data: [DONE]", "")


async def test_a_body_has_so_many_members_and_no_more(http: httpx.AsyncClient, voices: Voices):
    voices.says["chat"] = "said"
    many = {f"p{i}": i for i in range(MEMBERS_MAX - len(BODY))}
    assert (await http.post(CHAT, json=BODY | many)).status_code == 200
    assert len(voices.asked[0]["parameters"]) == len(many)
    checked(await http.post(CHAT, json=BODY | many | {"more": 1}), "invalid")
    assert len(voices.asked) == 1


@pytest.mark.parametrize(
    "header",
    [
        "{",
        "[]",
        '{"tier":7}',
        json.dumps({f"a{i}": "x" for i in range(ATTRIBUTES_MAX + 1)}),
        json.dumps({"a": "x" * ATTRIBUTES_CHARS_MAX}),
    ],
    ids=lambda each: each[:12],
)
async def test_attributes_are_a_bounded_object_of_texts(
    http: httpx.AsyncClient, voices: Voices, header: str
):
    answer = await http.post(CHAT, json=BODY, headers={"Switchback-Attributes": header})
    assert "attributes" in checked(answer, "invalid")["fields"]
    assert voices.asked == []


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
bodies = (
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.just("chat") | scalars,
            "messages": st.lists(anything, max_size=3) | anything,
            "prompt": st.text(max_size=4) | anything,
            "input": st.text(max_size=4) | anything,
            "stream": st.booleans() | scalars,
            "stream_options": st.fixed_dictionaries({}, optional={"include_usage": scalars})
            | anything,
            "user": scalars,
            "n": scalars,
        },
    )
    | anything
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from([CHAT, "/completions", "/embeddings"]),
    body=bodies,
    says=anything | st.builds(lambda choices: {"choices": choices}, st.lists(anything, max_size=2)),
)
async def test_whatever_is_sent_and_whatever_is_said_there_is_an_answer_or_a_reason(
    http: httpx.AsyncClient, voices: Voices, path: str, body: Any, says: Any
):
    streamed = isinstance(body, dict) and body.get("stream") is True and path != "/embeddings"
    voices.says["chat"] = [says] if streamed else says
    answer = await http.post(path, json=body)
    if answer.status_code != 200:
        assert answer.status_code in (400, 404), answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"
    elif streamed:
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        assert answer.json()["model"] == "chat"
