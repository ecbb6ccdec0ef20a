"""Gateway accounts as the receipt needs them: id and live secrets, remembered for a few seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass

from payments.encryption import resolve_secret
from payments.models import GatewayAccount

# A revoked secret is honoured at most this long; a new one is missed as long.
CACHE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who a delivery is addressed to: the account's id, its valid secrets and their names, newest first."""

    account_id: str
    secrets: tuple[str, ...]
    secret_names: tuple[str, ...]


_receivers: dict[tuple[str, str], tuple[float, Receiver]] = {}


def find_receiver(gateway: str, name: str) -> Receiver | None:
    """The account's receiver, or None for an unknown one, which is not remembered: names are easily made up."""
    remembered = _receivers.get((gateway, name))
    if remembered and time.monotonic() < remembered[0]:
        return remembered[1]
    account = GatewayAccount.objects.filter(gateway=gateway, name=name).first()
    if account is None:
        return None
    receiver = load_receiver(account)
    _receivers[(gateway, name)] = (time.monotonic() + CACHE_SECONDS, receiver)
    return receiver


def load_receiver(account: GatewayAccount) -> Receiver:
    named = [(f"secret {secret.pk}", resolve_secret(secret.value)) for secret in account.secrets.valid()]
    live = [(name, value) for name, value in named if value]
    return Receiver(account.pk, tuple(value for _, value in live), tuple(name for name, _ in live))


def forget_receivers() -> None:
    """Makes the next receipt read the accounts anew."""
    _receivers.clear()
