"""Lists: one spelling per value, only its hash kept, expiry, renewal."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from fraud import lists
from fraud.facts import ListMatch
from fraud.models import ListEntry
from payments.errors import ConflictError, InvalidRequestError

pytestmark = pytest.mark.django_db


def find(kind: str, value: str) -> tuple[ListMatch, ...]:
    return lists.find_matches({kind: {value}})


@pytest.mark.parametrize(
    ("kind", "listed", "seen", "masked"),
    [
        ("email", " Buyer@Example.COM ", "buyer@example.com", "b***@example.com"),
        ("ip", "198.51.100.7", "198.51.100.7", "198.51.100.x"),
        ("ip", "2001:DB8:0:0::1", "2001:db8::1", "2001:db8::x"),
        ("country", "de", "DE", "DE"),
        ("device", "d_abcdef", "d_abcdef", "d_ab…"),
    ],
)
def test_a_value_is_found_in_any_spelling_and_shown_masked(
    kind: str, listed: str, seen: str, masked: str
) -> None:
    entry = lists.add_to_list("block", kind, listed, reason="test")
    assert find(kind, seen) == (ListMatch("block", kind, masked),)
    assert entry.value_hash == lists.hash_value(kind, seen)


def test_the_same_text_of_another_kind_is_another_value() -> None:
    lists.add_to_list("block", "device", "cus_42", reason="test")
    assert find("customer", "cus_42") == ()


def test_an_expired_entry_is_not_found_and_can_be_renewed() -> None:
    entry = lists.add_to_list("block", "email", "a@example.com", reason="old", expires_at=timezone.now())
    assert find("email", "a@example.com") == ()
    renewed = lists.add_to_list(
        "block", "email", "a@example.com", reason="new", expires_at=timezone.now() + timedelta(days=1)
    )
    assert (renewed.pk, renewed.reason) == (entry.pk, "new")
    assert find("email", "a@example.com")


def test_a_value_is_on_a_list_once() -> None:
    lists.add_to_list("block", "email", "a@example.com", reason="first")
    with pytest.raises(ConflictError, match="already"):
        lists.add_to_list("block", "email", "A@example.com", reason="second")
    assert ListEntry.objects.get().reason == "first"


@pytest.mark.parametrize(
    ("kind", "value"), [("email", "nobody"), ("ip", "1.2.3"), ("country", "DEU"), ("card", " ")]
)
def test_a_malformed_value_is_refused_by_the_list_and_fits_nothing(kind: str, value: str) -> None:
    with pytest.raises(InvalidRequestError):
        lists.add_to_list("block", kind, value, reason="test")
    assert find(kind, value) == ()
