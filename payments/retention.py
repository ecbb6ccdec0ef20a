"""How long each table keeps what, and why: the one declaration that `purge` and an erasure on request follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from typing import Protocol, cast

from django.conf import settings
from django.utils.module_loading import import_string  # noqa: TID251 - this is the resolver

from payments.models import Order

DAYS_30 = timedelta(days=30)
DAYS_90 = timedelta(days=90)
MONTHS_13 = timedelta(
    days=396
)  # a cardholder may dispute an unauthorised payment for 13 months (PSD2, art. 71)
MONTHS_25 = timedelta(days=761)


class Deed(StrEnum):
    """What is done with what is too old."""

    DELETE = "delete"
    REDACT = "redact"
    DROP = "drop"  # whole partitions


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the declaration.

    `condition` is SQL about `row` that is true for what may go; `%(before)s` is the moment `after` ago. `clock` is
    the column that says how old a row is: of a partitioned table the key it is partitioned by. A redaction sets
    `changes`. `key` is the primary key, along which the table is walked. Where partitions are dropped, `condition` says
    whether the one that ends at `%(until)s` may go.
    """

    table: str
    deed: Deed
    after: timedelta
    clock: str
    why: str
    condition: str = "true"
    changes: str = ""
    key: str = "id"
    follows_time: bool = True  # the key grows with the clock, so that the walk ends at the first young window
    is_guarded: bool = False  # append-only by trigger, which lets a purge pass

    @property
    def name(self) -> str:
        return f"{self.table}: {self.deed}"


class DataKeeper(Protocol):
    """What an app keeps: its rules, its tables that are kept for ever with the reason, and its part in an erasure."""

    rules: Sequence[Rule]
    kept: Mapping[str, str]

    def erase_order(self, order: Order) -> None:
        """Blank what the app's own rows about the order say of its customer.

        Inside the transaction that blanks the locked order; only rows, nothing outside.
        """


_ENDED = "('COMPLETED', 'COMPENSATED', 'FORCED')"
_OF_ENDED_RUN = f"""EXISTS (SELECT FROM payments_sagarun run WHERE run.id = row.run_id
    AND run.state IN {_ENDED} AND run.updated_at < %(before)s)"""


class PaymentsData:
    """The floor's own tables."""

    rules: Sequence[Rule] = (
        Rule(
            "payments_idempotencykey",
            Deed.REDACT,
            DAYS_30,
            "created_at",
            "An answer is replayed for 30 days; the key stays as a tombstone, so that it never charges again.",
            condition="NOT row.is_tombstone",
            changes="is_tombstone = true, answer = NULL, content_type = ''",
        ),
        Rule(
            "payments_idempotencykey",
            Deed.DELETE,
            MONTHS_13,
            "created_at",
            "No storefront repeats a request of last year.",
        ),
        Rule(
            "payments_order",
            Deed.REDACT,
            MONTHS_13,
            "created_at",
            "IP address, user agent and device prove who ordered, as long as a cardholder may dispute it.",
            condition="row.context <> '{}'::jsonb AND row.state IN "
            "('paid', 'fulfilled', 'declined', 'blocked', 'canceled', 'expired') "
            "AND NOT EXISTS (SELECT FROM payments_dispute dispute JOIN payments_payment payment "
            "ON payment.id = dispute.payment_id WHERE payment.order_id = row.id "
            "AND dispute.state IN ('needs_response', 'under_review'))",
            changes="context = '{}'::jsonb",
        ),
        Rule(
            "payments_sagaevent",
            Deed.DROP,
            MONTHS_13,
            "at",
            "How a run came to its end is looked up while its payment can be disputed.",
            condition="NOT EXISTS (SELECT FROM payments_sagarun run WHERE run.created_at < %(until)s AND run.state IN "
            "('PENDING', 'RUNNING', 'WAITING', 'COMPENSATING', 'FAILED_COMPENSATION', 'QUARANTINED'))",
        ),
        Rule(
            "payments_sagaeffect",
            Deed.DELETE,
            MONTHS_13,
            "intent_at",
            "The memory of a run that has ended; what it did to money is in the operations.",
            condition=_OF_ENDED_RUN,
        ),
        Rule(
            "payments_sagasignal",
            Deed.DELETE,
            MONTHS_13,
            "created_at",
            "Messages to a run that has ended.",
            condition=_OF_ENDED_RUN,
        ),
        Rule(
            "payments_inquiry",
            Deed.DELETE,
            MONTHS_13,
            "asked_at",
            "What a gateway answered about an operation that was in doubt, and is not any more.",
            condition="EXISTS (SELECT FROM payments_operation operation WHERE operation.id = row.operation_id "
            "AND operation.state IN ('succeeded', 'declined', 'failed', 'reversed'))",
        ),
        Rule(
            "payments_oncallpage",
            Deed.DELETE,
            MONTHS_13,
            "created_at",
            "Calls that were taken, or given up, long ago.",
        ),
    )
    kept: Mapping[str, str] = {
        "payments_order": "The books: amounts, currency, basket, country. By tax law for 8 to 10 years or longer.",
        "payments_payment": "The books.",
        "payments_attempt": "The books: which gateway was asked for the money.",
        "payments_operation": "The books: every movement of money, and who asked for it.",
        "payments_ledgeraccount": "The books.",
        "payments_ledgerentry": "The books; append-only by trigger.",
        "payments_posting": "The books; append-only by trigger.",
        "payments_dispute": "The books: money lost, and why.",
        "payments_disputeevidence": "What we said about a dispute, in case it is opened again.",
        "payments_sagarun": "One row an order: how its run ended.",
        "payments_forcerequest": "Who ended a run by force, and who agreed.",
        "payments_ledgerperiod": "The books: which days were closed, and by whom.",
        "payments_routingrule": "Master data; why old attempts went where they went.",
        "payments_routingtarget": "Master data, with their rules.",
        "payments_tokenkey": "A few rows at a time: the rotation deletes those whose tokens are dead.",
        "payments_customer": "Until the customer asks to be forgotten; then a digest, as proof of that.",
        "payments_savedpaymentmethod": "Until it is removed; then without its token.",
        "payments_shipment": "Proof of delivery, one row an order.",
        "payments_stockitem": "Master data.",
        "payments_stockreservation": "One row an order and item.",
        "payments_apiclient": "Master data.",
        "payments_apikey": "Who may call, or might once; hashes.",
        "payments_gatewayaccount": "Master data.",
        "payments_gatewaysecret": "Master data, with their dates.",
    }

    def erase_order(self, order: Order) -> None:
        """The floor's own part is payments.services.erasure."""


@cache
def _load(paths: tuple[str, ...]) -> tuple[DataKeeper, ...]:
    return tuple(cast(DataKeeper, import_string(path)()) for path in paths)


def load_keepers() -> tuple[DataKeeper, ...]:
    """Everybody whom settings.DATA_KEEPERS names, the floor first. Raises `ImportError`."""
    return (PaymentsData(), *_load(tuple(settings.DATA_KEEPERS)))


def list_rules(table: str = "") -> list[Rule]:
    """Every rule, or those of one table. Raises `LookupError` for a table without one."""
    rules = [rule for keeper in load_keepers() for rule in keeper.rules if table in ("", rule.table)]
    if not rules:
        raise LookupError(f"no rule is declared for {table}; nothing was changed")
    return rules


def list_kept() -> dict[str, str]:
    """The tables whose rows are kept, and why."""
    return {table: why for keeper in load_keepers() for table, why in keeper.kept.items()}
