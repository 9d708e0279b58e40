"""The generated documents agree with the contract, the routes and the catalogue."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest

from events import EntityId, Metadata
from events.catalogue import AGGREGATES, BY_TYPE
from events.catalogue.endpoints import EndpointCreated, Policy
from events.codec import encode
from handlers.http.access import route_table
from handlers.http.asyncapi import asyncapi_document
from tests.http.conftest import House

DUE = """
POST /models · GET /models · GET /models/{m} · POST /models/{m}/versions · GET /models/{m}/versions
GET /models/{m}/versions/{v} · GET /models/{m}/versions/{v}/lineage · PUT /models/{m}/aliases/{a}
GET /models/{m}/aliases/{a}/history · POST /models/{m}/versions/{v}/retire · PUT /endpoints/{e}
GET /endpoints · GET /endpoints/{e} · PUT /endpoints/{e}/policy · POST /endpoints/{e}/swap
POST /endpoints/{e}/rollback · GET /endpoints/{e}/explain · POST /explain
POST /endpoints/{e}/rollouts · GET /endpoints/{e}/rollouts · GET /endpoints/{e}/rollouts/{r}
POST /endpoints/{e}/rollouts/{r}/promote · POST /endpoints/{e}/rollouts/{r}/pause
POST /endpoints/{e}/rollouts/{r}/resume · POST /endpoints/{e}/rollouts/{r}/abort
GET /endpoints/{e}/compare · GET /endpoints/{e}/shadow
POST /endpoints/{e}/alerts · POST /endpoints/{e}/infer · GET /nodes · GET /nodes/{n}
GET /nodes/{n}/batching · POST /nodes/{n}/drain · GET /events · GET /events/stream · POST /tenants
POST /tenants/{t}/keys · DELETE /tenants/{t}/keys/{id} · PUT /tenants/{t}/quota
"""


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def resolve(document: dict[str, Any], reference: str) -> Any:
    value: Any = document
    for part in reference.removeprefix("#/").split("/"):
        value = value[part.replace("~1", "/")]
    return value


async def openapi(house: House) -> dict[str, Any]:
    document: dict[str, Any] = (await house.client.get("/openapi.json")).json()
    return document


async def test_openapi_covers_every_call_of_the_contract_that_is_due(house: House) -> None:
    nameless = {
        (method, re.sub(r"\{\w+\}", "{}", path))
        for method, path, _ in operations(await openapi(house))
    }
    for call in re.split(r"[·\n]", DUE.strip()):
        method, path = call.split()
        assert (method, "/api/v1" + re.sub(r"\{\w+\}", "{}", path)) in nameless, call


async def test_openapi_and_the_route_table_name_the_same_routes(house: House) -> None:
    documented = {(method, path) for method, path, _ in operations(await openapi(house))}
    served = {(route.method, route.path) for route in route_table(house.app.litestar)}
    undocumented = {("GET", "/openapi.json"), ("GET", "/asyncapi.json")}
    assert documented == served - undocumented


async def test_every_operation_says_its_scope_its_problems_and_its_own_id(house: House) -> None:
    document = await openapi(house)
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    public = {r.path for r in route_table(house.app.litestar) if r.access == "public"}
    for method, path, operation in operations(document):
        assert operation["description"], path
        if path in public:
            assert operation["security"] == []
            continue
        assert operation["security"] == [{"key": []}]
        assert {"400", "401", "403", "404"} <= set(operation["responses"]), (method, path)
        templated = set(re.findall(r"\{(\w+)\}", path))
        parameters = [
            resolve(document, p["$ref"]) if "$ref" in p else p for p in operation["parameters"]
        ]
        assert {p["name"] for p in parameters if p["in"] == "path"} == templated


async def test_every_reference_of_both_documents_leads_somewhere(house: House) -> None:
    for name in ("openapi", "asyncapi"):
        document = (await house.client.get(f"/{name}.json")).json()
        for reference in references(document):
            assert resolve(document, reference) is not None


async def test_bodies_are_described_as_they_are_refused(house: House) -> None:
    schemas = (await openapi(house))["components"]["schemas"]
    names = ("RegisterModel", "RegisterVersion", "Policy", "Rule", "When", "Infer", "Quota")
    steering = (
        "StartRollout",
        "Step",
        "Analysis",
        "PromoteRollout",
        "SteerRollout",
        "AbortRollout",
    )
    for name in names + steering:
        assert schemas[name]["additionalProperties"] is False
    assert {"from", "to"} <= set(schemas["When"]["properties"])
    assert {"from", "to"} <= set(schemas["Swap"]["properties"])


async def test_answers_fit_the_schemas_that_describe_them(house: House) -> None:
    await house.registered()
    document = await openapi(house)
    for path in ("/models", "/models/{model}", "/endpoints/{endpoint}", "/events"):
        names = {"model": "fraud", "endpoint": "score"}
        answer = (await house.client.get("/api/v1" + path.format(**names))).json()
        described = document["paths"]["/api/v1" + path]["get"]["responses"]["200"]
        schema = described["content"]["application/json"]["schema"]
        jsonschema.validate(answer, {**schema, "components": document["components"]})


def test_asyncapi_describes_every_event_of_the_catalogue() -> None:
    document = asyncapi_document()
    assert document["asyncapi"] == "3.0.0"
    assert set(document["components"]["messages"]) == set(BY_TYPE)
    for aggregate, events in AGGREGATES.items():
        channel = document["channels"][aggregate]
        assert set(channel["messages"]) == {event.type for event in events}
        subject = EntityId("acme", aggregate, "x").subject
        assert channel["address"].format(tenant="acme", id="x") == subject


@pytest.mark.parametrize("fault", [None, "type", "data"])
def test_an_event_on_the_log_fits_its_asyncapi_payload(fault: str | None) -> None:
    event = EndpointCreated(model="m", version="1", policy=Policy(split={"1": 100.0}))
    metadata = Metadata(time=datetime(2026, 1, 1, tzinfo=UTC))
    message = json.loads(encode(EntityId("acme", "endpoint", "e"), event, metadata, 0))
    document = asyncapi_document()
    payload = document["components"]["messages"][event.type]["payload"]
    validator = jsonschema.Draft202012Validator({**payload, "components": document["components"]})
    if fault is None:
        validator.validate(message)
    else:
        del message[fault]
        assert not validator.is_valid(message)
