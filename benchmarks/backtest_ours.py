"""Fills a scratch database with screened orders, and back-tests them: one JSON line of orders per second."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

from fraud.backtest.history import Period, load_history  # noqa: E402
from fraud.backtest.replay import frame_rules, make_replay, needed_columns, replay_frame  # noqa: E402
from fraud.backtest.report import describe_rules, describe_set  # noqa: E402
from fraud.facts import FraudContext  # noqa: E402
from fraud.models import Rule  # noqa: E402

PERIOD = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
EXPRESSIONS = (
    ('in_list("block")', "block", 0),
    ('avs == "fail" or cvv == "fail"', "review", 30),
    ('velocity("card", "1h") >= 5', "block", 0),
    ("card_country != billing_country", "review", 30),
    ('amount >= money("1000 USD", "1000 EUR")', "challenge", 10),
)
CHECKED = 20_000  # orders decided again one by one
# Constraints and triggers are off while rows are filled in: they stand for orders that are not there.
FILL = """
SET session_replication_role = replica;
INSERT INTO fraud_assessment (id, order_id, payment_id, stage, decision, score, context, microseconds, created_at)
SELECT 'asm_' || lpad(n::text, 26, '0'), 'ord_' || lpad(n::text, 26, '0'), 'pay_' || lpad(n::text, 26, '0'), 'after',
    'approve', 0, jsonb_build_object(
        'stage', 'after', 'order_id', 'ord_' || lpad(n::text, 26, '0'), 'amount', (random() * 150000)::int + 1,
        'currency', CASE WHEN random() < 0.7 THEN 'EUR' ELSE 'USD' END, 'assessed_at', 1767225600 + n,
        'is_guest', random() < 0.5, 'line_count', 1, 'item_count', 2, 'customer_id', 'cus_' || n %% 50000,
        'customer_email', 'b***@example.com', 'email_domain', 'example.com', 'customer_age_days', n %% 900,
        'ip', '198.51.100.7', 'device', 'd_abc', 'billing_country', 'DE', 'shipping_country', 'DE',
        'card_country', CASE WHEN random() < 0.05 THEN 'US' ELSE 'DE' END, 'card_brand', 'visa', 'card_last4', '4242',
        'avs', CASE WHEN random() < 0.04 THEN 'fail' ELSE 'pass' END,
        'cvv', CASE WHEN random() < 0.02 THEN 'fail' ELSE 'pass' END, 'risk_score', (random() * 99)::int,
        'velocity', jsonb_build_object('card:600', 1, 'card:3600', 1 + (random() * 4.4)::int, 'card:86400', 6,
            'email:600', 1, 'email:3600', 1, 'email:86400', 2, 'ip:600', 1, 'ip:3600', 2, 'ip:86400', 3,
            'device:600', 1, 'device:3600', 1, 'device:86400', 1, 'customer:600', 1, 'customer:3600', 1,
            'customer:86400', 2), 'velocity_source', 'redis',
        'list_matches', CASE WHEN random() < 0.01 THEN
            '[{"list": "block", "kind": "email", "value": "b***@example.com"}]'::jsonb ELSE '[]'::jsonb END),
    700, timestamptz '2026-03-01' + n * interval '5 seconds'
FROM generate_series(1, %(contexts)s) n;
INSERT INTO fraud_label (order_id, is_fraud, source, reason, actor, evidence, at, created_at)
SELECT order_id, random() < 0.02, 'matured', '', 'system', '', created_at, created_at FROM fraud_assessment;
SET session_replication_role = origin;
"""


def main(wish: str, contexts: int) -> None:
    if wish == "fill":
        fill(contexts)
        print(json.dumps({}))
    else:
        print(json.dumps(run(contexts)))


def fill(contexts: int) -> None:
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"contexts": contexts})
        cursor.execute("VACUUM ANALYZE fraud_assessment")
        cursor.execute("VACUUM ANALYZE fraud_label")


def make_rows() -> list[Rule]:
    return [
        Rule(
            pk=number,
            key=f"rule-{number}",
            name=text,
            expression=text,
            outcome=outcome,
            points=points,
            mode="on",
            on_error="miss",
            position=number,
        )
        for number, (text, outcome, points) in enumerate(EXPRESSIONS)
    ]


def run(contexts: int) -> dict[str, float]:
    rows = make_rows()
    began = time.perf_counter()
    rules = frame_rules(rows)
    judged = replay_frame(rules, load_history(PERIOD, needed_columns(rules).values()))
    report = describe_set(judged), describe_rules(rules, judged)
    took = time.perf_counter() - began
    assert report[0]["orders"] == report[0]["labelled"] == contexts
    decided = dict(judged.select("order_id", "decision").iter_rows())
    with connection.cursor() as cursor:
        cursor.execute("SELECT context FROM fraud_assessment ORDER BY id LIMIT %s", [CHECKED])
        facts = [FraudContext.from_dict(json.loads(context)) for (context,) in cursor.fetchall()]
    replay = make_replay(rows)
    began = time.perf_counter()
    one_by_one = [replay(context).decision for context in facts]
    live = time.perf_counter() - began
    for context, decision in zip(facts, one_by_one, strict=True):
        assert decided[context.order_id] == decision, "frames and live functions agree"
    return {
        "a back-test, from the rows on": contexts / took,
        "the live functions, facts in memory": len(facts) / live,
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
