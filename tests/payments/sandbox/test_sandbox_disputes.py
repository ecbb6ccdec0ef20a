"""Disputes: asked about or taken back, answered with evidence, decided by a magic word, by the test, or by time."""

import io
from typing import Any

import pytest
import requests
import stripe

from tests.payments.sandbox.shop import Endpoint, Shop


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """A shop whose client uploads files to the same gateway."""
    http = stripe.RequestsClient(timeout=60)
    addresses: Any = {"api": shop.url, "files": shop.url}
    shop.client = stripe.StripeClient("sk_test_shop", base_addresses=addresses, http_client=http)
    return shop


def dispute(shop: Shop, **more: Any) -> Any:
    return shop.control("/_disputes", {"payment_intent": shop.pay().id, **more})


def upload(shop: Shop, content: bytes = b"%PDF \xff proof", **options: Any) -> Any:
    file = io.BytesIO(content)
    file.name = "proof.pdf"
    return shop.client.v1.files.create({"purpose": "dispute_evidence", "file": file}, options)


def answer(shop: Shop, identity: str, **evidence: str) -> Any:
    return shop.client.v1.disputes.update(identity, {"evidence": evidence})


def events_of(shop: Shop, identity: str) -> list[Any]:
    found = shop.client.v1.events.list({"limit": 100}).data
    return [event for event in reversed(found) if event.data.object["id"] == identity]


def available(shop: Shop) -> int:
    return int(shop.client.v1.balance.retrieve().available[0].amount)


def test_an_inquiry_takes_no_money_until_it_is_escalated(shop: Shop) -> None:
    asked = dispute(shop, inquiry=True)
    assert (asked["status"], asked["balance_transactions"]) == ("warning_needs_response", [])
    assert asked["payment_method_details"]["card"]["case_type"] == "inquiry"
    before = available(shop)
    taken = shop.control("/_disputes", {"dispute": asked["id"], "status": "escalated"})
    assert (taken["status"], taken["payment_method_details"]["card"]["case_type"]) == (
        "needs_response",
        "chargeback",
    )
    assert available(shop) == before - 1000 - 1500
    assert [event.type.rpartition(".")[2] for event in events_of(shop, asked["id"])] == [
        "created",
        "updated",
        "funds_withdrawn",
    ]


def test_an_inquiry_is_closed_but_never_lost(shop: Shop) -> None:
    asked = dispute(shop, inquiry=True)
    answer = requests.post(
        f"{shop.url}/_disputes", json={"dispute": asked["id"], "status": "lost"}, timeout=60
    )
    assert answer.status_code == 400
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.disputes.close(asked["id"])
    closed = shop.control("/_disputes", {"dispute": asked["id"], "status": "won"})
    assert (closed["status"], closed["balance_transactions"]) == ("warning_closed", [])


@pytest.mark.parametrize(
    ("text", "status", "back"),
    [("winning_evidence", "won", 1000), ("losing_evidence", "lost", 0), ("some evidence", "under_review", 0)],
)
def test_evidence_is_decided_by_its_magic_word(shop: Shop, text: str, status: str, back: int) -> None:
    taken = dispute(shop)
    before = available(shop)
    sent = answer(shop, taken["id"], uncategorized_text=f"Enclosed: {text}")
    assert (sent.status, sent.evidence_details.submission_count) == ("under_review", 1)
    shop.control("/_settle")
    assert shop.client.v1.disputes.retrieve(taken["id"]).status == status
    assert available(shop) == before + back
    entry = shop.entry(taken["payment_intent"])
    assert (entry["disputed"], entry["reinstated"]) == (1000, back)


def test_evidence_may_be_kept_before_it_is_sent_and_is_sent_once(shop: Shop) -> None:
    taken = dispute(shop)
    disputes = shop.client.v1.disputes
    kept = disputes.update(taken["id"], {"evidence": {"product_description": "Mugs"}, "submit": False})
    assert (kept.status, kept.evidence_details.has_evidence) == ("needs_response", True)
    sent = disputes.update(taken["id"], {"evidence": {"receipt": upload(shop).id}})
    assert sent.status == "under_review"
    assert sent.evidence.product_description == "Mugs"
    given = requests.get(f"{shop.url}/_disputes/{taken['id']}/evidence", timeout=60).content
    assert given == b"Mugs\n%PDF \xff proof"
    with pytest.raises(stripe.InvalidRequestError, match="no more evidence"):
        answer(shop, taken["id"], product_description="More mugs")


def test_the_same_upload_with_the_same_key_is_the_same_file(shop: Shop) -> None:
    first, again = (upload(shop, idempotency_key="upload-1") for _ in range(2))
    assert (first.id, first.size, first.purpose) == (again.id, 12, "dispute_evidence")
    with pytest.raises(stripe.IdempotencyError):
        upload(shop, b"another", idempotency_key="upload-1")
    found = requests.get(first.url, auth=("sk_test_shop", ""), timeout=60)
    assert found.content == b"%PDF \xff proof"


@pytest.mark.parametrize(
    "evidence", [{"receipt": "file_unknown"}, {"horoscope": "good"}, {"product_description": "x" * 20_001}]
)
def test_evidence_that_cannot_be_is_refused_and_the_dispute_stays_open(
    shop: Shop, evidence: dict[str, str]
) -> None:
    taken = dispute(shop)
    with pytest.raises(stripe.InvalidRequestError):
        answer(shop, taken["id"], **evidence)
    assert shop.client.v1.disputes.retrieve(taken["id"]).status == "needs_response"


def test_who_closes_a_dispute_has_lost_it(shop: Shop) -> None:
    taken = dispute(shop)
    assert shop.client.v1.disputes.close(taken["id"]).status == "lost"
    with pytest.raises(stripe.InvalidRequestError):
        shop.client.v1.disputes.close(taken["id"])
    assert shop.entry(taken["payment_intent"])["disputes_lost"] == 1


def test_what_nobody_answers_in_time_is_lost(shop: Shop) -> None:
    taken, asked = dispute(shop), dispute(shop, inquiry=True)
    assert shop.control("/_clock", {"advance_seconds": 7 * 86400})["unanswered"] == 2
    lost = shop.client.v1.disputes.retrieve(taken["id"])
    assert (lost.status, lost.evidence_details.submission_count) == ("lost", 0)
    assert shop.client.v1.disputes.retrieve(asked["id"]).status == "warning_closed"


@pytest.mark.parametrize(
    ("token", "status", "reason"),
    [
        ("pm_card_createDispute", "needs_response", "fraudulent"),
        ("pm_card_createDisputeProductNotReceived", "needs_response", "product_not_received"),
        ("pm_card_createDisputeInquiry", "warning_needs_response", "general"),
    ],
)
def test_a_token_foretells_a_dispute_once_it_is_captured(
    shop: Shop, token: str, status: str, reason: str
) -> None:
    held = shop.hold(token)
    shop.control("/_settle")
    assert shop.client.v1.disputes.list({"payment_intent": held.id}).data == []
    shop.client.v1.payment_intents.capture(held.id)
    shop.control("/_settle")
    (found,) = shop.client.v1.disputes.list({"payment_intent": held.id}).data
    assert (found.status, found.reason) == (status, reason)


def test_what_was_refunded_before_is_not_disputed(shop: Shop) -> None:
    paid = shop.pay("pm_card_createDispute")
    shop.client.v1.refunds.create({"payment_intent": paid.id})
    shop.control("/_settle")
    assert shop.entry(paid.id)["disputes"] == 0


def test_a_dispute_is_told_by_webhooks_with_what_changed(shop: Shop, listening: Endpoint) -> None:
    taken = dispute(shop)
    shop.control("/_disputes", {"dispute": taken["id"], "status": "won"})
    told = listening.wait_for(lambda events: any(event.type == "charge.dispute.closed" for event in events))
    (closed,) = [event for event in told if event.type == "charge.dispute.closed"]
    assert closed.data.previous_attributes["status"] == "needs_response"
    assert sum(one["amount"] for one in closed.data.object["balance_transactions"]) == 0
