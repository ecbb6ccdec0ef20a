"""Asks the table of fraud.three_d_secure about an order: the policy of the settings, and the facts of our own rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet

from fraud.three_d_secure import (
    Exemption,
    ScaDecision,
    ScaFacts,
    ScaPolicy,
    Series,
    decide_authentication,
)
from payments.decisions import Decision
from payments.errors import AuthenticationRequiredError
from payments.kinds import OperationKind
from payments.models import OperationState, Order, Payment
from payments.money import Money

# More payments than the limit of Art. 16 are as good as all of them.
LOOK_BACK = 6


@dataclass(frozen=True, slots=True)
class CardHistory:
    """A card's earlier payments here, the newest first. None: nobody knows which card it is."""

    count: int | None = None  # since it was last authenticated
    amounts: tuple[Money, ...] | None = None  # theirs
    country: str = ""  # where it was issued


def choose_authentication(
    order: Order, payment: Payment, *, decision: Decision, score: int = 0
) -> ScaDecision:
    """What to do about 3-D Secure, before the authorization; `decision` and `score` are the fraud rules'."""
    policy = read_policy()
    if not policy.is_enabled:  # as cheap as it was without
        return decide_authentication(ScaFacts(payment.total, decision), policy)
    return decide_authentication(gather_sca_facts(order, payment, decision=decision, score=score), policy)


def gather_sca_facts(order: Order, payment: Payment, *, decision: Decision, score: int = 0) -> ScaFacts:
    """Everything that the table asks for, in three queries at most."""
    history = read_card_history(order, payment)
    series = read_series(order.context)
    return ScaFacts(
        amount=payment.total,
        decision=decision,
        score=score,
        issuer_country=history.country,
        is_merchant_initiated=payment.is_merchant_initiated,
        is_mail_or_phone=order.context.get("channel") == "moto",
        series=series,
        is_authenticated_series=series is Series.NEXT and _is_authenticated_series(payment),
        unauthenticated_count=history.count,
        unauthenticated_amounts=history.amounts,
        issuer_insists=_has_insisted(payment),
    )


def read_card_history(order: Order, payment: Payment) -> CardHistory:
    """By the card's fingerprint. A new card has none before it is charged: its customer's payments stand for it,
    a guess that the issuer's own counters correct. At most `LOOK_BACK` rows are read, by an index.
    """
    fingerprint = payment.card_fingerprint or _saved_fingerprint(payment)
    found = _find_payments(order, fingerprint)
    if found is None:
        return CardHistory()
    earlier = found.exclude(pk=payment.pk).filter(authorized__gt=0, is_merchant_initiated=False)
    rows = list(earlier.order_by("-id").values_list("amount", "currency", "card")[:LOOK_BACK])
    amounts = []
    for amount, currency, card in rows:
        if card.get("three_d_secure") == "authenticated":
            break
        amounts.append(Money(amount, currency))
    country = str(rows[0][2].get("country", "")) if rows and fingerprint else ""
    return CardHistory(len(amounts), tuple(amounts), country.upper())


def _find_payments(order: Order, fingerprint: str) -> QuerySet[Payment] | None:
    if fingerprint:
        return Payment.objects.filter(card_fingerprint=fingerprint)
    orders = Payment.objects.filter(order__client_id=order.client_id)
    if order.customer_id:
        return orders.filter(order__customer_id=order.customer_id)
    if order.customer_email:
        return orders.filter(order__customer_email=order.customer_email)
    return None


def _saved_fingerprint(payment: Payment) -> str:
    return payment.saved_method.fingerprint if payment.saved_method else ""


def _is_authenticated_series(payment: Payment) -> bool:
    """The customer authenticated a payment of this very amount with the saved card."""
    fingerprint = _saved_fingerprint(payment)
    same = Payment.objects.filter(
        card_fingerprint=fingerprint, amount=payment.amount, currency=payment.currency
    )
    return bool(fingerprint) and same.filter(card__three_d_secure="authenticated").exists()


def _has_insisted(payment: Payment) -> bool:
    declined = payment.operations.filter(kind=OperationKind.AUTHORIZE, state=OperationState.DECLINED)
    return declined.filter(error__code=AuthenticationRequiredError.code).exists()


def read_series(context: Mapping[str, Any]) -> Series:
    """`{"series": "first"}` or `"next"`, from the shop's own code; anything else is no series."""
    said = context.get("series")
    return Series(said) if said in list(Series) else Series.NONE


# --- the settings -------------------------------------------------------------------------------------------


def read_policy() -> ScaPolicy:
    """Raises `ImproperlyConfigured` naming the setting: a slip of the pen must not exempt anybody."""
    return ScaPolicy(
        is_enabled=settings.SCA_ENABLED,
        merchant_country=settings.SCA_MERCHANT_COUNTRY.upper(),
        exemptions=_read_exemptions(settings.SCA_EXEMPTIONS),
        fraud_rate=_read_rate("SCA_FRAUD_RATE", settings.SCA_FRAUD_RATE) if settings.SCA_FRAUD_RATE else None,
        tra_max_score=settings.SCA_TRA_MAX_SCORE,
        challenges_the_rest=settings.SCA_CHALLENGE_THE_REST,
        rates={
            currency.upper(): _read_rate("SCA_REFERENCE_RATES", rate)
            for currency, rate in settings.SCA_REFERENCE_RATES.items()
        },
    )


def _read_exemptions(names: list[str]) -> frozenset[Exemption]:
    unknown = sorted(set(names) - set(Exemption))
    if unknown:
        raise ImproperlyConfigured(
            f"SCA_EXEMPTIONS: there is no {unknown[0]!r}, only {', '.join(Exemption)}; nothing was exempted."
        )
    return frozenset(map(Exemption, names))


def _read_rate(name: str, text: str) -> Decimal:
    try:
        rate = Decimal(text)
    except InvalidOperation:
        rate = Decimal("NaN")
    if not (rate.is_finite() and rate >= 0) or (name == "SCA_REFERENCE_RATES" and not rate):
        raise ImproperlyConfigured(f"{name}: {text!r} is no rate; nothing was exempted.")
    return rate
