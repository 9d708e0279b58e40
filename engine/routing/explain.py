"""Why did this request go there? Recomputed from the table that was in force.

The caller compiles the table from the log, as it stood at the receipt's position.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.routing.errors import KeyNotUsed
from engine.routing.receipt import Receipt
from engine.routing.table import (
    BUCKETS,
    Decision,
    Table,
    decide_bucket,
    decide_route,
    endpoint_salt,
    fallbacks,
    rules_in_force,
)


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision made again, and whether it is the one the receipt tells of."""

    decision: Decision
    valid: bool
    answered_by: str
    """The version that answered: the fallback that a valid receipt names, else the chosen one."""


def explain_receipt(table: Table, receipt: Receipt) -> Explanation:
    """Decide again by the receipt's bucket and time.

    Receipts do not hold the request's attributes. That those of the receipt's rule were equal is
    taken from the (signed) receipt; everything else is recomputed: that this rule was in force,
    that no rule before it matches on time alone, and the version its split gives the bucket. Where
    a fallback answered, that the chosen version failed is taken from the receipt too; that the
    policy has this fallback is recomputed.
    """
    decision = _decide_again(table, receipt)
    valid = (
        table.salt == endpoint_salt(receipt.tenant, receipt.endpoint)
        and decision.position == receipt.position
        and decision.bucket == receipt.bucket
        and decision.rule == receipt.rule
        and decision.version == (receipt.instead_of or receipt.version)
        and (receipt.instead_of is None or receipt.version in fallbacks(table, decision))
    )
    answered_by = receipt.version if valid else decision.version
    return Explanation(decision=decision, valid=valid, answered_by=answered_by)


def explain_key(table: Table, key: str, now_ms: int, attributes: Mapping[str, str]) -> Decision:
    """What a request with this key gets. Raises KeyNotUsed if no key decides that."""
    decision = decide_route(table, key, now_ms, attributes)
    split = next((rule.split for rule in table.rules if rule.name == decision.rule), table.split)
    if not table.sticky and len(split.arms) > 1:
        raise KeyNotUsed(split.versions)
    return decision


def _decide_again(table: Table, receipt: Receipt) -> Decision:
    bucket = (receipt.bucket % BUCKETS).to_bytes(4, "big")
    for rule in rules_in_force(table, receipt.time_ms):
        if rule.attributes is None or rule.name == receipt.rule:
            return decide_bucket(table, rule, bucket)
    return decide_bucket(table, None, bucket)
