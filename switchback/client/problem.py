"""A refusal, as the problem document that the server answered with (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import httpx
import msgspec

_TEXT_CHARS_MAX: Final = 500


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The members that every problem has."""

    code: str
    status: int
    title: str = ""
    detail: str = ""
    fields: dict[str, str] = {}


class Problem(Exception):
    """The request was refused or failed. `code` is one of the contract's."""

    def __init__(
        self, document: Document, *, retry_after_s: float | None = None, version: str = ""
    ) -> None:
        super().__init__(f"{document.code}: {document.detail or document.title}")
        self.code = document.code
        self.status = document.status
        self.detail = document.detail
        self.fields: Mapping[str, str] = document.fields
        """Path of a wrong member -> what is wrong with it; only of `invalid`."""
        self.retry_after_s = retry_after_s
        """When to come back, if the server said so; seconds from now."""
        self.version = version
        """Of an inference: the version that was to answer it, as far as one was chosen."""


def problem_in(response: httpx.Response) -> Problem:
    """The problem of an answer that is an error; its body has been read.

    A proxy in between may answer with anything: its code is `unknown`, its text the detail.
    """
    try:
        document = msgspec.json.decode(response.content, type=Document)
    except msgspec.MsgspecError:
        text = response.text[:_TEXT_CHARS_MAX]
        document = Document(code="unknown", status=response.status_code, detail=text)
    return Problem(
        document,
        retry_after_s=_retry_after(response),
        version=response.headers.get("Switchback-Version", ""),
    )


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None
