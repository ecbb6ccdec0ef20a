"""Lists: one spelling per value, only its hash kept, expiry, renewal, history, hits."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from fraud import lists
from fraud.facts import FraudContext, ListMatch
from fraud.gathering import gather_before
from fraud.lists.values import read_value
from fraud.models import ListEntry, ListHit
from payments.decisions import Stage
from payments.errors import ConflictError, InvalidRequestError
from payments.models import Order
from payments.purge import purge
from tests.factories.fraud import AssessmentFactory, HeldPaymentFactory
from tests.factories.payments import ApiClientFactory
from tests.payments.threads import run_in_threads

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
    assert entry.value_hash == read_value(kind, seen).hash


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


def test_an_order_is_looked_up_by_all_that_it_has() -> None:
    wishes = {
        "email": "buyer@shop.example",
        "domain": "shop.example",
        "ip": "203.0.113.9",
        "network": "203.0.112.0/22",
        "device": "d_1",
        "customer": "cus_9",
        "phone": "0049 30 1234567",
        "address": "DE, 10115, Invalidenstr. 7",
        "country": "DE",
        "card": "fp_1",
    }
    for kind, value in wishes.items():
        lists.add_to_list("review", kind, value, reason="test")
    payment = HeldPaymentFactory.create(
        card_fingerprint="fp_1",
        order__customer_email="Buyer@shop.example",
        order__customer_id="cus_9",
        order__context={"ip": "203.0.113.9", "device": "d_1"},
        order__billing={"country": "DE", "phone": "+49 30 1234567"},
        order__shipping={"country": "DE", "postal_code": "10115", "line1": "Invalidenstraße 7"},
    )
    found = lists.find_matches(lists.order_values(payment.order, payment))
    assert {match.kind for match in found} == set(wishes)


@pytest.mark.parametrize("domain", ["mail。evil.example", "mail.ｅvil.example", "MAIL.evi\xadl.example"])
def test_a_domain_cannot_hide_behind_letters_that_mail_servers_read_as_others(domain: str) -> None:
    lists.add_to_list("block", "domain", "evil.example", reason="test")
    payment = HeldPaymentFactory.create(order__customer_email=f"a@{domain}")
    [match] = lists.find_matches(lists.order_values(payment.order, payment))
    assert match.kind == "domain"
    assert gather_before(payment.order, payment, ()).email_domain == "mail.evil.example"


def test_a_value_on_two_lists_fits_both_and_allow_does_not_win() -> None:
    for name in ("block", "allow"):
        lists.add_to_list(name, "email", "a@example.com", reason="test")
    found = find("email", "a@example.com")
    assert {match.list for match in found} == {"block", "allow"}, (
        "the decision sees both; a block is never lifted"
    )


def test_each_client_has_entries_of_its_own_and_allows_only_its_own_customers() -> None:
    one, other = ApiClientFactory.create_batch(2)
    mine = lists.add_to_list("block", "email", "a@example.com", reason="one", client=one)
    theirs = lists.add_to_list("block", "email", "a@example.com", reason="two", client=other)
    assert mine.pk != theirs.pk
    [match] = find("email", "a@example.com")
    assert match.entry == mine.pk, "one match, of the older"
    lists.end_entry(mine.pk, reason="sorry", actor="test")
    assert [match.entry for match in find("email", "a@example.com")] == [theirs.pk]
    lists.add_to_list("allow", "device", "d_1", reason="regular", client=one)
    assert lists.find_matches({"device": {"d_1"}}, client_id=one.pk)
    assert not lists.find_matches({"device": {"d_1"}}, client_id=other.pk)


def test_every_change_is_kept() -> None:
    soon = timezone.now() + timedelta(days=1)
    entry = lists.add_to_list("block", "device", "d_1", reason="bots", created_by="user:ann")
    lists.change_entry(entry.pk, reason="bots of May", owner="fraud team", actor="user:bob")
    lists.renew_entry(entry.pk, expires_at=soon, reason="only a day", actor="user:bob")
    lists.end_entry(entry.pk, reason="a mistake", actor="user:eve")
    lists.add_to_list("block", "device", "d_1", reason="not a mistake", created_by="user:ann")
    told = [(change.action, change.reason, change.actor) for change in entry.changes.order_by("id")]
    assert told == [
        ("added", "bots", "user:ann"),
        ("changed", "bots of May", "user:bob"),
        ("renewed", "only a day", "user:bob"),
        ("ended", "a mistake", "user:eve"),
        ("renewed", "not a mistake", "user:ann"),
    ]
    assert find("device", "d_1")


def test_ending_is_no_deletion_and_wants_a_reason() -> None:
    entry = lists.add_to_list("block", "device", "d_1", reason="bots")
    with pytest.raises(InvalidRequestError, match="reason"):
        lists.end_entry(entry.pk, reason=" ", actor="user:ann")
    assert find("device", "d_1")
    lists.end_entry(entry.pk, reason="a mistake", actor="user:ann")
    assert find("device", "d_1") == ()
    with pytest.raises(ConflictError, match="ended already"):
        lists.end_entry(entry.pk, reason="again", actor="user:ann")
    assert ListEntry.objects.filter(pk=entry.pk).exists()
    with pytest.raises(InvalidRequestError, match="future"):
        lists.renew_entry(entry.pk, expires_at=timezone.now(), reason="x", actor="user:ann")


@pytest.mark.parametrize(
    "statement", ["UPDATE fraud_listchange SET reason = 'x'", "DELETE FROM fraud_listchange"]
)
def test_the_history_cannot_be_changed(statement: str) -> None:
    lists.add_to_list("block", "device", "d_1", reason="bots")
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        connection.cursor().execute(statement)


def test_the_purge_forgets_what_ended_long_ago() -> None:
    with time_machine.travel(timezone.now() - timedelta(days=800)):
        old = lists.add_to_list(
            "block", "device", "d_1", reason="x", expires_at=timezone.now() + timedelta(1)
        )
        kept = lists.add_to_list("block", "device", "d_2", reason="x")
    for table in ("fraud_listchange", "fraud_listentry"):
        assert not [tally.error for tally in purge(table=table) if tally.error]
    assert not ListEntry.objects.filter(pk=old.pk).exists()
    assert kept.changes.exists()


def screen(entry: ListEntry, stage: Stage, order: Order) -> None:
    """As the screener does: it keeps the facts of a screening, with what fitted."""
    match = ListMatch(entry.list, entry.kind, entry.value_masked, entry.pk)
    context = FraudContext(stage, 100, "EUR", list_matches=(match,))
    AssessmentFactory.create(order=order, payment=order.payment, stage=stage, context=context.to_dict())
    lists.record_hits(order, context)


def test_hits_are_noted_with_the_screening_and_counted_later() -> None:
    entry = lists.add_to_list("allow", "device", "d_1", reason="x")
    for _ in range(2):
        order = HeldPaymentFactory.create().order
        screen(entry, Stage.BEFORE_AUTHORIZATION, order)
        screen(entry, Stage.AFTER_AUTHORIZATION, order)
    entry.refresh_from_db()
    assert entry.hits == 0, "the checkout does not touch the entry's row"
    assert lists.fold_hits() == 2, "one for each order"
    assert lists.fold_hits() == 0
    entry.refresh_from_db()
    assert (entry.hits, entry.last_hit_at is None) == (2, False)


@pytest.mark.django_db(transaction=True)
def test_two_who_fold_at_once_count_each_hit_once() -> None:
    entry = lists.add_to_list("block", "device", "d_1", reason="x")
    ListHit.objects.bulk_create(ListHit(entry_id=entry.pk) for _ in range(50))
    run_in_threads(lambda _: lists.fold_hits(), 4)
    lists.fold_hits()
    entry.refresh_from_db()
    assert entry.hits == 50
