"""Child of the ledger benchmark: fills the books by copying one payment, then times the proof beside a plain sum."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from decimal import Decimal

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from payments import ledger  # noqa: E402
from payments.models import ApiClient, Attempt, GatewayAccount, Operation, Order, Payment  # noqa: E402
from payments.money import Money  # noqa: E402
from payments.proof import prove_ledger  # noqa: E402

POSTINGS_PER_PAYMENT = 12  # an authorization, a capture, a refund asked for and settled

# Each table's rows of the template, with what must be its own told apart by the copy's number.
COPIES = {
    "payments_order": ("id", "reference"),
    "payments_payment": ("id", "order_id", "gateway_reference"),
    "payments_attempt": ("id", "payment_id", "gateway_reference"),
    "payments_operation": ("id", "payment_id", "attempt_id", "gateway_key", "gateway_reference"),
}
COPY = """
INSERT INTO {table} SELECT copied.* FROM (SELECT * FROM {table}) AS template, generate_series(1, {count}) AS n,
LATERAL jsonb_populate_record(template::{table}, jsonb_build_object({changes})) AS copied
"""
COPY_ENTRIES = """
INSERT INTO payments_ledgerentry SELECT copied.* FROM (SELECT * FROM payments_ledgerentry) AS template,
generate_series(1, {count}) AS n, LATERAL jsonb_populate_record(template::payments_ledgerentry, jsonb_build_object(
    'id', id + n * 4, 'payment_id', payment_id || n,
    'external_id', split_part(external_id, ':', 1) || n || ':' || event)) AS copied
"""
COPY_POSTINGS = """
INSERT INTO payments_posting SELECT copied.* FROM (SELECT * FROM payments_posting) AS template,
generate_series(1, {count}) AS n, LATERAL jsonb_populate_record(template::payments_posting, jsonb_build_object(
    'id', id + n * 12, 'entry_id', entry_id + n * 4)) AS copied ORDER BY 1
"""


def fill(count: int) -> None:
    """`count` payments with their operations and books, as the shop would have made them."""
    call_command("migrate", verbosity=0)
    with transaction.atomic():
        make_template()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # the law was applied to the template
        for table, columns in COPIES.items():
            pairs = ", ".join(f"'{column}', {column} || n" for column in columns)
            cursor.execute(COPY.format(table=table, count=count - 1, changes=pairs))
        cursor.execute(COPY_ENTRIES.format(count=count - 1))
        cursor.execute(COPY_POSTINGS.format(count=count - 1))
        cursor.execute("SET session_replication_role = DEFAULT")
        cursor.execute("VACUUM ANALYZE")


def make_template() -> None:
    now = timezone.now()
    account = GatewayAccount.objects.get(gateway="stripe", name="default")
    shop = ApiClient.objects.create(name="bench")
    times = {"created_at": now, "updated_at": now}
    order = Order.objects.create(
        id="ord_b", client=shop, reference="b", amount=12950, currency="EUR", state="paid", **times
    )
    payment = Payment.objects.create(
        id="pay_b", order=order, account=account, state="succeeded", amount=12950, currency="EUR", payment_method="pm",
        authorized=12950, captured=12950, refunded=2000, gateway_reference="pi_", **times,
    )  # fmt: skip
    attempt = Attempt.objects.create(
        id="att_b", payment=payment, account=account, number=1, state="done", payment_method="pm",
        gateway_reference="pi_", created_at=now,
    )  # fmt: skip
    for kind, amount in (("authorize", 12950), ("capture", 12950), ("refund", 2000)):
        operation = Operation.objects.create(
            id=f"op_{kind}", payment=payment, attempt=attempt, account=account, kind=kind, state="succeeded",
            amount=amount, currency="EUR", gateway_key=f"key-{kind}", gateway_reference=f"{kind}-", created_at=now,
        )  # fmt: skip
        book(payment, operation.pk, kind, Money(amount, "EUR"))


def book(payment: Payment, operation_id: str, kind: str, money: Money) -> None:
    if kind == "authorize":
        ledger.post_authorization(payment, operation_id, money)
    elif kind == "capture":
        ledger.post_capture(payment, operation_id, money, released=money)
    else:
        ledger.post_refund_asked(payment, operation_id, money)
        ledger.post_refund_settled(payment, operation_id, money)


def sum_plainly() -> Decimal:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT account_id, currency, sum(amount) FROM payments_posting GROUP BY account_id, currency"
        )
        return sum((row[2] for row in cursor.fetchall()), Decimal())


def rate(work: Callable[[], object], expected: object, postings: int) -> float:
    """Postings per second; what comes out must be right."""
    start = time.perf_counter()
    assert work() == expected
    return postings / (time.perf_counter() - start)


def main() -> None:
    task, count = sys.argv[1], int(sys.argv[2])
    if task == "fill":
        fill(count)
        print(json.dumps({}))
        return
    postings = count * POSTINGS_PER_PAYMENT
    print(json.dumps({
        "a plain sum over the postings": rate(sum_plainly, Decimal(), postings),
        "our proof of the books": rate(prove_ledger, [], postings),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
