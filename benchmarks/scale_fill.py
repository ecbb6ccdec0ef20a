"""Child of the scale benchmark: fills a database with orders by copying, in SQL, a few that the real code made."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from benchmarks import instant  # noqa: E402
from payments import services  # noqa: E402
from payments.models import ApiClient, GatewayAccount, Order  # noqa: E402
from payments.money import Money  # noqa: E402

SHOP = "bench"
OPEN = 4_000  # authorized orders in every database, whatever its size: what there is to capture
RECENT = (
    100_000  # what is purged after months (diaries, effects, verdicts, velocity) is kept of so many orders
)
SPREAD_DAYS = 700  # the orders' age; of what is purged, 30
BATCH = 100_000  # copies of one template order in one statement
WORKERS = 2

# Every table that an order leaves rows in. In their text columns, what must be each copy's own carries its number:
# an id in its first ten letters, which are the time, so that the order by id stays the order by age.
IDS = {
    "payments_order": ("id",),
    "payments_payment": ("id", "order_id"),
    "payments_attempt": ("id", "payment_id"),
    "payments_operation": ("id", "payment_id", "attempt_id", "capture_id"),
    "payments_sagarun": ("id", "order_id", "subject"),
    "payments_sagaeffect": ("run_id", "reference"),
    "payments_sagaevent": ("run_id",),
    "payments_event": ("id", "order_id"),
    "payments_ledgerentry": ("payment_id",),
    "payments_posting": (),
    "payments_shipment": ("id", "order_id"),
    "payments_stockreservation": ("run_id", "order_id"),
    "fraud_assessment": ("id", "order_id", "payment_id"),
    "fraud_verdict": ("assessment_id",),
    "fraud_velocityevent": ("order_id",),
}
MARKED = {  # text that must be unique, or differ as it would between customers
    "payments_order": ("reference", "customer_id", "customer_email"),
    "payments_payment": ("gateway_reference", "card_fingerprint"),
    "payments_attempt": ("gateway_reference",),
    "payments_operation": ("gateway_key", "gateway_reference"),
    "payments_sagaeffect": ("gateway_key",),
    "payments_ledgerentry": ("external_id",),
    "payments_shipment": ("key",),
}
HASHED = {"fraud_velocityevent": ("card", "email", "ip", "device", "customer")}
PURGED = {
    "payments_sagaeffect",
    "payments_sagaevent",
    "fraud_assessment",
    "fraud_verdict",
    "fraud_velocityevent",
}
NUMBERED = {"payments_posting": {"entry_id": "payments_ledgerentry"}}  # other tables' numbers


def fill(count: int) -> None:
    """`count` orders with all that belongs to them; `OPEN` of them authorized, the newest, the rest paid."""
    call_command("migrate", verbosity=0)
    instant.install()
    GatewayAccount.objects.update(is_active=True)
    client, _ = ApiClient.objects.get_or_create(name=SHOP)
    copy_template([place_order(client, "manual")], first=count - OPEN, copies=OPEN - 1)
    empty_templates()
    closed = [place_order(client, "automatic") for _ in range(8)]
    closed.append(captured(place_order(client, "manual")))
    closed.append(place_order(client, "automatic"))
    services.refund_order(closed[-1], amount=500, reason="requested_by_customer", actor="system")
    copies = (count - OPEN) // len(closed) - 1
    copy_template(closed, first=0, copies=copies)
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def place_order(client: ApiClient, capture: str) -> Order:
    number = uuid.uuid4().hex[:12]
    draft = draft_order(number, capture)
    order = services.place_order(client, draft)
    assert order.state in ("paid", "processing"), order.state
    return order


def draft_order(number: str, capture: str) -> services.OrderDraft:
    """A customer of its own each time, so that no rule counts it with another."""
    return services.OrderDraft(
        reference=f"B-{number}",
        amount=Money(4200, "USD"),
        payment_method=f"pm_card_visa_c{number}",
        lines=[{"sku": "MUG-1", "quantity": 1, "unit_amount": 4200}],
        capture=capture,
        customer_id=f"c-{number}",
        customer_email=f"{number}@example.com",
        billing={"country": "DE"},
        shipping={"country": "DE"},
        context={"ip": str(ip_address(int(number[:8], 16))), "device": f"d-{number}"},
    )


def captured(order: Order) -> Order:
    return services.capture_order(order, amount=None, actor="system")


# --- copying ------------------------------------------------------------------------------------------------


def empty_templates() -> None:
    """The next templates are copied from tables of their own."""
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA template CASCADE")


def copy_template(orders: list[Order], *, first: int, copies: int) -> None:
    """Copy the rows of these orders `copies` times, numbered from `first`, as far as the tables keep them."""
    save_template([order.pk for order in orders])
    kept = min(copies, RECENT // len(orders))
    jobs = [
        (
            table,
            copy_statement(table),
            first,
            first + copies,
            first + copies - kept if table in PURGED else first,
        )
        for table in IDS
    ]
    indexes = drop_indexes() if copies * len(orders) > 50_000 else []
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(lambda job: copy_table(*job), jobs):
            pass
        for _ in pool.map(run_alone, indexes):
            pass
    advance_numbers()


def save_template(order_ids: list[str]) -> None:
    """The orders' rows, set aside in a schema: what is copied must not be what is written."""
    own = {
        "payments_order": "id = ANY(%(ids)s)",
        "payments_attempt": "payment_id IN (SELECT id FROM template.payments_payment)",
        "payments_operation": "payment_id IN (SELECT id FROM template.payments_payment)",
        "payments_sagaeffect": "run_id IN (SELECT id FROM template.payments_sagarun)",
        "payments_sagaevent": "run_id IN (SELECT id FROM template.payments_sagarun)",
        "payments_ledgerentry": "payment_id IN (SELECT id FROM template.payments_payment)",
        "payments_posting": "entry_id IN (SELECT id FROM template.payments_ledgerentry)",
        "fraud_verdict": "assessment_id IN (SELECT id FROM template.fraud_assessment)",
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA template")
        for table in IDS:
            where = own.get(table, "order_id = ANY(%(ids)s)")
            cursor.execute(
                f"CREATE TABLE template.{table} AS SELECT * FROM {table} WHERE {where}", {"ids": order_ids}
            )


def copy_statement(table: str) -> str:
    """INSERT of the template's rows once per number between two; numbers of rows go on where they are."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, data_type, is_identity = 'YES' FROM information_schema.columns "
            "WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
            [table],
        )
        columns = cursor.fetchall()
        names = [name for name, _, _ in columns]
        values = [copied_value(table, *column) for column in columns]
    return (
        f"INSERT INTO {table} ({', '.join(names)}) OVERRIDING SYSTEM VALUE SELECT {', '.join(values)} "
        f"FROM generate_series(%(low)s::bigint, %(high)s::bigint) AS n, template.{table} AS t"
    )


def copied_value(table: str, column: str, kind: str, is_number: bool) -> str:
    if column in IDS[table]:
        start = f"strpos(t.{column}, '_') + 1"
        return f"overlay(t.{column} PLACING lpad(to_hex(n), 10, '0') FROM {start} FOR 10)"
    if column in MARKED.get(table, ()):
        return f"CASE WHEN t.{column} = '' THEN '' ELSE n || ':' || t.{column} END"
    if column in HASHED.get(table, ()):
        return f"md5(n || t.{column})"
    if column in NUMBERED.get(table, {}):
        return numbered(NUMBERED[table][column], column)
    if is_number and kind == "bigint":
        return numbered(table, column)
    if kind == "timestamp with time zone":
        days = 30 if table in PURGED else SPREAD_DAYS
        return f"t.{column} - (%(last)s - n) * (interval '{days} days' / %(last)s)"
    return f"t.{column}"


def numbered(table: str, column: str) -> str:
    """A number beyond all that there are, the same wherever the row is named."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*), coalesce(min(id), 0) FROM template.{table}")
        rows, lowest = cursor.fetchone()
        cursor.execute(f"SELECT max(id) FROM {table}")
        highest = cursor.fetchone()[0] or 0
        cursor.execute(f"SELECT coalesce(max(id), 0) - %s + 1 FROM template.{table}", [lowest])
        width = max(rows, cursor.fetchone()[0])
    return f"{highest} + 1 + (n - %(first)s) * {width} + t.{column} - {lowest}"


def copy_table(table: str, statement: str, first: int, end: int, start: int) -> None:
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # the law was applied to the template
        cursor.execute("SET synchronous_commit = off")
        cursor.execute("SET statement_timeout = 0")
        for low in range(start, end, BATCH):
            numbers = {"low": low, "high": min(low + BATCH, end) - 1, "last": max(end, 1), "first": first}
            cursor.execute(statement, numbers)
    connection.close()
    print(f"  {table}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def drop_indexes() -> list[str]:
    """Drop what is no key, and return the statements that make it again."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = ANY(%s) "
            "AND tablename NOT LIKE 'payments_sagaevent%%' AND indexname NOT IN (SELECT conname FROM pg_constraint)",
            [list(IDS)],
        )
        found = cursor.fetchall()
        for name, _ in found:
            cursor.execute(f'DROP INDEX "{name}"')
    return [definition for _, definition in found]


def run_alone(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("SET maintenance_work_mem = '1GB'")
        cursor.execute("SET max_parallel_maintenance_workers = 0")
        cursor.execute(statement)
    connection.close()


def advance_numbers() -> None:
    with connection.cursor() as cursor:
        for table in IDS:
            cursor.execute("SELECT pg_get_serial_sequence(%s, 'id')", [table])
            sequence = cursor.fetchone()[0]
            if sequence:
                cursor.execute(f"SELECT setval(%s, (SELECT max(id) FROM {table}))", [sequence])


def count_rows() -> dict[str, int]:
    """Rows by table, and the bytes of the database."""
    with connection.cursor() as cursor:
        counts = {}
        for table in itertools.chain(IDS):
            cursor.execute(
                f"SELECT sum(reltuples)::bigint FROM pg_class WHERE relkind = 'r' AND oid IN "
                f"(SELECT '{table}'::regclass UNION SELECT inhrelid FROM pg_inherits "
                f"WHERE inhparent = '{table}'::regclass) AND reltuples > 0"
            )
            counts[table] = cursor.fetchone()[0] or 0
        cursor.execute("SELECT pg_database_size(current_database())")
        counts["bytes"] = cursor.fetchone()[0]
    return counts


if __name__ == "__main__":
    fill(int(sys.argv[1]))
    print(json.dumps(count_rows()))
