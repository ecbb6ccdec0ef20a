"""What the fraud desk of the demo's shop did: rule sets, lists, cases in every state, and what became known."""

from __future__ import annotations

import io
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from fraud import labels, lists, outcomes, rulesets
from fraud import services as fraud
from fraud.backtest import running
from fraud.lists import imports
from fraud.lists.files import Defaults
from fraud.models import (
    BackTest,
    EventPosition,
    LabelSource,
    ListEntry,
    ReasonCode,
    Review,
    Rule,
)
from payments import ids
from payments.models import Order

FRAUDSTER = "m.ghost@example.net"
REGULAR = 7  # the customer that is on the allow list
DROP_DOMAIN = "parcel-drop.example"
TEST_DEVICE = "d_emulator_1"
CARDS_PER_DEVICE = Rule(
    key="cards-per-device",
    name="Cards per device",
    expression='velocity_distinct("device", "card", "1h") >= {limit}',
    parameters={"limit": 3},
    outcome="block",
    mode="on",
    on_error="miss",
    position=35,
)
NEW_ACCOUNT = Rule(
    key="new-account",
    name="Large basket of a new account",
    expression='customer_age_days < {days} and amount >= money("100 EUR", "100 USD", "16000 JPY")',
    parameters={"days": 90},
    points=20,
    mode="shadow",
    on_error="miss",
    position=65,
)
KNOWN_DROPS = """\
kind,value,reason
domain,parcel-locker.example,Forwarder named in two chargebacks
domain,ship-anywhere.example,Forwarder named in two chargebacks
network,198.51.100.0/33,A hosting provider
"""


def fill_lists(analyst: str) -> None:
    """What the desk knew before the history begins; raises `ConflictError` when it is on the lists already."""
    until = timezone.now() + timedelta(days=90)
    entries = [
        (ListEntry.List.BLOCK, ListEntry.Kind.EMAIL, FRAUDSTER, "Three chargebacks in spring", None),
        (ListEntry.List.REVIEW, ListEntry.Kind.DOMAIN, DROP_DOMAIN, "Parcels that were never claimed", until),
        (
            ListEntry.List.ALLOW,
            ListEntry.Kind.CUSTOMER,
            f"cus_{1000 + REGULAR}",
            "Buys for her school",
            until,
        ),
    ]
    for list_name, kind, value, reason, expires_at in entries:
        lists.add_to_list(list_name, kind, value, reason=reason, created_by=analyst, expires_at=expires_at)


def import_drops(analyst: str) -> None:
    """A file of three lines, one of them bad."""
    file = io.BytesIO(KNOWN_DROPS.encode())
    defaults = Defaults(list="block", expires_at=timezone.now() + timedelta(days=90))
    made = imports.stage_file(file, name="forwarders.csv", defaults=defaults, actor=analyst)
    imports.request_import(made.pk, seen=made.seen, actor=analyst)
    imports.apply_imports()


def publish_second_set(*, analyst: str, supervisor: str) -> None:
    """Drafted by one, published by another."""
    draft = rulesets.begin_draft(
        actor=analyst, note="Stop card testing; try a rule on new accounts in shadow."
    )
    for rule in (CARDS_PER_DEVICE, NEW_ACCOUNT):
        rulesets.save_rule(draft.pk, copy_rule(rule), actor=analyst)
    rulesets.submit(draft.pk, actor=analyst)
    rulesets.publish(draft.pk, actor=supervisor, note="Seen with the orders of the last week.")


def leave_draft(*, analyst: str, since: datetime) -> BackTest:
    """A draft that somebody works on, and its back-test with a sweep."""
    draft = rulesets.begin_draft(actor=analyst, note="Let new accounts with large baskets be reviewed.")
    rulesets.save_rule(draft.pk, copy_rule(NEW_ACCOUNT, outcome="review", mode="on"), actor=analyst)
    sweep = running.Sweep(NEW_ACCOUNT.key, "days", (14, 30, 60, 90, 180, 360))
    beside, until = draft.based_on, timezone.now()
    asked = running.start(draft, actor=analyst, since=since, until=until, beside=beside, sweep=sweep)
    running.run_waiting()
    return asked


def copy_rule(rule: Rule, **changes: str) -> Rule:
    return Rule(**{**rule.to_json(), **changes})


# --- cases --------------------------------------------------------------------------------------------------


def decide(review: Review, by: User, *, is_good: bool) -> None:
    actor = f"user:{by.username}"
    fraud.claim_review(by, review.pk)
    if is_good:
        fraud.approve_review(review.pk, actor=actor, reason_code=ReasonCode.GENUINE)
    else:
        note = "Number not reachable, address belongs to a parcel station."
        fraud.reject_review(review.pk, actor=actor, reason_code=ReasonCode.STOLEN_CARD, note=note)


def escalate(review: Review, by: User) -> None:
    note = "Same parcel shop as the orders of last week, but the card is fine. What do we do?"
    fraud.claim_review(by, review.pk)
    fraud.escalate_review(review.pk, actor=f"user:{by.username}", note=note)


def reject_and_list(review: Review, by: User) -> None:
    """Decided by the supervisor, and nobody buys again with that address or device."""
    actor = f"user:{by.username}"
    fraud.claim_review(by, review.pk)
    reason = ReasonCode.CONFIRMED_FRAUD
    fraud.reject_review(review.pk, actor=actor, reason_code=reason, note="The bank confirmed it by phone.")
    kinds = (ListEntry.Kind.EMAIL, ListEntry.Kind.DEVICE)
    fraud.list_case(review, ListEntry.List.BLOCK, kinds, reason="Confirmed fraud", actor=actor)


def snooze(review: Review, by: User) -> None:
    until = timezone.now() + timedelta(hours=20)
    fraud.claim_review(by, review.pk)
    note = "The customer calls back tomorrow."
    fraud.snooze_review(review.pk, until=until, actor=f"user:{by.username}", note=note)


def propose(review: Review, by: User) -> None:
    """From the amount of four eyes on an approval is a proposal."""
    fraud.claim_review(by, review.pk)
    note = "Spoke to the hotel: they furnish two rooms."
    fraud.approve_review(review.pk, actor=f"user:{by.username}", reason_code=ReasonCode.VERIFIED, note=note)


def hand_over(review: Review, by: User, *, to: User) -> None:
    fraud.claim_review(by, review.pk)
    fraud.hand_over(review.pk, to=to, actor=f"user:{by.username}", note="You know this customer.")


def label_by_hand(order: Order, by: str) -> None:
    reason = "The card's owner called: she never ordered here."
    labels.record_label(order, is_fraud=True, source=LabelSource.MANUAL, reason=reason, actor=by)


# --- what became known --------------------------------------------------------------------------------------


def collect(since: datetime) -> None:
    """What the workers collect from events, read again from that moment: ours come in their past."""
    first = ids.lowest_id("evt", since)
    place = {"settled_until": first, "consumed": []}
    for reader in (outcomes.READER, labels.READER):
        EventPosition.objects.update_or_create(name=reader, defaults=place)
    outcomes.collect_outcomes()
    labels.collect_labels()
    lists.fold_hits()
