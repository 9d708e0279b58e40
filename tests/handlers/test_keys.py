"""Who a secret lets in, at every moment of a key's life."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.decisions import tenant
from events import EntityId, Metadata
from events.catalogue.tenants import Quota
from events.memory import MemoryLog
from handlers.commands import CommandHandler
from handlers.keys import Keyring, digest
from tests.handlers.fakes import FakeClock


class Rig:
    """Tenants on a log, and the keyring that folds them."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.commands = CommandHandler(self.log)
        self.now = FakeClock()
        self.keyring = Keyring(now=self.now)

    async def do(self, name: str, command: tenant.Command) -> None:
        entity = EntityId(name, "tenant", name)
        before = await self.log.position()
        await self.commands.handle(tenant.DECIDER, entity, command, metadata=Metadata())
        async for recorded in self.log.read(entity, after=before):
            self.keyring.apply(recorded)

    async def issue(self, name: str, key_id: str, secret: str, *, expires_s: float | None = None):
        expires_at = None if expires_s is None else self.now() + timedelta(seconds=expires_s)
        await self.do(
            name,
            tenant.IssueKey(
                key_id=key_id,
                secret_sha256=digest(secret),
                scopes=("infer", "read"),
                expires_at=expires_at,
            ),
        )

    def lets_in(self, secret: str) -> str | None:
        principal = self.keyring.authenticate(secret)
        return None if principal is None else f"{principal.tenant}/{principal.key_id}"

    def restored(self) -> Rig:
        """The same tenants from their states alone, in the other order."""
        again = Rig()
        again.now = self.now
        again.keyring = Keyring(now=self.now)
        for name, state in reversed(self.keyring.tenants.items()):
            again.keyring.restore(name, state)
        return again


@pytest.fixture
async def rig() -> Rig:
    made = Rig()
    for name in ("acme", "globex"):
        await made.do(name, tenant.CreateTenant(name=name))
    return made


async def test_a_key_lets_in_whoever_has_its_secret(rig: Rig):
    await rig.issue("acme", "k1", "s1")
    principal = rig.keyring.authenticate("s1")
    assert principal is not None
    assert (principal.tenant, principal.key_id) == ("acme", "k1")
    assert principal.scopes == {"infer", "read"}


@pytest.mark.parametrize("secret", ["", "s", "s1 ", "S1", "\ud800", "k1", digest("s1")])
async def test_anything_else_lets_nobody_in(rig: Rig, secret: str):
    await rig.issue("acme", "k1", "s1")
    assert rig.lets_in(secret) is None


async def test_a_key_lets_in_until_the_moment_it_expires(rig: Rig):
    await rig.issue("acme", "k1", "s1", expires_s=10)
    rig.now.at += timedelta(seconds=9.999)
    assert rig.lets_in("s1") == "acme/k1"
    rig.now.at += timedelta(seconds=0.001)
    assert rig.lets_in("s1") is None
    assert rig.restored().lets_in("s1") is None


async def test_a_revoked_key_lets_nobody_in_and_stays_revoked(rig: Rig):
    await rig.issue("acme", "k1", "s1")
    await rig.do("acme", tenant.RevokeKey(key_id="k1"))
    assert rig.lets_in("s1") is None
    await rig.issue("acme", "k1", "s1")
    await rig.do("acme", tenant.SetQuota(quota=Quota(models_max=3)))
    assert rig.lets_in("s1") is None
    assert rig.restored().lets_in("s1") is None


async def test_revoking_one_key_leaves_the_others(rig: Rig):
    await rig.issue("acme", "k1", "s1")
    await rig.issue("acme", "k2", "s2")
    await rig.issue("globex", "k1", "s3")
    await rig.do("acme", tenant.RevokeKey(key_id="k1"))
    assert [rig.lets_in(secret) for secret in ("s1", "s2", "s3")] == [None, "acme/k2", "globex/k1"]


async def test_a_secret_issued_again_lets_in_though_its_first_key_is_revoked(rig: Rig):
    for number in range(20):  # whatever the order of a map
        old, new = f"k{number}", f"n{number}"
        await rig.issue("acme", old, f"s{number}")
        await rig.issue("acme", new, f"s{number}")
        await rig.do("acme", tenant.RevokeKey(key_id=old))
    for one in (rig, rig.restored()):
        assert [one.lets_in(f"s{n}") for n in range(20)] == [f"acme/n{n}" for n in range(20)]


async def test_a_secret_issued_again_lets_in_though_its_first_key_has_expired(rig: Rig):
    await rig.issue("acme", "k1", "s1", expires_s=1)
    await rig.issue("acme", "k2", "s1")
    rig.now.at += timedelta(seconds=2)
    assert rig.lets_in("s1") == rig.restored().lets_in("s1") == "acme/k2"


async def test_a_tenant_that_revokes_takes_no_other_tenants_key_with_it(rig: Rig):
    await rig.issue("acme", "k1", "same")
    await rig.issue("globex", "k1", "same")
    await rig.do("acme", tenant.RevokeKey(key_id="k1"))
    assert rig.lets_in("same") == rig.restored().lets_in("same") == "globex/k1"


async def test_quotas_and_tenants_are_known(rig: Rig):
    assert rig.keyring.exists("acme") and not rig.keyring.exists("initech")
    await rig.do("acme", tenant.SetQuota(quota=Quota(models_max=3)))
    assert rig.keyring.quota("acme") == Quota(models_max=3)
    assert rig.keyring.quota("initech") is None
