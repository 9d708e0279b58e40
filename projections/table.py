"""Tables of read models, declared by the struct of their rows; columns and DDL follow from it.

Every row has its `tenant`, first in the primary key, and the `position` of the event that last
changed it. Row-level security is on for every table: a reader sees the rows of the tenant its
session is set to, and nothing when it is set to none.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import Enum
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, Generic, TypeAlias, TypeVar, Union, get_args, get_origin
from uuid import UUID

import msgspec

from events.event import Position

Key: TypeAlias = tuple[Any, ...]
"""The values of a table's key columns, or of its lookup columns."""

_SQL_TYPES: Final = {
    str: 'text COLLATE "C"',
    int: "bigint",
    bool: "boolean",
    float: "double precision",
    datetime: "timestamptz",
    UUID: "uuid",
}


class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The fields become columns in order; what has no SQL type of its own becomes jsonb.

    Rows are frozen and made of values, so they cannot be part of a cycle, and thousands of them in
    a batch need not be walked by the garbage collector.
    """

    tenant: str
    position: Position


R = TypeVar("R", bound=Row)


class Visibility(Enum):
    """Whose rows a reader sees; the value is the row-level security condition."""

    OWN = "tenant = current_setting('switchback.tenant', true)"
    SHARED = f"{OWN} OR tenant = 'system'"
    """Everyone also sees the reserved tenant's rows."""
    OVERSEEN = f"{OWN} OR current_setting('switchback.tenant', true) = 'system'"
    """The reserved tenant also sees everyone's rows."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    sql_type: str
    nullable: bool
    encode: Callable[[Any], Any]
    """Field value -> what the driver takes."""
    decode: Callable[[Any], Any]
    """The inverse."""

    @property
    def array_type(self) -> str:
        return self.sql_type.partition(" COLLATE")[0] + "[]"


class Table(Generic[R]):
    """One table of a projection."""

    def __init__(
        self,
        name: str,
        row: type[R],
        *,
        key: tuple[str, ...],
        lookup: tuple[str, ...] | None = None,
        indexes: Sequence[tuple[str, ...]] = (),
        visibility: Visibility = Visibility.OWN,
        append_only: bool = False,
    ) -> None:
        """`lookup`: the columns by which a fold asks for rows, the key when not given.

        An append-only table is never read by a fold and is written by COPY.
        """
        assert key[0] == "tenant", f"{name}: the key must begin with the tenant"
        self.name = name
        self.row = row
        self.key = key
        self.lookup = lookup or key
        self.visibility = visibility
        self.append_only = append_only
        self.indexes = tuple(indexes) if lookup is None else (*indexes, lookup)
        self.columns = _columns(row)
        self.key_of: Callable[[R], Key] = _getter(key)
        self.lookup_of: Callable[[R], Key] = _getter(self.lookup)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def values_of(self) -> Callable[[R], tuple[Any, ...]]:
        """A row as the driver takes it."""
        fields = attrgetter(*self.column_names)
        encoders = tuple((i, c.encode) for i, c in enumerate(self.columns) if c.encode is not _same)

        def values(row: R) -> tuple[Any, ...]:
            out = list(fields(row))
            for index, encode in encoders:
                out[index] = encode(out[index])
            return tuple(out)

        return values

    def decode(self, record: Iterable[Any]) -> R:
        """A row as it was given to `values_of`."""
        pairs = zip(self.columns, record, strict=True)
        return self.row(**{column.name: column.decode(value) for column, value in pairs})

    def columns_named(self, names: Sequence[str]) -> list[Column]:
        by_name = {column.name: column for column in self.columns}
        return [by_name[name] for name in names]

    def ddl(self, schema: str, reader: str) -> list[str]:
        """Statements that make the table, its indexes, its row-level security and its grants."""
        target = f'"{schema}"."{self.name}"'
        columns = ", ".join(
            f'"{column.name}" {column.sql_type}{"" if column.nullable else " NOT NULL"}'
            for column in self.columns
        )
        return [
            f"CREATE TABLE {target} ({columns}, PRIMARY KEY ({', '.join(self.key)}))",
            *(f"CREATE INDEX ON {target} ({', '.join(index)})" for index in self.indexes),
            f"ALTER TABLE {target} ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY visible ON {target} FOR SELECT USING ({self.visibility.value})",
            f"GRANT SELECT ON {target} TO {reader}",
        ]


def _same(value: Any) -> Any:
    return value


def _without_nul(value: str | None) -> str | None:
    """Postgres has no NUL in text; JSON and the log do."""
    if value is not None and "\0" in value:
        return value.replace("\0", "\ufffd")
    return value


def _getter(names: tuple[str, ...]) -> Callable[[Any], Key]:
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda row: (only(row),)
    return attrgetter(*names)


def _columns(row: type[Row]) -> tuple[Column, ...]:
    return tuple(_column(field.name, field.type) for field in msgspec.structs.fields(row))


def _column(name: str, type_: Any) -> Column:
    members = get_args(type_) if get_origin(type_) in (Union, types.UnionType) else (type_,)
    nullable = type(None) in members
    kinds = [member for member in members if member is not type(None)]
    if len(kinds) == 1 and kinds[0] in _SQL_TYPES:
        sql_type = _SQL_TYPES[kinds[0]]
        encode = _without_nul if kinds[0] is str else _same
        return Column(name=name, sql_type=sql_type, nullable=nullable, encode=encode, decode=_same)
    return Column(
        name=name,
        sql_type="jsonb",
        nullable=nullable,
        encode=json_text,
        decode=_json_decoder(type_),
    )


_encode_json: Final = msgspec.json.Encoder().encode


def json_text(value: Any) -> str | None:
    """What a jsonb column takes. `msgspec.Raw` goes through as it is."""
    if value is None:
        return None
    text = _encode_json(value).decode()
    return _json_without_nul(text) if "\\u0000" in text else text


def _json_without_nul(text: str) -> str:
    """Only an escape that is not itself escaped stands for NUL."""
    parts = text.split("\\\\")
    return "\\\\".join(part.replace("\\u0000", "\\ufffd") for part in parts)


def _json_decoder(type_: Any) -> Callable[[Any], Any]:
    decode = msgspec.json.Decoder(type_).decode
    return lambda text: None if text is None else decode(text)
