"""Secrets at rest: unreadable in the table, readable with any key, and rotated by adding one."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from payments.encryption import decrypt, encrypt, keyed_hash, resolve_secret
from payments.models import GatewayAccount
from tests.factories.payments import GatewayAccountFactory

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def read_column(account: GatewayAccount) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT api_key FROM payments_gatewayaccount WHERE id = %s", [account.pk])
        return str(cursor.fetchone()[0])


def test_a_secret_comes_back_as_it_was() -> None:
    assert decrypt(encrypt("sk_live_é€")) == "sk_live_é€"


def test_the_same_secret_never_looks_the_same() -> None:
    assert encrypt("sk_live_1") != encrypt("sk_live_1")


def test_a_new_first_key_reads_what_the_old_one_wrote(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [OLD]
    written = encrypt("sk_live_1")
    settings.ENCRYPTION_KEYS = [NEW, OLD]
    assert decrypt(written) == "sk_live_1"


def test_a_new_first_key_writes_what_the_old_one_cannot_read(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [NEW, OLD]
    written = encrypt("sk_live_1")
    settings.ENCRYPTION_KEYS = [OLD]
    with pytest.raises(ImproperlyConfigured, match="ENCRYPTION_KEYS"):
        decrypt(written)


def test_an_altered_secret_is_refused_without_being_shown() -> None:
    written = encrypt("sk_live_1")
    with pytest.raises(ImproperlyConfigured) as refusal:
        decrypt(written[:-4] + "AAA=")
    assert written not in str(refusal.value)


def test_a_keyed_hash_is_stable_when_a_new_first_key_is_added(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [OLD]
    before = keyed_hash("fp_1", purpose="card")
    settings.ENCRYPTION_KEYS = [NEW, OLD]
    assert keyed_hash("fp_1", purpose="card") == before


def test_a_keyed_hash_depends_on_the_purpose_the_value_and_the_key(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [OLD]
    hashes = {
        keyed_hash("fp_1", purpose="card"),
        keyed_hash("fp_1", purpose="ip"),
        keyed_hash("fp_2", purpose="card"),
    }
    settings.ENCRYPTION_KEYS = [NEW]
    hashes.add(keyed_hash("fp_1", purpose="card"))
    assert len(hashes) == 4


@pytest.mark.django_db
class TestColumn:
    def test_the_table_does_not_hold_the_secret(self) -> None:
        account = GatewayAccountFactory(api_key="sk_live_visible")
        assert "sk_live_visible" not in read_column(account)
        assert GatewayAccount.objects.get(pk=account.pk).api_key == "sk_live_visible"

    def test_saving_again_does_not_encrypt_twice(self) -> None:
        account = GatewayAccountFactory(api_key="sk_live_1")
        GatewayAccount.objects.get(pk=account.pk).save()
        assert decrypt(read_column(account)) == "sk_live_1"

    def test_an_empty_secret_stays_empty(self) -> None:
        assert read_column(GatewayAccountFactory(api_key="")) == ""


class TestReferences:
    def test_a_plain_value_is_itself(self) -> None:
        assert resolve_secret("sk_live_1") == "sk_live_1"

    def test_a_reference_is_read_from_the_settings_then_from_the_environment(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.STRIPE_API_KEY = "from settings"
        monkeypatch.setenv("SECOND_STRIPE_KEY", "from the environment")
        assert resolve_secret("env:STRIPE_API_KEY") == "from settings"
        assert resolve_secret("env:SECOND_STRIPE_KEY") == "from the environment"

    def test_a_reference_to_nothing_is_empty(self) -> None:
        assert resolve_secret("env:NOBODY_SET_THIS") == ""
