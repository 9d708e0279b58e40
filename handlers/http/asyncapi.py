"""The events as AsyncAPI 3.0, generated from the catalogue: it cannot disagree with the code."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from events.catalogue import AGGREGATES, BY_TYPE
from events.codec import CONTENT_TYPE
from events.event import IDENTIFIER, TRAFFIC_AGGREGATES

_REF: Final = "#/components/schemas/{name}"
_IDENTIFIER: Final = IDENTIFIER.pattern.removesuffix(r"\Z")


def asyncapi_document() -> dict[str, Any]:
    """One channel per aggregate, one message per event type, payloads as CloudEvents."""
    types = sorted(BY_TYPE)
    schemas, components = msgspec.json.schema_components(
        [BY_TYPE[type_] for type_ in types], ref_template=_REF
    )
    data = dict(zip(types, schemas, strict=True))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Switchback events",
            "version": "1",
            "description": "One NATS subject per entity; one message is one CloudEvent.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {aggregate: _channel(aggregate) for aggregate in AGGREGATES},
        "operations": {f"follow_{aggregate}": _follow(aggregate) for aggregate in AGGREGATES},
        "components": {
            "messages": {type_: _message(type_, data[type_]) for type_ in types},
            "schemas": components,
        },
    }


def _channel(aggregate: str) -> dict[str, Any]:
    root = "obs" if aggregate in TRAFFIC_AGGREGATES else "evt"
    return {
        "address": f"{root}.{{tenant}}.{aggregate}.{{id}}",
        "description": (AGGREGATES[aggregate][0].__doc__ or aggregate).strip(),
        "parameters": {
            "tenant": {"description": f"{_IDENTIFIER}; nodes belong to `system`."},
            "id": {"description": _IDENTIFIER},
        },
        "messages": {
            event.type: {"$ref": f"#/components/messages/{event.type}"}
            for event in AGGREGATES[aggregate]
        },
    }


def _follow(aggregate: str) -> dict[str, Any]:
    return {"action": "send", "channel": {"$ref": f"#/channels/{aggregate}"}}


def _message(type_: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": type_,
        "title": BY_TYPE[type_].__name__,
        "contentType": CONTENT_TYPE,
        "payload": {
            "type": "object",
            "required": [
                "specversion",
                "id",
                "source",
                "type",
                "subject",
                "time",
                "datacontenttype",
                "actor",
                "correlationid",
                "data",
            ],
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string", "format": "uuid"},
                "source": {"type": "string", "description": "`/switchback/<tenant>`"},
                "type": {"const": type_},
                "subject": {"type": "string", "description": "`<aggregate>/<id>`"},
                "time": {"type": "string", "format": "date-time"},
                "datacontenttype": {"const": "application/json"},
                "actor": {"type": "string"},
                "correlationid": {"type": "string"},
                "causationid": {"type": "string"},
                "traceparent": {"type": "string"},
                "data": data,
            },
        },
    }
