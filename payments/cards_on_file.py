"""Keeps the payment methods that customers let a storefront keep, and finds what a charge on one names."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import IntegrityError, transaction
from django.utils import timezone

from payments.encryption import keyed_hash
from payments.gateways.base import CardDetails, SavedToken
from payments.models import ApiClient, Customer, GatewayAccount, Payment, SavedPaymentMethod


@dataclass(frozen=True, slots=True)
class ChargeToken:
    """What a charge names at the gateway; `customer_reference` is its own customer, where a token belongs to one."""

    token: str
    customer_reference: str = ""


def find_charge_token(payment: Payment, payment_method: str) -> ChargeToken:
    """The token behind a payment method: itself, or that of the payment's saved method, read at the last moment.

    Empty when the saved method was removed since: such a charge must not be sent.
    """
    saved = payment.saved_method
    if saved is None or saved.pk != payment_method:
        return ChargeToken(payment_method)
    return ChargeToken(saved.token if saved.removed_at is None else "", saved.gateway_customer)


def digest_of_customer(client: ApiClient, storefront_id: str) -> str:
    """What an erased customer is known by: the same request finds them again, and nobody reads an id out of it."""
    return f"erased:{keyed_hash(f'{client.pk}:{storefront_id}', purpose='customer')}"


def find_or_create_customer(
    client: ApiClient, storefront_id: str, *, email: str = "", name: str = ""
) -> tuple[Customer, bool]:
    """The client's customer with this id, e-mail and name brought up to date where given; True when it is new."""
    given = {field: value for field, value in (("email", email), ("name", name)) if value}
    mine = Customer.objects.filter(client=client, storefront_id=storefront_id)
    customer = mine.first()
    if customer is None:
        try:
            with transaction.atomic():
                new = Customer(client=client, storefront_id=storefront_id, created_at=timezone.now(), **given)
                new.save(force_insert=True)
                return new, True
        except IntegrityError:  # somebody was faster
            customer = mine.get()
    if mine.filter(pk=customer.pk).update(**given) if given else False:
        customer.refresh_from_db()
    return customer, False


def save_payment_method(
    payment: Payment, saved: SavedToken, card: CardDetails | None
) -> SavedPaymentMethod | None:
    """Keep the gateway's token for the customer of the payment, whose order and payment are locked.

    The same card of the same customer stays one row: its expiry and its token become the new ones, and the token
    that they replace is forgotten at the gateway. None when the order names no customer. A customer who has asked
    to be forgotten keeps nothing: the token is deleted at the gateway.
    """
    order = payment.order
    if not order.customer_id or not saved.token:
        return None
    leaver = _find_erased_since(payment)
    if leaver is not None:
        return _create_method(leaver, payment.account, saved, card, is_wanted=False)
    customer, _ = find_or_create_customer(order.client, order.customer_id, email=order.customer_email)
    customer = Customer.objects.locked(customer.pk)
    if customer.erasure_requested_at is not None:
        return _create_method(customer, payment.account, saved, card, is_wanted=False)
    same = customer.payment_methods.usable().filter(
        account=payment.account, fingerprint=_fingerprint(saved, card)
    )
    known = same.first()
    if known is None:
        return _create_method(customer, payment.account, saved, card)
    return _refresh_method(known, saved, card)


def _find_erased_since(payment: Payment) -> Customer | None:
    """The customer who asked to be forgotten after this order was placed."""
    digest = digest_of_customer(payment.order.client, payment.order.customer_id)
    mine = Customer.objects.filter(client=payment.order.client_id, storefront_id__startswith=digest)
    return mine.filter(erasure_requested_at__gte=payment.order.created_at).first()


def _create_method(
    customer: Customer,
    account: GatewayAccount,
    saved: SavedToken,
    card: CardDetails | None,
    *,
    is_wanted: bool = True,
) -> SavedPaymentMethod:
    now = timezone.now()
    return SavedPaymentMethod.objects.create(
        customer=customer,
        account=account,
        token=saved.token,
        gateway_customer=saved.customer_reference,
        fingerprint=_fingerprint(saved, card),
        created_at=now,
        removed_at=None if is_wanted else now,
        forget_at=None if is_wanted else now,
        **_shown(card),
    )


def _refresh_method(
    known: SavedPaymentMethod, saved: SavedToken, card: CardDetails | None
) -> SavedPaymentMethod:
    now = timezone.now()
    if known.token != saved.token:
        SavedPaymentMethod.objects.create(
            customer_id=known.customer_id,
            account_id=known.account_id,
            token=known.token,
            gateway_customer=known.gateway_customer,
            brand=known.brand,
            last4=known.last4,
            fingerprint=known.fingerprint,
            created_at=known.created_at,
            removed_at=now,
            forget_at=now,
        )
    fields = {"token": saved.token, "gateway_customer": saved.customer_reference, **_shown(card)}
    for name, value in fields.items():
        setattr(known, name, value)
    known.save(update_fields=list(fields))
    return known


def _fingerprint(saved: SavedToken, card: CardDetails | None) -> str:
    """A gateway that gives no fingerprint is told apart by its tokens."""
    if card is not None and card.fingerprint:
        return keyed_hash(card.fingerprint, purpose="card")
    return keyed_hash(saved.token, purpose="token")


def _shown(card: CardDetails | None) -> dict[str, str | int | None]:
    """What may be shown of a card (PCI DSS 3.4.1)."""
    if card is None:
        return {}
    return {
        "brand": card.brand,
        "last4": card.last4,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
    }
