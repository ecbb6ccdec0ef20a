"""The verifier of each gateway, by the gateway's name in the webhook address, and what some want answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from webhooks.verifiers import adyen, braintree, standard, stripe
from webhooks.verifiers.base import Envelope, Verifier, read_everything

VERIFIERS: Mapping[str, Verifier] = {"adyen": adyen, "braintree": braintree, "stripe": stripe}
STANDARD: Verifier = standard  # of every other gateway that brings none along
# What a gateway asks an address before it delivers there: the query and the secrets -> the answer, or "".
CHALLENGES: Mapping[str, Callable[[Mapping[str, str], Sequence[str]], str]] = {
    "braintree": braintree.answer_challenge
}
# What a gateway wants to read in answer to a delivery, where the status is not enough for it.
RECEIPTS: Mapping[str, bytes] = {"adyen": adyen.RECEIPT}

__all__ = ["CHALLENGES", "RECEIPTS", "STANDARD", "VERIFIERS", "Envelope", "Verifier", "read_everything"]
