"""Gateway accounts as the receipt needs them: id, live secrets and networks, remembered for a few seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import structlog
from django.db.models import QuerySet

from payments.encryption import resolve_secret
from payments.models import GatewayAccount
from payments.networks import Network, parse_networks

logger = structlog.stdlib.get_logger(__name__)

# How long a secret is honoured that was deleted. One that has its dates begins and ends by them, and one that
# is new is found by the first delivery that it signed.
CACHE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who a delivery is addressed to: the account's id, its valid secrets and their names, newest first.

    `networks` is where its deliveries must come from; None when they may come from anywhere.
    """

    account_id: str
    secrets: tuple[str, ...]
    secret_names: tuple[str, ...]
    networks: tuple[Network, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Secret:
    name: str
    value: str
    starts: float  # Unix seconds
    ends: float


@dataclass(frozen=True, slots=True)
class _Account:
    id: str
    secrets: tuple[_Secret, ...]
    networks: tuple[Network, ...] | None

    def to_receiver(self) -> Receiver:
        now = time.time()
        live = [secret for secret in self.secrets if secret.starts <= now < secret.ends]
        values, names = tuple(secret.value for secret in live), tuple(secret.name for secret in live)
        return Receiver(self.id, values, names, self.networks)


_accounts: dict[tuple[str, str], tuple[float, _Account]] = {}


def find_receiver(gateway: str, name: str, *, max_age: float = CACHE_SECONDS) -> Receiver | None:
    """The account's receiver, or None for an unknown one, which is not remembered: names are easily made up.

    `max_age` is for how many seconds what was read before is good enough. One query when it is not.
    """
    remembered = _accounts.get((gateway, name))
    now = time.monotonic()
    if remembered and now < remembered[0] + max_age:
        return remembered[1].to_receiver()
    account = _read(GatewayAccount.objects.filter(gateway=gateway, name=name))
    if account is None:
        return None
    _accounts[(gateway, name)] = (now, account)
    return account.to_receiver()


def load_receiver(account: GatewayAccount) -> Receiver:
    read = _read(GatewayAccount.objects.filter(pk=account.pk))
    assert read is not None, f"{account} is a row"
    return read.to_receiver()


def forget_receivers() -> None:
    """Makes the next receipt read the accounts anew."""
    _accounts.clear()


def _read(accounts: QuerySet[GatewayAccount]) -> _Account | None:
    """The account with its secrets, in one query."""
    columns = ("pk", "options", "secrets__pk", "secrets__value", "secrets__not_before", "secrets__not_after")
    rows = list(accounts.order_by("-secrets__created_at").values_list(*columns))
    if not rows:
        return None
    secrets = [_make_secret(*row[2:]) for row in rows if row[3]]
    return _Account(
        rows[0][0],
        tuple(secret for secret in secrets if secret.value),
        _read_networks(rows[0][1], rows[0][0]),
    )


def _make_secret(pk: int, value: str, not_before: Any, not_after: Any) -> _Secret:
    return _Secret(
        f"secret {pk}",
        resolve_secret(value),
        not_before.timestamp() if not_before else float("-inf"),
        not_after.timestamp() if not_after else float("inf"),
    )


def _read_networks(options: dict[str, Any], account_id: str) -> tuple[Network, ...] | None:
    """A list that cannot be read lets nobody in: who wrote it wanted to keep somebody out."""
    text = resolve_secret(str(options.get("webhook_networks", "")))
    if not text.strip():
        return None
    try:
        return parse_networks(text)
    except ValueError as error:
        logger.error("webhook_networks_unreadable", account_id=account_id, error=str(error))
        return ()
