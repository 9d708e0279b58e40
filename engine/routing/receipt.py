"""Receipts: signed proofs of single routing decisions, small enough for a response header.

A receipt is a msgpack array of the fields below and 16 bytes of HMAC-SHA256 over it, in base64url
without padding. It holds no key: the bucket is all that the decision depended on. Whoever has the
secret can tell that a gateway made this decision; whoever has the log too can recompute it, see
`engine.routing.explain`. That the chosen version failed, where a fallback answered, no log tells:
the signature is all that stands for it.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Final

import msgspec

from engine.routing.errors import ForgedReceipt, MalformedReceipt
from engine.routing.table import Decision
from events.event import Position

RECEIPT_CHARS_MAX: Final = 1_024
"""Longer texts are refused unread. A usual receipt has about 150 characters."""

_SIGNATURE_BYTES: Final = 16
_PURPOSE: Final = b"switchback receipt 1\0"
"""Signed with every receipt: the secret may serve other purposes and later formats."""
_TO_STANDARD: Final = str.maketrans("-_", "+/", "+/=")


class Receipt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One decision and its circumstances. Fields are only ever added at the end, with a default."""

    tenant: str
    endpoint: str
    version: str
    """The one that answered."""
    position: Position
    """Of the event that set the policy."""
    bucket: int
    rule: str | None
    time_ms: int
    """Of the decision, since the epoch."""
    request_id: str
    instead_of: str | None = None
    """The version that was chosen and failed, where a fallback answered."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Receipt).decode


def receipt_for(
    decision: Decision,
    *,
    tenant: str,
    endpoint: str,
    now_ms: int,
    request_id: str,
    answered_by: str | None = None,
) -> Receipt:
    """The receipt of a decision made at `now_ms`.

    `answered_by`: the fallback that answered; None, or the chosen version: no fallback did.
    """
    answered = answered_by or decision.version
    return Receipt(
        tenant,
        endpoint,
        answered,
        decision.position,
        decision.bucket,
        decision.rule,
        now_ms,
        request_id,
        None if answered == decision.version else decision.version,
    )


def sign(receipt: Receipt, secret: bytes) -> str:
    """The receipt as text. The same receipt and secret give the same text."""
    body = _encode(receipt)
    return urlsafe_b64encode(body + _signature(body, secret)).rstrip(b"=").decode()


def open_receipt(text: str, secret: bytes) -> Receipt:
    """The receipt in a text. Raises MalformedReceipt; ForgedReceipt if `secret` did not sign it."""
    receipt, genuine = read_receipt(text, secret)
    if not genuine:
        raise ForgedReceipt
    return receipt


def read_receipt(text: str, secret: bytes) -> tuple[Receipt, bool]:
    """What a text says, and whether it was signed with `secret`. Raises MalformedReceipt.

    Reads exactly what `sign` returns: no second spelling of a receipt is one.
    """
    signed = _bytes_of(text)
    body, signature = signed[:-_SIGNATURE_BYTES], signed[-_SIGNATURE_BYTES:]
    try:
        receipt = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedReceipt(str(error)) from error
    return receipt, hmac.compare_digest(signature, _signature(body, secret))


def _signature(body: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + body, "sha256")[:_SIGNATURE_BYTES]


def _bytes_of(text: str) -> bytes:
    if len(text) > RECEIPT_CHARS_MAX:
        raise MalformedReceipt(f"longer than {RECEIPT_CHARS_MAX} characters")
    padded = text.translate(_TO_STANDARD) + "=" * (-len(text) % 4)
    try:
        signed = a2b_base64(padded.encode("ascii"), strict_mode=True)
    except (Base64Error, UnicodeEncodeError) as error:
        raise MalformedReceipt("not base64url") from error
    if urlsafe_b64encode(signed).rstrip(b"=").decode() != text:
        raise MalformedReceipt("not the one spelling of its bytes")
    if len(signed) <= _SIGNATURE_BYTES:
        raise MalformedReceipt("too short")
    return signed
