"""What each rule is worth: precision, recall, overlap, what only it caught, and the money it stopped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from fraud.measures.judged import count_judged
from fraud.measures.period import Period
from fraud.measures.reading import fetch
from fraud.measures.statistics import Proportion

MODES = ("on", "shadow")  # a rule that only watches is measured apart

# Only a rule's own hits count: a label is never given to a rule that was merely asked.
_WITHIN = """
    FROM fraud_assessment assessment JOIN fraud_verdict verdict ON verdict.assessment_id = assessment.id
    WHERE assessment.created_at >= %(since)s AND assessment.created_at < %(until)s
        AND verdict.status IN ('hit', 'shadow')
"""
# What no longer could be lost: refused by a rule, by an analyst, or because nobody decided in time.
_STOPPED = """(
    SELECT order_id FROM fraud_assessment WHERE decision = 'block' AND created_at >= %(since)s
    UNION SELECT order_id FROM fraud_review WHERE state IN ('rejected', 'expired') AND created_at >= %(since)s
) stopped"""
# One row for each set of rules that hit the same orders. There are few, and every figure is a sum over them.
_CELLS = f"""
SELECT hit.verdicts, orders.currency, stopped.order_id IS NOT NULL, label.is_fraud, count(*), sum(orders.amount)::bigint
FROM (
    SELECT assessment.order_id,
        array_agg(DISTINCT ARRAY[verdict.rule_key, verdict.status, verdict.rule_kind]::text[]) AS verdicts
    {_WITHIN} GROUP BY assessment.order_id
) hit JOIN payments_order orders ON orders.id = hit.order_id
LEFT JOIN {_STOPPED} ON stopped.order_id = hit.order_id
LEFT JOIN fraud_effective_label label ON label.order_id = hit.order_id
GROUP BY 1, 2, 3, 4
"""  # noqa: S608 - of constants

_FRAUD_JUDGED = """
SELECT verdict.rule_key, count(DISTINCT assessment.order_id)
FROM fraud_effective_label label
JOIN fraud_assessment assessment ON assessment.order_id = label.order_id
JOIN fraud_verdict verdict ON verdict.assessment_id = assessment.id
WHERE label.is_fraud AND assessment.created_at >= %(since)s AND assessment.created_at < %(until)s
GROUP BY 1
"""

_DAYS = f"""
SELECT hit.day, count(*), count(label.is_fraud), count(*) FILTER (WHERE label.is_fraud)
FROM (
    SELECT assessment.order_id, (min(assessment.created_at) AT TIME ZONE 'UTC')::date AS day
    {_WITHIN} AND verdict.rule_key = %(rule)s GROUP BY assessment.order_id
) hit LEFT JOIN fraud_effective_label label ON label.order_id = hit.order_id
GROUP BY 1
"""  # noqa: S608

_EXAMPLES = f"""
SELECT hit.order_id, orders.reference, orders.amount, orders.currency, hit.is_on, stopped.order_id IS NOT NULL,
    label.is_fraud, coalesce(label.source, ''), review.id, orders.created_at
FROM (
    SELECT assessment.order_id, bool_or(verdict.status = 'hit') AS is_on
    {_WITHIN} AND verdict.rule_key = %(rule)s GROUP BY assessment.order_id
) hit JOIN payments_order orders ON orders.id = hit.order_id
LEFT JOIN {_STOPPED} ON stopped.order_id = hit.order_id
LEFT JOIN fraud_effective_label label ON label.order_id = hit.order_id
LEFT JOIN LATERAL (
    SELECT id FROM fraud_review WHERE order_id = hit.order_id ORDER BY id DESC LIMIT 1
) review ON true
ORDER BY row_number() OVER (PARTITION BY label.is_fraud ORDER BY hit.order_id DESC), label.is_fraud NULLS LAST
LIMIT %(limit)s
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Cell:
    """Orders that a rule hit, alike in currency, end and label. `alone`: those that no other rule hit, being on."""

    currency: str
    is_stopped: bool
    is_fraud: bool | None  # None: nobody knows
    orders: int
    amount: int  # minor units
    alone: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of a rule's orders another one hit too, and which share of the rule's own."""

    rule: str
    mode: str
    share: Proportion


@dataclass(frozen=True, slots=True)
class RuleMeasure:
    """One rule over a period, in one mode. Orders are counted, each once.

    `fraud_judged` are all orders known as fraud that the rule was asked about, whatever it said.
    """

    rule: str
    mode: str
    judged: int
    fraud_judged: int
    cells: tuple[Cell, ...]
    overlaps: tuple[Overlap, ...] = ()

    @property
    def hits(self) -> int:
        return sum(cell.orders for cell in self.cells)

    @property
    def labelled(self) -> int:
        return sum(cell.orders for cell in self.cells if cell.is_fraud is not None)

    @property
    def fraud(self) -> int:
        return sum(cell.orders for cell in self.cells if cell.is_fraud)

    @property
    def hit_rate(self) -> Proportion:
        return Proportion(self.hits, self.judged)

    @property
    def precision(self) -> Proportion:
        """How many of its labelled hits were fraud."""
        return Proportion(self.fraud, self.labelled)

    @property
    def recall(self) -> Proportion:
        """How many of the known frauds it hit."""
        return Proportion(self.fraud, max(self.fraud_judged, self.fraud))

    @property
    def unique(self) -> int:
        """Known frauds that no other rule hit which was on."""
        return sum(cell.alone for cell in self.cells if cell.is_fraud)

    def money(self, *, is_stopped: bool, is_fraud: bool | None) -> dict[str, tuple[int, int]]:
        """Orders and minor units by currency; each rule that hit an order has all of its amount."""
        sums: dict[str, tuple[int, int]] = {}
        for cell in self.cells:
            if cell.is_stopped == is_stopped and cell.is_fraud is is_fraud:
                orders, amount = sums.get(cell.currency, (0, 0))
                sums[cell.currency] = orders + cell.orders, amount + cell.amount
        return dict(sorted(sums.items()))

    @property
    def saved(self) -> dict[str, tuple[int, int]]:
        return self.money(is_stopped=True, is_fraud=True)

    @property
    def blocked_wrongly(self) -> dict[str, tuple[int, int]]:
        return self.money(is_stopped=True, is_fraud=False)

    @property
    def blocked_unknown(self) -> dict[str, tuple[int, int]]:
        return self.money(is_stopped=True, is_fraud=None)

    @property
    def let_through(self) -> dict[str, tuple[int, int]]:
        """Fraud that it hit and that went on: what a rule in shadow would have stopped."""
        return self.money(is_stopped=False, is_fraud=True)

    @property
    def good_let_through(self) -> dict[str, tuple[int, int]]:
        """Genuine orders that it hit and that went on: what a rule in shadow would have blocked wrongly."""
        return self.money(is_stopped=False, is_fraud=False)


@dataclass(frozen=True, slots=True)
class DayMeasure:
    """One day of one rule, in both modes."""

    day: date
    judged: int = 0
    hits: int = 0
    labelled: int = 0
    fraud: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """An order that a rule hit."""

    order_id: str
    reference: str
    amount: int
    currency: str
    is_on: bool
    is_stopped: bool
    is_fraud: bool | None
    source: str
    review_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class _Orders:
    """Orders that the same rules hit, alike in currency, end and label. `rules`: each with its mode."""

    rules: Mapping[str, str]
    totals: frozenset[
        str
    ]  # rules made of the other rules' points: they are no other that would have caught it
    currency: str
    is_stopped: bool
    is_fraud: bool | None
    orders: int
    amount: int

    def seen_by(self, rule: str) -> Cell:
        others = {name for name, mode in self.rules.items() if mode == "on"} - self.totals - {rule}
        alone = 0 if others else self.orders
        return Cell(self.currency, self.is_stopped, self.is_fraud, self.orders, self.amount, alone)


def measure_rules(period: Period, *, mode: str = "") -> list[RuleMeasure]:
    """Every rule that judged an order of the period, by name, in `mode` (`on`, `shadow`) or in both; three queries.

    A rule counts once for an order, and as on if it was on in one of its screenings. One without a hit is there once.
    """
    sets = [_read_set(*row) for row in fetch(_CELLS, period)]
    judged: dict[str, int] = defaultdict(int)
    for (rule, _), orders in count_judged(period).items():
        judged[rule] += orders
    frauds: dict[str, int] = dict(fetch(_FRAUD_JUDGED, period))
    keys = {item for each in sets for item in each.rules.items()}
    silent = set(judged) - {rule for rule, _ in keys}
    keys |= {(rule, mode or "on") for rule in silent}
    return [
        _build(rule, its_mode, judged[rule], frauds.get(rule, 0), sets)
        for rule, its_mode in sorted(keys)
        if mode in ("", its_mode)
    ]


def _read_set(
    verdicts: list[list[str]],
    currency: str,
    is_stopped: bool,
    is_fraud: bool | None,
    orders: int,
    amount: int,
) -> _Orders:
    rules: dict[str, str] = {}
    for rule, status, _ in verdicts:
        rules[rule] = "on" if "on" in (rules.get(rule), "on" if status == "hit" else "") else "shadow"
    totals = frozenset(rule for rule, _, kind in verdicts if kind == "total")
    return _Orders(rules, totals, currency, is_stopped, is_fraud, orders, amount)


def _build(rule: str, mode: str, judged: int, frauds: int, sets: Iterable[_Orders]) -> RuleMeasure:
    own = [each for each in sets if each.rules.get(rule) == mode]
    shared: dict[tuple[str, str], int] = defaultdict(int)
    for each in own:
        for other in each.rules.items():
            shared[other] += each.orders
    hits = shared.pop((rule, mode), 0)
    overlaps = [Overlap(other, its_mode, Proportion(n, hits)) for (other, its_mode), n in shared.items()]
    overlaps.sort(key=lambda overlap: (-overlap.share.hits, overlap.rule))
    cells = tuple(each.seen_by(rule) for each in own)
    return RuleMeasure(rule, mode, judged, frauds, cells, tuple(overlaps))


def measure_days(period: Period, rule: str) -> list[DayMeasure]:
    """Each day of the period, the empty ones too."""
    judged = {day: orders for (name, day), orders in count_judged(period).items() if name == rule}
    hits: Mapping[date, Iterable[int]] = {day: counts for day, *counts in fetch(_DAYS, period, rule=rule)}
    return [DayMeasure(day, judged.get(day, 0), *hits.get(day, ())) for day in period.days]


def find_examples(period: Period, rule: str, *, limit: int = 20) -> list[Example]:
    """Orders that the rule hit, to look at, newest first: by turns a genuine one, a fraud, and one not known."""
    return [Example(*row) for row in fetch(_EXAMPLES, period, rule=rule, limit=limit)]
