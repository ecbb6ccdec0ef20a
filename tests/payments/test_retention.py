"""The declaration of how long data is kept: complete, readable, and true to the tables."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.apps import apps
from django.db import connection

from payments.retention import Deed, list_kept, list_rules, load_keepers

OWN = ("payments", "webhooks", "fraud", "reconciliation")
# Money, and who did what: no rule may ever name them, whatever the reason.
NEVER = {
    "payments_ledgeraccount",
    "payments_ledgerentry",
    "payments_posting",
    "payments_payment",
    "payments_attempt",
    "payments_operation",
    "payments_dispute",
    "payments_disputeevidence",
    "reconciliation_discrepancy",
    "reconciliation_discrepancyevent",
}


def own_tables() -> set[str]:
    return {model._meta.db_table for model in apps.get_models() if model._meta.app_label in OWN}


def test_every_table_of_ours_is_declared() -> None:
    """A new table says how long it keeps what, or why for ever; else this names it."""
    declared = {rule.table for rule in list_rules()} | set(list_kept())
    assert own_tables() - declared == set()


def test_nothing_is_declared_that_does_not_exist() -> None:
    known = {model._meta.db_table for model in apps.get_models()}
    assert ({rule.table for rule in list_rules()} | set(list_kept())) - known == set()


def test_what_is_for_ever_is_named_by_no_rule() -> None:
    assert {rule.table for rule in list_rules()} & NEVER == set()


def test_orders_are_redacted_and_never_deleted() -> None:
    [rule] = list_rules("payments_order")
    assert rule.deed == Deed.REDACT
    assert rule.changes == "context = '{}'::jsonb"


def test_every_rule_gives_its_reason() -> None:
    for rule in list_rules():
        assert rule.why.endswith("."), rule.name
        assert (rule.deed == Deed.REDACT) == bool(rule.changes), rule.name
    for table, why in list_kept().items():
        assert why.endswith("."), table


@pytest.mark.django_db
def test_clocks_and_keys_are_columns() -> None:
    for rule in list_rules():
        with connection.cursor() as cursor:
            columns = {c.name for c in connection.introspection.get_table_description(cursor, rule.table)}
        assert {rule.clock, rule.key} <= columns, rule.name


def test_a_keeper_of_each_neighbour_is_asked() -> None:
    named = {type(keeper).__module__.partition(".")[0] for keeper in load_keepers()}
    assert named == {"config", "payments", "webhooks", "fraud", "reconciliation"}


def test_a_table_without_a_rule_is_refused_by_name() -> None:
    with pytest.raises(LookupError, match="payments_posting"):
        list_rules("payments_posting")


def test_evidence_outlives_the_time_to_dispute() -> None:
    for table in ("payments_order", "payments_sagaevent", "payments_inquiry", "fraud_assessment"):
        assert all(rule.after >= timedelta(days=396) for rule in list_rules(table)), table
