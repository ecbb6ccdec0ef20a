"""Customers of a storefront and their saved payment methods: keeping, choosing and removing them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import structlog
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from payments import ids
from payments.cards_on_file import find_or_create_customer, save_payment_method
from payments.errors import InvalidRequestError, PaymentError
from payments.gateways import get_gateway
from payments.gateways.base import SavedToken
from payments.models import ApiClient, Customer, GatewayAccount, SavedPaymentMethod
from payments.models.customer import SavedPaymentMethodQuerySet
from payments.oncall import open_page

__all__ = [
    "ChosenMethod",
    "find_customer",
    "find_or_create_customer",
    "forget_removed_methods",
    "list_payment_methods",
    "remove_payment_method",
    "resolve_payment_method",
    "save_payment_method",
]

log = structlog.get_logger(__name__)

FORGET_BATCH = 50
FORGET_BACKOFF = timedelta(minutes=1)  # doubled with each try
FORGET_BACKOFF_MOST = timedelta(days=1)
FORGET_LEASE = timedelta(minutes=2)  # above one call with its retries
PAGE_AFTER_TRIES = 12  # some three days: nobody else would notice


@dataclass(frozen=True, slots=True)
class ChosenMethod:
    """A saved method that may be charged now, and the account that holds its token."""

    method: SavedPaymentMethod
    account: GatewayAccount
    is_merchant_initiated: bool = False


# --- finding ------------------------------------------------------------------------------------------------


def find_customer(client: ApiClient, storefront_id: str) -> Customer:
    """The client's customer by its own id. Raises `Customer.DoesNotExist`, for a forgotten one too."""
    check_storefront_id(storefront_id)
    return Customer.objects.known().get(client=client, storefront_id=storefront_id)


def check_storefront_id(storefront_id: str) -> None:
    """Raises `Customer.DoesNotExist` for what no storefront calls a customer, and no database compares."""
    if not storefront_id.isprintable():
        raise Customer.DoesNotExist


def list_payment_methods(customer: Customer) -> SavedPaymentMethodQuerySet:
    """What the customer may pay with, newest first; an expired card is in it, so that it can be removed."""
    usable: SavedPaymentMethodQuerySet = SavedPaymentMethod.objects.usable().filter(customer=customer)
    return usable.select_related("account").order_by("-id")


# --- paying with one ----------------------------------------------------------------------------------------


def resolve_payment_method(
    client: ApiClient, payment_method: str, *, customer_id: str, off_session: bool = False
) -> ChosenMethod | None:
    """The saved method that an order names (`spm_...`), or None when it names a gateway's own token.

    `customer_id` is the storefront's. Raises `InvalidRequestError` with a pointer, and nothing was charged, for a
    method that is not this customer's, was removed or has expired, and for `off_session` without a saved method.
    """
    if not payment_method.startswith("spm_"):
        if off_session:
            text = "Only a saved payment method can be charged off session; nothing was charged."
            raise InvalidRequestError(text, pointer="/off_session")
        return None
    if not customer_id:
        text = "A saved payment method is charged for its customer: send customer.id. Nothing was charged."
        raise InvalidRequestError(text, pointer="/customer/id")
    method = _find_usable_method(client, customer_id, payment_method)
    if method.has_expired(timezone.now().date()):
        text = f"The card of {method.pk} has expired; nothing was charged. Ask for another payment method."
        raise InvalidRequestError(text, pointer="/payment_method")
    return ChosenMethod(method, method.account, is_merchant_initiated=off_session)


def _find_usable_method(client: ApiClient, customer_id: str, method_id: str) -> SavedPaymentMethod:
    """Another customer's, another client's, a removed and an unknown method get one answer."""
    mine = SavedPaymentMethod.objects.usable().filter(
        customer__client=client,
        customer__storefront_id=customer_id,
        customer__erasure_requested_at__isnull=True,
    )
    is_id = ids.is_id(method_id, "spm")
    found = mine.select_related("account").filter(pk=method_id).first() if is_id else None
    if found is None:
        text = "This customer has no such saved payment method; nothing was charged."
        raise InvalidRequestError(text, pointer="/payment_method")
    return found


# --- removing -----------------------------------------------------------------------------------------------


def remove_payment_method(method: SavedPaymentMethod) -> None:
    """Unusable from this moment on; the gateway is told now, and again until it has deleted the token."""
    now = timezone.now()
    kept = SavedPaymentMethod.objects.usable().filter(pk=method.pk)
    if kept.update(removed_at=now, forget_at=now):
        forget_removed_methods(Q(pk=method.pk))


def forget_removed_methods(which: Q | None = None, *, limit: int = FORGET_BATCH) -> int:
    """Tell the gateways to delete removed tokens that are due, with no transaction open; returns how many are gone.

    The token is kept, encrypted, until its gateway has confirmed.
    """
    return sum(_forget_at_gateway(method) for method in _claim_to_forget(which or Q(), limit))


def _claim_to_forget(which: Q, limit: int) -> list[SavedPaymentMethod]:
    now = timezone.now()
    with transaction.atomic():
        due = SavedPaymentMethod.objects.filter(which)
        claimed = [row.pk for row in due.locked_to_forget(now, limit=limit)]
        rows = SavedPaymentMethod.objects.filter(pk__in=claimed)
        rows.update(forget_at=now + FORGET_LEASE, forget_tries=F("forget_tries") + 1)
    return list(rows.select_related("account", "customer"))


def _forget_at_gateway(method: SavedPaymentMethod) -> bool:
    try:
        saved = SavedToken(method.token, method.gateway_customer)
        get_gateway(method.account).forget_payment_method(saved)
    except (PaymentError, ImproperlyConfigured) as error:
        _try_again_later(method, error)
        return False
    blank = {"token": "", "gateway_customer": "", "forget_at": None}
    if method.customer.erasure_requested_at is not None:
        blank |= {"brand": "", "last4": "", "exp_month": None, "exp_year": None}
    return bool(_still_mine(method).update(**blank))


def _try_again_later(method: SavedPaymentMethod, error: Exception) -> None:
    wait = min(FORGET_BACKOFF * 2 ** min(method.forget_tries - 1, 16), FORGET_BACKOFF_MOST)
    log.warning("token_not_forgotten", method=method.pk, tries=method.forget_tries, error=str(error))
    with transaction.atomic():
        _still_mine(method).update(forget_at=timezone.now() + wait)
        if method.forget_tries == PAGE_AFTER_TRIES:
            open_page(
                f"token_not_forgotten:{method.account_id}",
                text=f"{method.account} has not deleted the removed token of {method.pk}: {error}",
                detail={"payment_method": method.pk, "account": str(method.account)},
            )


def _still_mine(method: SavedPaymentMethod) -> SavedPaymentMethodQuerySet:
    """The row, unless another worker has claimed it since."""
    mine: SavedPaymentMethodQuerySet = SavedPaymentMethod.objects.filter(
        pk=method.pk, forget_tries=method.forget_tries, forget_at__isnull=False
    )
    return mine
