"""Entries in Redis."""


class Cache: ...
