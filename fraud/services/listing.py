"""Putting values on the lists, also straight from a case."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from fraud import lists
from fraud.models import ListEntry, Review, ReviewEventKind
from fraud.services.guards import write_event
from payments.errors import ConflictError, InvalidRequestError


def add_to_list(
    list_name: str,
    kind: str,
    value: str,
    *,
    reason: str,
    created_by: str = "",
    expires_at: datetime | None = None,
) -> ListEntry:
    """Put a value on a list. Raises `InvalidRequestError` and `ConflictError`; see fraud.lists."""
    return lists.add_to_list(
        list_name, kind, value, reason=reason, created_by=created_by, expires_at=expires_at
    )


def add_case_to_list(
    review: Review,
    list_name: str,
    kind: str,
    *,
    reason: str,
    created_by: str = "",
    expires_at: datetime | None = None,
) -> ListEntry:
    """Put something of a case on a list, by its kind. Raises as `add_to_list` does."""
    value = case_values(review).get(kind, "")
    if not value:
        raise InvalidRequestError(f"This order has no {kind} to put on a list; nothing was changed.")
    return add_to_list(list_name, kind, value, reason=reason, created_by=created_by, expires_at=expires_at)


def list_case(
    review: Review,
    list_name: str,
    kinds: Iterable[str],
    *,
    reason: str,
    actor: str,
    expires_at: datetime | None = None,
) -> list[ListEntry]:
    """Put several things of a case on a list; what is there already stays as it is. Leaves a line in its history.

    Raises `InvalidRequestError` for a kind that the order does not have.
    """
    added = []
    for kind in kinds:
        try:
            added.append(
                add_case_to_list(
                    review, list_name, kind, reason=reason, created_by=actor, expires_at=expires_at
                )
            )
        except ConflictError:
            continue
    if added:
        write_event(review, ReviewEventKind.LISTED, actor=actor, note="; ".join(map(str, added)))
    return added


def case_values(review: Review) -> dict[str, str]:
    """What of a case can be put on a list, by kind; the card is its keyed fingerprint."""
    order = review.order
    values = {
        ListEntry.Kind.EMAIL: order.customer_email,
        ListEntry.Kind.CARD: review.payment.card_fingerprint,
        ListEntry.Kind.IP: str(order.context.get("ip") or ""),
        ListEntry.Kind.DEVICE: str(order.context.get("device") or ""),
        ListEntry.Kind.CUSTOMER: order.customer_id,
    }
    return {kind.value: value for kind, value in values.items() if value}


def possible_hashes(text: str) -> list[str]:
    """The keyed hashes that a plain value would have on a list, one for each kind that it could be."""
    found = []
    for kind in ListEntry.Kind.values:
        try:
            found.append(lists.hash_value(kind, text))
        except InvalidRequestError:
            continue
    return found
