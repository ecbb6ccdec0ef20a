"""Lays the gateway's rows beside our operations with one full join, and brings the discrepancies up to date.

Three small temporary tables hold what is looked at, the pairs, and what is wrong with them; the rows themselves never
leave the database. Everything is decided from the whole history of a payment or refund, so a row in yesterday's or
tomorrow's report counts as much as one in today's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from payments import ids
from payments.models import GatewayAccount
from reconciliation.models import Run
from reconciliation.staging import resolve_lines

CUT_OFF_SLACK = timedelta(minutes=5)  # a capture at the last minute may be booked on the next day there
RESOLVED_WITHIN = timedelta(days=14)  # from an operation's creation to its outcome; bounds what is read


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one matching found. `kinds` counts open discrepancies only; `totals` are minor units per currency."""

    total: int = 0
    expected: int = 0
    settled: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    totals: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def matched(self) -> int:
        return self.total - sum(self.kinds.values())


def match_run(run: Run) -> Outcome:
    """Match what the run's report and day hold, and whatever is still unsettled; safe to repeat.

    Ours is due when it is older than the account's settlement lag; before that it is expected, not missing.
    """
    start = datetime.combine(run.day, time.min, tzinfo=UTC)
    lag = timedelta(days=run.account.settlement_lag_days)
    due_before = start + timedelta(days=1) - lag - CUT_OFF_SLACK
    since = _find_window_start(run, start) - lag - CUT_OFF_SLACK
    params = {
        "file": run.file_id,
        "start": start,
        "end": start + timedelta(days=1),
        "since": since,
        "created_since": since - RESOLVED_WITHIN,
        "due_before": due_before,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        context = _begin(cursor, run.account, params | {"run": run.pk})
        resolve_lines(run.account_id)
        cursor.execute(_SCOPE, context)
        cursor.execute("ANALYZE recon_scope")
        _judge(cursor, context)
        cursor.execute(_SIGHT, context)
        return _read_outcome(cursor, context)


def match_unsettled(account: GatewayAccount) -> int:
    """Look again at the unsettled discrepancies alone, and return how many closed themselves."""
    now = timezone.now()
    with transaction.atomic(), connection.cursor() as cursor:
        context = _begin(cursor, account, {"due_before": now})
        resolve_lines(account.pk)
        return _judge(cursor, context)


def _find_window_start(run: Run, start: datetime) -> datetime:
    """The end of the last completed day before this one, so that a night without a run leaves no gap."""
    earlier = Run.objects.completed().filter(account=run.account_id, day__lt=run.day).order_by("-day").first()
    if earlier is None:
        return start
    return min(start, datetime.combine(earlier.day, time.min, tzinfo=UTC) + timedelta(days=1))


def _begin(cursor: Any, account: GatewayAccount, params: dict[str, Any]) -> dict[str, Any]:
    """One matching per account at a time, however many days run at once."""
    cursor.execute("SET LOCAL statement_timeout = '10min'")
    cursor.execute("SET LOCAL lock_timeout = '5min'")
    cursor.execute("SET LOCAL jit = off")  # compiling these statements takes longer than running them
    cursor.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('reconciliation matching ' || %s, 0))", [account.pk]
    )
    for table in ("recon_scope", "recon_pair", "recon_found"):
        cursor.execute(f"DROP TABLE IF EXISTS pg_temp.{table}")
    cursor.execute("CREATE TEMP TABLE recon_scope (g text, origin smallint) ON COMMIT DROP")
    # Ids are made here and not in Python, since a night without a report may find a million.
    return params | {"account": account.pk, "now": timezone.now(), "id": ids.new_id("dis")[:14]}


def _judge(cursor: Any, context: dict[str, Any]) -> int:
    cursor.execute(_SCOPE_UNSETTLED, context)
    cursor.execute("ANALYZE recon_scope")
    cursor.execute(_PAIR, context)
    cursor.execute("ANALYZE recon_pair")
    cursor.execute(_FIND, context)
    cursor.execute("ANALYZE recon_found")
    cursor.execute(_REOPEN, context)
    cursor.execute(_RECORD, context)
    cursor.execute(_CLOSE, context)
    return int(cursor.rowcount)


def _read_outcome(cursor: Any, context: dict[str, Any]) -> Outcome:
    cursor.execute(_COUNT, context)
    total, expected = cursor.fetchone()
    cursor.execute(_COUNT_KINDS, context)
    kinds: dict[str, int] = {}
    settled = 0
    for kind, is_settled, count in cursor.fetchall():
        if is_settled:
            settled += count
        else:
            kinds[kind] = count
    cursor.execute(_TOTALS, context)
    names = ("our_charges", "their_charges", "our_refunds", "their_refunds")
    totals = {row[0]: dict(zip(names, map(int, row[1:]), strict=True)) for row in cursor.fetchall()}
    return Outcome(total=total, expected=expected, settled=settled, kinds=kinds, totals=totals)


# --- what is looked at --------------------------------------------------------------------------------------
# `g` is our payment or refund, or the gateway's reference when we have none. Origin 1: of this report or day;
# 2: ours of earlier days, which may have become due; 3: unsettled from before.
_SCOPE = """
INSERT INTO recon_scope
SELECT g, min(origin) FROM (
    SELECT group_key AS g, 1 AS origin FROM reconciliation_reportline
    WHERE account_id = %(account)s AND file_id = %(file)s AND kind IN ('charge', 'refund', 'unknown')
    UNION ALL
    SELECT group_key, 1 FROM reconciliation_reportline
    WHERE account_id = %(account)s AND created_at >= %(start)s AND created_at < %(end)s
      AND kind IN ('charge', 'refund', 'unknown')
    UNION ALL
    SELECT CASE kind WHEN 'capture' THEN payment_id ELSE id END,
        CASE WHEN coalesce(resolved_at, created_at) >= %(start)s THEN 1 ELSE 2 END
    FROM payments_operation
    WHERE account_id = %(account)s AND kind IN ('capture', 'refund') AND state = 'succeeded'
      AND created_at >= %(created_since)s AND created_at < %(end)s
      AND coalesce(resolved_at, created_at) >= %(since)s AND coalesce(resolved_at, created_at) < %(end)s
) x GROUP BY g
"""
_SCOPE_UNSETTLED = """
INSERT INTO recon_scope
SELECT DISTINCT d.group_key, 3 FROM reconciliation_discrepancy d
WHERE d.account_id = %(account)s AND d.state IN ('open', 'assigned')
  AND NOT EXISTS (SELECT FROM recon_scope s WHERE s.g = d.group_key)
"""

# --- the pairs ----------------------------------------------------------------------------------------------
# Captures of a payment are compared by their sum with the sum of its charge rows, a partial capture being two of them.
_PAIR = """
CREATE TEMP TABLE recon_pair ON COMMIT DROP AS
WITH ours AS (
    SELECT p.id AS g, 'charge' AS family, p.id AS payment_id, NULL::text AS operation_id, p.order_id,
        max(a.gateway_reference) AS reference,
        count(o.id) FILTER (WHERE o.state = 'succeeded') AS done,
        count(o.id) + (p.state = 'canceled')::int AS known,
        coalesce(sum(o.amount) FILTER (WHERE o.state = 'succeeded'), sum(o.amount)) AS amount,
        coalesce(min(o.currency), p.currency) AS currency,
        CASE WHEN count(o.id) FILTER (WHERE o.state = 'succeeded') > 0 THEN 'captured'
             ELSE coalesce(max(o.state), p.state) END AS state,
        coalesce(min(coalesce(o.resolved_at, o.created_at)) FILTER (WHERE o.state = 'succeeded'),
            min(o.created_at)) AS at
    FROM recon_scope s
    JOIN payments_payment p ON p.id = s.g AND p.account_id = %(account)s
    LEFT JOIN payments_operation o ON o.payment_id = p.id AND o.kind = 'capture' AND o.account_id = %(account)s
    LEFT JOIN payments_attempt a ON a.id = o.attempt_id
    GROUP BY p.id
    UNION ALL
    SELECT o.id, 'refund', o.payment_id, o.id, p.order_id, o.gateway_reference,
        (o.state = 'succeeded')::int, 1, o.amount, o.currency,
        CASE o.state WHEN 'succeeded' THEN 'refunded' ELSE o.state END, coalesce(o.resolved_at, o.created_at)
    FROM recon_scope s
    JOIN payments_operation o ON o.id = s.g AND o.kind = 'refund' AND o.account_id = %(account)s
    JOIN payments_payment p ON p.id = o.payment_id
), theirs AS (
    SELECT g, min(kind) AS family, min(reference) AS reference, min(payment_reference) AS payment_reference,
        sum(amount) AS amount, coalesce(sum(amount) FILTER (WHERE amount > 0), 0) AS booked,
        count(*) FILTER (WHERE amount > 0) AS rows,
        min(currency) AS currency, min(currency) <> max(currency) AS is_mixed
    FROM (
        SELECT l.group_key AS g, l.kind, l.reference, l.payment_reference, l.currency,
            CASE l.kind WHEN 'refund' THEN -l.amount ELSE l.amount END AS amount
        FROM recon_scope s
        JOIN reconciliation_reportline l ON l.account_id = %(account)s AND l.group_key = s.g
        WHERE l.kind IN ('charge', 'refund')
    ) signed GROUP BY g
)
SELECT coalesce(o.g, t.g) AS g, coalesce(o.family, t.family) AS family,
    coalesce(t.reference, nullif(o.reference, ''), o.g) AS key, t.payment_reference,
    o.payment_id, o.operation_id, o.order_id, o.at,
    coalesce(o.done, 0) AS done, coalesce(o.known, 0) AS known, o.amount AS our_amount, o.currency AS our_currency,
    o.state AS our_state, t.g IS NOT NULL AS listed, coalesce(t.rows, 0) AS rows,
    t.amount AS their_amount, t.booked, t.currency AS their_currency, t.is_mixed
FROM ours o FULL OUTER JOIN theirs t ON t.g = o.g
WHERE o.done > 0 OR t.g IS NOT NULL
"""

# --- what is wrong with them --------------------------------------------------------------------------------
_FIND = """
CREATE TEMP TABLE recon_found ON COMMIT DROP AS
WITH compared AS (
    SELECT p.*, done > 0 AS we_have, coalesce(their_amount, 0) <> 0 AS they_have,
        known > 0 AND listed AND (our_currency <> their_currency OR is_mixed) AS other_currency,
        known > 0 AND listed AND abs(our_amount - CASE their_amount WHEN 0 THEN booked ELSE their_amount END)
            > coalesce(t.minor_units, 0) AS other_amount,
        known > 0 AND listed AND (done > 0) <> (their_amount <> 0) AS other_state
    FROM recon_pair p LEFT JOIN reconciliation_tolerance t ON t.currency = p.our_currency
    WHERE done > 0 OR their_amount <> 0
), judged AS (
    SELECT *, CASE
        WHEN NOT listed THEN CASE WHEN at < %(due_before)s OR EXISTS (
                SELECT FROM reconciliation_discrepancy d
                WHERE d.account_id = %(account)s AND d.kind = 'missing_gateway' AND d.key = c.key
                  AND d.state <> 'closed'
            ) THEN 'missing_gateway' ELSE 'expected' END
        WHEN known = 0 THEN 'missing_internal'
        WHEN other_currency THEN 'currency_mismatch'
        WHEN family = 'refund' AND our_state = 'pending' AND at >= %(due_before)s THEN 'expected'
        WHEN other_amount AND we_have AND rows > 1 AND our_amount IN (
                SELECT abs(l.amount) FROM reconciliation_reportline l
                WHERE l.account_id = %(account)s AND l.group_key = c.g AND l.kind = c.family
            ) THEN 'duplicate_gateway'
        WHEN other_amount AND done > 1 AND their_amount IN (
                SELECT o.amount FROM payments_operation o
                WHERE o.payment_id = c.payment_id AND o.kind = 'capture' AND o.state = 'succeeded'
            ) THEN 'duplicate_internal'
        WHEN other_amount THEN 'amount_mismatch'
        WHEN other_state THEN 'status_mismatch'
    END AS kind FROM compared c
)
SELECT kind, key, g, family, payment_id, operation_id, order_id, payment_reference, at,
    array_remove(ARRAY[CASE WHEN other_currency THEN 'currency' END, CASE WHEN other_amount THEN 'amount' END,
        CASE WHEN other_state THEN 'status' END], NULL) AS fields,
    abs(CASE kind WHEN 'missing_internal' THEN booked WHEN 'missing_gateway' THEN our_amount
        WHEN 'amount_mismatch' THEN their_amount - our_amount WHEN 'duplicate_gateway' THEN their_amount - our_amount
        WHEN 'duplicate_internal' THEN our_amount - their_amount
        ELSE greatest(our_amount, booked) END) AS stake,
    coalesce(our_currency, their_currency) AS currency,
    our_amount, our_currency, our_state, their_amount, their_currency, booked, listed, known
FROM judged WHERE kind IS NOT NULL
UNION ALL
SELECT 'unknown_row_type', l.row_key, l.group_key, l.kind, NULL, NULL, NULL, l.payment_reference, l.created_at,
    ARRAY['category'], abs(l.amount), l.currency, NULL, NULL, NULL, l.amount, l.currency, l.amount, true, 0
FROM recon_scope s JOIN reconciliation_reportline l ON l.account_id = %(account)s AND l.group_key = s.g
WHERE l.kind = 'unknown' AND l.occurrence = 1
"""
_FINGERPRINT = (
    "md5(concat_ws('|', f.our_amount, f.our_currency, f.our_state, f.their_amount, f.their_currency))"
)

# --- the discrepancies, brought up to date ------------------------------------------------------------------
_EVENT = "INSERT INTO reconciliation_discrepancyevent (discrepancy_id, type, actor, text, at)"
_REOPEN = f"""
WITH reopened AS (
    UPDATE reconciliation_discrepancy d
    SET state = 'open', assigned_to_id = NULL, reason = '', note = '', resolved_by = '', resolved_at = NULL,
        closed_cause = '', closed_at = NULL, oncall_page_id = NULL, first_seen = %(now)s
    FROM recon_found f
    WHERE d.account_id = %(account)s AND d.kind = f.kind AND d.key = f.key
      AND (d.state = 'closed' OR d.state = 'resolved' AND d.fingerprint <> {_FINGERPRINT})
    RETURNING d.id
)
{_EVENT}
SELECT id, 'reopened', 'system', 'It shows again, or has changed since it was settled.', %(now)s FROM reopened
"""  # noqa: S608 - composed of constants
_OURS = """CASE WHEN f.known > 0 OR f.payment_id IS NOT NULL THEN jsonb_build_object(
        'id', f.g, 'status', f.our_state, 'amount', f.our_amount, 'currency', f.our_currency,
        'operations', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', o.id, 'kind', o.kind, 'state', o.state,
                'amount', o.amount, 'currency', o.currency, 'reference', o.gateway_reference,
                'at', coalesce(o.resolved_at, o.created_at)) ORDER BY o.id), '[]')
            FROM payments_operation o WHERE o.payment_id = f.payment_id AND CASE f.family
                WHEN 'refund' THEN o.id = f.operation_id ELSE o.kind = 'capture' END)) ELSE '{}' END"""
_THEIRS = """CASE WHEN f.listed THEN jsonb_build_object(
        'status', CASE WHEN f.family = 'unknown' THEN 'unknown' WHEN f.their_amount = 0 THEN 'reversed'
            WHEN f.family = 'refund' THEN 'refunded' ELSE 'captured' END,
        'amount', CASE f.their_amount WHEN 0 THEN f.booked ELSE f.their_amount END, 'currency', f.their_currency,
        'rows', (SELECT jsonb_agg(jsonb_build_object('id', l.external_id, 'category', l.category,
                'reference', l.reference, 'source', l.source_id, 'amount', l.amount, 'currency', l.currency,
                'gross', l.gross, 'fee', l.fee, 'net', l.net, 'settlement_currency', l.settlement_currency,
                'payout', l.payout_id, 'at', l.created_at, 'file', l.file_id, 'line', l.line) ORDER BY l.id)
            FROM reconciliation_reportline l WHERE l.account_id = %(account)s AND l.group_key = f.g)) ELSE '{}' END"""
_RECORD = f"""
WITH recorded AS (
    INSERT INTO reconciliation_discrepancy AS d
        (id, account_id, kind, key, group_key, ours, theirs, fields, fingerprint, amount, currency,
         order_id, payment_id, operation_id, state, reason, note, resolved_by, closed_cause, first_seen, last_seen)
    SELECT %(id)s || right(replace(gen_random_uuid()::text, '-', ''), 16), %(account)s, f.kind, f.key, f.g,
        {_OURS}, {_THEIRS}, to_jsonb(f.fields), {_FINGERPRINT}, f.stake, f.currency,
        coalesce(f.order_id, linked.order_id), coalesce(f.payment_id, linked.id), f.operation_id,
        'open', '', '', '', '', %(now)s, %(now)s
    FROM recon_found f
    LEFT JOIN payments_attempt a
      ON f.payment_id IS NULL AND a.account_id = %(account)s AND a.gateway_reference = nullif(f.payment_reference, '')
    LEFT JOIN payments_payment linked ON linked.id = a.payment_id
    WHERE f.kind <> 'expected'
    ON CONFLICT (account_id, kind, key) DO UPDATE SET
        group_key = excluded.group_key, ours = excluded.ours, theirs = excluded.theirs, fields = excluded.fields,
        fingerprint = excluded.fingerprint, amount = excluded.amount, currency = excluded.currency,
        order_id = excluded.order_id, payment_id = excluded.payment_id, operation_id = excluded.operation_id,
        last_seen = excluded.last_seen
    RETURNING d.id, d.xmax = 0 AS is_new
)
{_EVENT}
SELECT id, 'found', 'system', '', %(now)s FROM recorded WHERE is_new
"""  # noqa: S608
_CLOSE = f"""
WITH explained AS (
    UPDATE reconciliation_discrepancy d
    SET state = 'closed', assigned_to_id = NULL, closed_at = %(now)s, closed_cause = CASE
        WHEN EXISTS (SELECT FROM recon_found f WHERE f.g = d.group_key AND f.kind <> 'expected') THEN 'superseded'
        WHEN NOT EXISTS (SELECT FROM recon_pair p WHERE p.g = d.group_key AND p.listed AND p.done > 0) THEN 'agrees'
        WHEN d.kind IN ('missing_internal', 'status_mismatch') THEN 'late_webhook'
        WHEN d.kind = 'missing_gateway' THEN 'late_report' ELSE 'agrees' END
    FROM recon_scope s
    WHERE d.account_id = %(account)s AND d.state IN ('open', 'assigned') AND s.g = d.group_key
      AND NOT EXISTS (SELECT FROM recon_found f WHERE f.kind = d.kind AND f.key = d.key)
    RETURNING d.id, d.closed_cause
)
{_EVENT} SELECT id, 'closed', 'system', closed_cause, %(now)s FROM explained
"""  # noqa: S608

# --- what the run says --------------------------------------------------------------------------------------
# Ours of earlier days were counted by their own run: here they count only when they have gone missing.
_OWN = "(s.origin = 1 OR s.origin = 2 AND f.kind = 'missing_gateway')"
_SIGHT = f"""
INSERT INTO reconciliation_sighting (run_id, discrepancy_id, seen_at)
SELECT %(run)s, d.id, %(now)s
FROM recon_found f JOIN recon_scope s ON s.g = f.g
JOIN reconciliation_discrepancy d ON d.account_id = %(account)s AND d.kind = f.kind AND d.key = f.key
WHERE {_OWN}
ON CONFLICT DO NOTHING
"""  # noqa: S608
_COUNT = f"""
SELECT count(*) FILTER (WHERE f.kind IS DISTINCT FROM 'expected'), count(*) FILTER (WHERE f.kind = 'expected')
FROM (
    SELECT g FROM recon_pair WHERE done > 0 OR their_amount <> 0
    UNION ALL SELECT g FROM recon_found WHERE kind = 'unknown_row_type'
) p
JOIN recon_scope s ON s.g = p.g LEFT JOIN recon_found f ON f.g = p.g
WHERE {_OWN}
"""  # noqa: S608
_COUNT_KINDS = f"""
SELECT f.kind, d.state = 'resolved', count(*)
FROM recon_found f JOIN recon_scope s ON s.g = f.g
JOIN reconciliation_discrepancy d ON d.account_id = %(account)s AND d.kind = f.kind AND d.key = f.key
WHERE {_OWN} GROUP BY 1, 2
"""  # noqa: S608
_TOTALS = """
SELECT coalesce(p.our_currency, p.their_currency),
    coalesce(sum(p.our_amount) FILTER (WHERE p.done > 0 AND p.family = 'charge'), 0),
    coalesce(sum(p.their_amount) FILTER (WHERE p.family = 'charge'), 0),
    coalesce(sum(p.our_amount) FILTER (WHERE p.done > 0 AND p.family = 'refund'), 0),
    coalesce(sum(p.their_amount) FILTER (WHERE p.family = 'refund'), 0)
FROM recon_pair p JOIN recon_scope s ON s.g = p.g WHERE s.origin = 1 GROUP BY 1 ORDER BY 1
"""
