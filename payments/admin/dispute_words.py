"""What a bank's reason means, and which evidence speaks against it, in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.admin.words import describe_age, exact_time, money, state_badge
from payments.kinds import DisputeStage, DisputeState
from payments.models import Dispute
from payments.models.dispute import LOST_DISPUTE_STATES

EVIDENCE = {
    "product_description": "What was sold",
    "customer_communication": "Letters with the customer",
    "receipt": "Receipt or invoice",
    "shipping_documentation": "Proof of delivery",
    "shipping_tracking_number": "Tracking number",
    "service_documentation": "Proof of the service",
    "refund_policy": "Refund policy, as shown at the sale",
    "cancellation_policy": "Cancellation policy, as shown at the sale",
    "duplicate_charge_explanation": "Why two charges are not one",
    "access_activity_log": "Log of use or access",
    "uncategorized": "Anything else",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """What the cardholder says, and the kinds of evidence that help, the strongest first."""

    title: str
    claim: str
    helps: tuple[str, ...]
    advice: str = ""


REASONS = {
    "fraudulent": Reason(
        "Not authorized",
        "The cardholder says that somebody else used the card.",
        (
            "access_activity_log",
            "shipping_documentation",
            "customer_communication",
            "receipt",
            "product_description",
        ),
        "Show that it was the cardholder: 3-D Secure, the address, earlier orders of the same customer.",
    ),
    "not_received": Reason(
        "Not received",
        "The cardholder says that the goods or the service never came.",
        (
            "shipping_documentation",
            "shipping_tracking_number",
            "customer_communication",
            "service_documentation",
        ),
        "Show where and when it was handed over, to the address of the order.",
    ),
    "not_as_described": Reason(
        "Not as described",
        "The cardholder says that what came was broken, wrong or not what was promised.",
        ("product_description", "customer_communication", "refund_policy", "shipping_documentation"),
        "Show what was promised, and that a return or a repair was offered.",
    ),
    "canceled": Reason(
        "Canceled",
        "The cardholder says that the order or the subscription had been canceled.",
        ("cancellation_policy", "customer_communication", "access_activity_log", "service_documentation"),
        "Show the terms that were accepted, and that it was used after the date of the cancellation.",
    ),
    "credit_not_processed": Reason(
        "Refund not received",
        "The cardholder says that a promised refund never came.",
        ("refund_policy", "customer_communication", "receipt"),
        "Look at the order's refunds first: one that was made, with its reference, ends the matter.",
    ),
    "duplicate": Reason(
        "Charged twice",
        "The cardholder says that one purchase was charged more than once.",
        ("duplicate_charge_explanation", "receipt", "shipping_documentation"),
        "Show two orders with two deliveries, or the refund of the second charge.",
    ),
    "other": Reason(
        "Another reason",
        "The bank names no reason that we know.",
        ("receipt", "product_description", "customer_communication", "shipping_documentation"),
        "The gateway's own page may say more.",
    ),
}

# The schemes' own codes, in words: Visa's numbers with a point, Mastercard's four digits, American Express's letters.
_CODES = {
    "10.1": "Visa: a chip card was read as one without",
    "10.2": "Visa: a chip card was read without its PIN",
    "10.3": "Visa: other fraud, with the card at hand",
    "10.4": "Visa: other fraud, without the card at hand",
    "10.5": "Visa: on the fraud monitoring list",
    "12.6": "Visa: charged twice, or paid by other means",
    "12.6.1": "Visa: charged twice",
    "12.6.2": "Visa: paid by other means",
    "13.1": "Visa: goods or services not received",
    "13.2": "Visa: a canceled subscription",
    "13.3": "Visa: not as described, or defective",
    "13.4": "Visa: counterfeit goods",
    "13.5": "Visa: misrepresentation",
    "13.6": "Visa: a refund was not processed",
    "13.7": "Visa: canceled goods or services",
    "4834": "Mastercard: an error at the point of sale, such as a second charge",
    "4837": "Mastercard: the cardholder did not authorize it",
    "4841": "Mastercard: a canceled subscription",
    "4853": "Mastercard: the cardholder disputes the goods or services",
    "4855": "Mastercard: goods or services not provided",
    "4860": "Mastercard: a refund was not processed",
    "4863": "Mastercard: the cardholder does not recognize it",
    "4870": "Mastercard: a chip card was read as one without",
    "4871": "Mastercard: a chip card was read without its PIN",
    "C02": "American Express: a refund was not processed",
    "C04": "American Express: goods were returned or refused",
    "C05": "American Express: goods or services were canceled",
    "C08": "American Express: goods or services not received",
    "C28": "American Express: a canceled subscription",
    "C31": "American Express: not as described",
    "C32": "American Express: damaged or defective",
    "F24": "American Express: no authorization of the cardholder",
    "F29": "American Express: fraud, without the card at hand",
    "F30": "American Express: a counterfeit chip card",
    "F31": "American Express: a lost or stolen chip card",
    "P08": "American Express: charged twice",
}


def explain_reason(reason: str) -> Reason:
    return REASONS.get(reason, REASONS["other"])


def explain_code(code: str) -> str:
    """The scheme's words for its code; of an unknown code, the code alone."""
    if not code:
        return "none told"
    return f"{code}: {_CODES[code]}" if code in _CODES else code


_STATES = {
    DisputeState.NEEDS_RESPONSE: ("To answer", "warning"),
    DisputeState.UNDER_REVIEW: ("Under review", "info"),
    DisputeState.WON: ("Won", "success"),
    DisputeState.LOST: ("Lost", "danger"),
    DisputeState.ACCEPTED: ("Accepted", "default"),
    DisputeState.EXPIRED: ("Lost by silence", "danger"),
}
_PRESSING = ((timedelta(days=1), "danger"), (timedelta(days=3), "warning"))


def dispute_badge(dispute: Dispute, before: str = "") -> SafeString:
    words, tone = _STATES[DisputeState(dispute.state)]
    return state_badge(before + (words.lower() if before else words), tone)


def tell_deadline(dispute: Dispute) -> SafeString:
    """How long there is to answer, in words whose colour says how pressing it is."""
    if dispute.state != DisputeState.NEEDS_RESPONSE:
        return SafeString("–")
    if dispute.due_by is None:
        return SafeString("no deadline told")
    left = dispute.due_by - timezone.now()
    words = f"{describe_age(left)} left" if left >= timedelta(minutes=1) else "now"
    if left < timedelta():
        words = "time is over"
    tone = next((tone for limit, tone in _PRESSING if left < limit), "info")
    return format_html(
        '<time class="bo-age bo-{}" datetime="{}" title="{}">{}</time>',
        tone,
        dispute.due_by.isoformat(),
        exact_time(dispute.due_by),
        words,
    )


def tell_where_the_money_is(dispute: Dispute) -> str:
    amount = money(dispute.amount, dispute.currency)
    if dispute.is_withdrawn:
        if dispute.state in LOST_DISPUTE_STATES:
            return f"{amount} are lost: the bank has given them back to the cardholder."
        return f"{amount} are with the bank until it has decided."
    if dispute.stage == DisputeStage.INQUIRY:
        return f"{amount} are with us: a question moves no money."
    if dispute.state in LOST_DISPUTE_STATES:
        return f"{amount} are to be lost; the bank has not taken them yet."
    return f"{amount} are with us."
