"""What keys use, as one gateway knows it, and who may begin.

A request is admitted if what the key has settled in the last minute, what is reserved for it
anywhere, and what the request may take, are together no more than its budget, by what this ledger
knows. It knows its own use at once, and that of others when their reports arrive. So:

- Of one gateway's requests, those that were settled in any 60 seconds took no more than the budget,
  plus what single requests took beyond their estimates.
- Of N gateways' requests, they took no more than that, plus what the others admitted and had not
  told yet when a request was admitted: what they admitted in about a second. As none admits more
  than is left by what it knows, it is at most N - 1 times what was left when they last heard of
  each other; at worst N budgets in all, once, for then every one of them refuses.

A lower budget counts from the next request on; what was admitted before goes on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Final, TypeAlias

import msgspec

from engine.budgets.account import MINUTE_SECONDS, SILENT_SECONDS, Account
from events.catalogue.budgets import KeyUse, TokensUsed

Key: TypeAlias = tuple[str, str]
"""Tenant and key id."""

HEARTBEAT_SECONDS: Final = 15.0
"""What is reserved for longer is reported again: others forget it after `SILENT_SECONDS`."""
RESERVED_RETRY_SECONDS: Final = 1.0
"""After which it is worth asking again when requests under way are in the way: nobody knows when
they end, nor how much they leave."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may not begin."""

    budget: int
    tokens: int
    """What it may take."""
    retry_after_s: float | None
    """When it may, if nothing else is asked for; None: never, as it is more than the budget."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a budget there is."""

    budget: int
    remaining: int
    whole_s: float
    """Seconds until there is all of it, if nothing more is asked for."""


class Reservation:
    """Tokens that are kept for one request until it is settled."""

    __slots__ = ("_account", "tokens")

    def __init__(self, account: Account, tokens: int) -> None:
        self._account: Account | None = account
        self.tokens = tokens

    def settle(self, tokens: int, *, now: float) -> None:
        """The request took so many; it counts once, whatever it is told later."""
        account, self._account = self._account, None
        if account is None:
            return
        account.advance(now)
        account.reserved -= self.tokens
        account.unreported += tokens
        account.settle(int(now), tokens)


class Ledger:
    """Of one gateway. `now` is in seconds since 1970, by a clock that is never set back."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._accounts: dict[Key, Account] = {}
        self._folded: OrderedDict[Hashable, float] = OrderedDict()
        """Reports that still count -> when they were made."""

    def reserve(self, key: Key, tokens: int, *, budget: int, now: float) -> Reservation | Refusal:
        """Room for a request, or why there is none."""
        if tokens > budget:
            return Refusal(budget=budget, tokens=tokens, retry_after_s=None)
        account = self._account(key, now)
        missing = account.use + tokens - budget
        if missing > 0:
            room_s = account.room_s(now, missing)
            wait_s = RESERVED_RETRY_SECONDS if room_s is None else room_s
            return Refusal(budget=budget, tokens=tokens, retry_after_s=wait_s)
        account.reserved += tokens
        return Reservation(account, tokens)

    def standing(self, key: Key, *, budget: int, now: float) -> Standing:
        """How much of its budget the key has left, by what is known here."""
        account = self._account(key, now)
        return Standing(
            budget=budget,
            remaining=max(0, budget - account.use),
            whole_s=account.whole_s(now) if account.use == account.settled else MINUTE_SECONDS,
        )

    def fold(self, id_: Hashable, tenant: str, report: TokensUsed, *, now: float) -> None:
        """What another gateway tells, also if it is told again; own reports say nothing new."""
        at = min(report.at.timestamp(), now)
        if report.gateway == self._gateway or id_ in self._folded or now - at > SILENT_SECONDS + 1:
            return
        self._folded[id_] = at
        for key_id, use in report.keys.items():
            account = self._account((tenant, key_id), now)
            account.settle(int(at), use.settled)
            account.told(report.gateway, at, use.reserved)

    def report(self, *, now: float) -> Mapping[str, dict[str, KeyUse]]:
        """Tenant -> key id -> what others have not been told; they are taken to know it now."""
        found: dict[str, dict[str, KeyUse]] = {}
        self._forget(now)
        for (tenant, key_id), account in list(self._accounts.items()):
            account.advance(now)
            if account.is_idle:
                del self._accounts[tenant, key_id]
            elif _is_news(account, now):
                use = KeyUse(settled=account.unreported, reserved=account.reserved)
                found.setdefault(tenant, {})[key_id] = use
                account.unreported = 0
                account.reported_reserved = account.reserved
                account.reported_at = now
        return found

    def reserved(self) -> Mapping[Key, int]:
        """What requests that are under way here may take. May be asked in any thread."""
        return {key: account.reserved for key, account in self._accounts.copy().items()}

    def _account(self, key: Key, now: float) -> Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(now)
        account.advance(now)
        return account

    def _forget(self, now: float) -> None:
        while self._folded:
            id_, at = next(iter(self._folded.items()))
            if now - at <= SILENT_SECONDS + 1:
                return
            del self._folded[id_]


def _is_news(account: Account, now: float) -> bool:
    if account.unreported or account.reserved != account.reported_reserved:
        return True
    return bool(account.reserved) and now - account.reported_at >= HEARTBEAT_SECONDS
