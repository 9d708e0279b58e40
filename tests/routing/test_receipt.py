"""Receipts: what was signed opens, and nothing else does."""

from __future__ import annotations

import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.routing import (
    Decision,
    ForgedReceipt,
    MalformedReceipt,
    Receipt,
    open_receipt,
    receipt_for,
    sign,
)

SECRET = b"a secret of this test, 32 bytes."
RECEIPT = Receipt(
    tenant="acme",
    endpoint="chat",
    version="2.0.0",
    position=4711,
    bucket=123_456_789,
    rule="office hours",
    time_ms=1_800_000_000_000,
    request_id="0198d1c2-7a54-7b1e-8f3a-0123456789ab",
)
URL_SAFE = string.ascii_letters + string.digits + "-_"


@given(
    st.builds(
        Receipt,
        tenant=st.text(max_size=64),
        endpoint=st.text(max_size=64),
        version=st.text(max_size=64),
        position=st.integers(0, 2**63 - 1),
        bucket=st.integers(0, 2**32 - 1),
        rule=st.none() | st.text(max_size=64),
        time_ms=st.integers(0, 2**50),
        request_id=st.text(max_size=64),
        instead_of=st.none() | st.text(max_size=64),
    )
)
def test_what_was_signed_opens_unchanged(receipt: Receipt) -> None:
    assert open_receipt(sign(receipt, SECRET), SECRET) == receipt


def test_a_receipt_fits_a_header() -> None:
    text = sign(RECEIPT, SECRET)
    assert len(text) < 250
    assert set(text) <= set(URL_SAFE)


def test_the_longest_receipt_there_can_be_opens() -> None:
    longest = Receipt(
        tenant="t" * 64,
        endpoint="e" * 64,
        version="v" * 64,
        position=2**63 - 1,
        bucket=2**32 - 1,
        rule="r" * 64,
        time_ms=2**50,
        request_id="i" * 64,
        instead_of="w" * 64,
    )
    assert open_receipt(sign(longest, SECRET), SECRET) == longest


def test_a_receipt_changed_in_any_character_is_refused() -> None:
    text = sign(RECEIPT, SECRET)
    for i in range(len(text)):
        for other in {*URL_SAFE, "=", "\n", "é"} - {text[i]}:
            with pytest.raises((ForgedReceipt, MalformedReceipt)):
                open_receipt(text[:i] + other + text[i + 1 :], SECRET)


def test_a_receipt_shortened_or_lengthened_anywhere_is_refused() -> None:
    text = sign(RECEIPT, SECRET)
    for i in range(len(text)):
        for forged in (text[:i], text[i + 1 :], text[:i] + "A" + text[i:]):
            with pytest.raises((ForgedReceipt, MalformedReceipt)):
                open_receipt(forged, SECRET)


def test_another_secret_is_a_forgery() -> None:
    with pytest.raises(ForgedReceipt):
        open_receipt(sign(RECEIPT, b"another secret"), SECRET)


@given(st.text(max_size=2_000) | st.text(alphabet=URL_SAFE, max_size=2_000))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises((ForgedReceipt, MalformedReceipt)):
        open_receipt(text, SECRET)


def test_a_long_text_is_refused_unread() -> None:
    with pytest.raises(MalformedReceipt, match="longer"):
        open_receipt("A" * 2_000_000, SECRET)


OF_BEFORE = (
    "mKRhY21lpGNoYXSlMi4wLjDNEmfOB1vNFaxvZmZpY2UgaG91cnPPAAABoxhcUADZJDAxOThkMWMyLTdhNTQtN2IxZS"
    "04ZjNhLTAxMjM0NTY3ODlhYonDt7c1ffbQoLeJ3TLt83o"
)
"""RECEIPT, as it was signed when receipts did not tell of fallbacks."""


def test_a_receipt_of_before_there_were_fallbacks_opens_and_tells_of_none() -> None:
    assert open_receipt(OF_BEFORE, SECRET) == RECEIPT
    assert RECEIPT.instead_of is None


def test_a_receipt_names_who_answered_and_who_was_chosen_only_if_that_is_another() -> None:
    decision = Decision("2.0.0", 7, None, (), 4711)
    told: dict[str, Any] = {
        "tenant": "acme",
        "endpoint": "chat",
        "now_ms": 1,
        "request_id": "r-1",
    }
    plain = receipt_for(decision, **told)
    assert (plain.version, plain.instead_of) == ("2.0.0", None)
    assert receipt_for(decision, answered_by="2.0.0", **told) == plain
    stood_in = receipt_for(decision, answered_by="1.0.0", **told)
    assert stood_in == replace(plain, version="1.0.0", instead_of="2.0.0")


def test_a_field_added_later_does_not_spoil_older_receipts() -> None:
    class Longer(Receipt, frozen=True, array_like=True):
        added: str | None = None

    body = msgspec.msgpack.encode(RECEIPT)
    assert msgspec.msgpack.decode(body, type=Longer).added is None
