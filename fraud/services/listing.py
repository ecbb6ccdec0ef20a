"""What an analyst puts on a list straight from a case."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from fraud import lists
from fraud.models import ListEntry, Review, ReviewEventKind
from fraud.services.guards import write_event
from payments.errors import ConflictError, InvalidRequestError

Kind = ListEntry.Kind
# Of what lists are asked for, what belongs to this customer alone: not a country, nor a domain of millions.
OF_A_CASE = (Kind.EMAIL, Kind.CARD, Kind.IP, Kind.DEVICE, Kind.CUSTOMER)


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
    known, wanted, added = case_values(review), list(kinds), []
    if missing := [kind for kind in wanted if kind not in known]:
        raise InvalidRequestError(f"This order has no {missing[0]} to put on a list; nothing was changed.")
    for kind in wanted:
        try:
            added.append(
                lists.add_to_list(
                    list_name, kind, known[kind], reason=reason, created_by=actor, expires_at=expires_at
                )
            )
        except ConflictError:
            continue
    if added:
        write_event(review, ReviewEventKind.LISTED, actor=actor, note="; ".join(map(str, added)))
    return added


def case_values(review: Review) -> dict[str, str]:
    """What of a case can be put on a list, by kind; the card is its keyed fingerprint."""
    found = lists.order_values(review.order, review.payment)
    return {kind.value: value for kind in OF_A_CASE for value in found[kind] if value}
