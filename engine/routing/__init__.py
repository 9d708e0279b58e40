"""Policy -> table -> decision -> receipt. Pure: time, keys and secrets are passed in."""

from engine.routing.errors import (
    ForgedReceipt,
    KeyNotUsed,
    MalformedReceipt,
    PolicyInvalid,
    RoutingError,
)
from engine.routing.explain import Explanation, explain_key, explain_receipt
from engine.routing.receipt import Receipt, open_receipt, read_receipt, receipt_for, sign
from engine.routing.table import (
    BUCKETS,
    Decision,
    Table,
    bucket_of,
    compile_policy,
    decide_route,
    endpoint_salt,
    fallbacks,
    routing_key,
)

__all__ = [
    "BUCKETS",
    "Decision",
    "Explanation",
    "ForgedReceipt",
    "KeyNotUsed",
    "MalformedReceipt",
    "PolicyInvalid",
    "Receipt",
    "RoutingError",
    "Table",
    "bucket_of",
    "compile_policy",
    "decide_route",
    "endpoint_salt",
    "explain_key",
    "explain_receipt",
    "fallbacks",
    "open_receipt",
    "read_receipt",
    "receipt_for",
    "routing_key",
    "sign",
]
