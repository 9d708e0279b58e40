"""What can happen to a tenant."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from msgspec.structs import replace

from engine.decisions.tenant import (
    DECIDER,
    QUOTA_MAX,
    TOKENS_PER_MINUTE_MAX,
    Command,
    CreateTenant,
    InvalidBudget,
    InvalidKey,
    InvalidQuota,
    InvalidTenant,
    IssueKey,
    KeyExists,
    RevokeKey,
    SetKeyBudget,
    SetQuota,
    Tenant,
    UnknownKey,
    UnknownTenant,
)
from events.catalogue.tenants import (
    KeyBudgetSet,
    KeyIssued,
    KeyRevoked,
    Quota,
    QuotaSet,
    TenantCreated,
)
from switchback.testing import Given

DIGEST = "5e" * 32
EXPIRY = datetime(2030, 1, 1, tzinfo=UTC)
CREATED = TenantCreated(name="acme")
ISSUE = IssueKey(key_id="k1", secret_sha256=DIGEST, scopes=("read", "infer"), expires_at=EXPIRY)
ISSUED = KeyIssued(key_id="k1", secret_sha256=DIGEST, scopes=("read", "infer"), expires_at=EXPIRY)
REVOKED = KeyRevoked(key_id="k1")


def test_a_tenant_is_created_once(given: Given) -> None:
    create = CreateTenant(name="acme")
    given(DECIDER).when(create).then([CREATED]).when(create).then([])


def test_the_tenant_of_the_system_is_reserved(given: Given) -> None:
    create = CreateTenant(name="system")
    given(DECIDER).when(create).refused(InvalidTenant, fields={"name": "is reserved"})


@pytest.mark.parametrize("name", ["", "a.b", "a*", ">", "-a", "a" * 65, "a\n", "ä", "a b"])
def test_a_name_that_would_widen_a_subject_is_refused(given: Given, name: str) -> None:
    given(DECIDER).when(CreateTenant(name=name)).refused(InvalidTenant)


@pytest.mark.parametrize("command", [ISSUE, RevokeKey(key_id="k1"), SetQuota(quota=Quota())])
def test_nothing_can_be_done_to_a_tenant_that_does_not_exist(
    given: Given, command: Command
) -> None:
    given(DECIDER).when(command).refused(UnknownTenant, code="not_found")


def test_a_key_is_issued_once(given: Given) -> None:
    given(DECIDER, [CREATED]).when(ISSUE).then([ISSUED]).when(ISSUE).then([])


def test_issuing_a_revoked_key_again_does_not_bring_it_back(given: Given) -> None:
    history = given(DECIDER, [CREATED, ISSUED, REVOKED]).when(ISSUE).then([])
    assert history.state.keys["k1"].revoked


def test_a_scope_named_twice_counts_once(given: Given) -> None:
    command = replace(ISSUE, scopes=("read", "infer", "read"))
    given(DECIDER, [CREATED]).when(command).then([ISSUED])


@pytest.mark.parametrize(
    "change", [{"secret_sha256": "00" * 32}, {"scopes": ("admin",)}, {"expires_at": None}]
)
def test_a_key_id_is_never_given_to_another_key(given: Given, change: dict[str, object]) -> None:
    other = msgspec.convert({**msgspec.structs.asdict(ISSUE), **change}, IssueKey)
    given(DECIDER, [CREATED, ISSUED]).when(other).refused(KeyExists, key_id="k1", code="conflict")


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (replace(ISSUE, scopes=()), "scopes"),
        (replace(ISSUE, scopes=("read", "root")), "scopes"),
        (replace(ISSUE, secret_sha256="secret"), "secret_sha256"),
        (replace(ISSUE, secret_sha256="5E" * 32), "secret_sha256"),
        (replace(ISSUE, key_id="k.1"), "key_id"),
    ],
)
def test_a_malformed_key_is_refused_and_the_field_named(
    given: Given, command: IssueKey, path: str
) -> None:
    outcome = given(DECIDER, [CREATED]).when(command)
    outcome.refused(InvalidKey)
    assert list(outcome.fields) == [path]


def test_a_key_is_revoked_once(given: Given) -> None:
    revoke = RevokeKey(key_id="k1")
    given(DECIDER, [CREATED, ISSUED]).when(revoke).then([REVOKED]).when(revoke).then([])


def test_a_key_that_never_was_cannot_be_revoked(given: Given) -> None:
    command = RevokeKey(key_id="k2")
    given(DECIDER, [CREATED, ISSUED]).when(command).refused(UnknownKey, key_id="k2")


def test_a_key_is_issued_with_a_budget_and_given_another_once(given: Given) -> None:
    bounded = replace(ISSUE, tokens_per_minute=1_000)
    issued = replace(ISSUED, tokens_per_minute=1_000)
    lifted = KeyBudgetSet(key_id="k1", tokens_per_minute=None)
    lift = SetKeyBudget(key_id="k1", tokens_per_minute=None)
    history = given(DECIDER, [CREATED]).when(bounded).then([issued])
    history.when(lift).then([lifted]).when(lift).then([]).when(bounded).then([])


def test_a_key_that_never_was_has_no_budget(given: Given) -> None:
    command = SetKeyBudget(key_id="k2", tokens_per_minute=5)
    given(DECIDER, [CREATED, ISSUED]).when(command).refused(UnknownKey, key_id="k2")


@pytest.mark.parametrize("tokens", [-1, TOKENS_PER_MINUTE_MAX + 1])
def test_a_budget_that_makes_no_sense_is_refused(given: Given, tokens: int) -> None:
    command = SetKeyBudget(key_id="k1", tokens_per_minute=tokens)
    outcome = given(DECIDER, [CREATED, ISSUED]).when(command)
    outcome.refused(InvalidBudget)
    assert list(outcome.fields) == ["tokens_per_minute"]
    issue = given(DECIDER, [CREATED]).when(replace(ISSUE, tokens_per_minute=tokens))
    issue.refused(InvalidKey)
    assert list(issue.fields) == ["tokens_per_minute"]


def test_a_quota_is_set_once(given: Given) -> None:
    quota = Quota(requests_per_s=10, models_max=0)
    command = SetQuota(quota=quota)
    given(DECIDER, [CREATED]).when(command).then([QuotaSet(quota=quota)]).when(command).then([])


@pytest.mark.parametrize("bound", [-1, QUOTA_MAX + 1])
def test_a_bound_that_makes_no_sense_is_refused(given: Given, bound: int) -> None:
    outcome = given(DECIDER, [CREATED]).when(SetQuota(quota=Quota(endpoints_max=bound)))
    outcome.refused(InvalidQuota)
    assert list(outcome.fields) == ["endpoints_max"]


def test_the_state_keeps_who_may_do_what(given: Given) -> None:
    state = given(DECIDER, [CREATED, ISSUED, QuotaSet(quota=Quota(models_max=3))]).state
    assert isinstance(state, Tenant)
    assert (state.name, state.quota) == ("acme", Quota(models_max=3))
    key = state.keys["k1"]
    assert (key.secret_sha256, key.scopes, key.expires_at) == (DIGEST, ("read", "infer"), EXPIRY)
    assert not key.revoked
