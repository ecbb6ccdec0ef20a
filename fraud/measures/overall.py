"""How the whole of screening and review does: its rates by count and by money, and how much is known at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from fraud.measures.period import Period
from fraud.measures.reading import fetch
from fraud.measures.statistics import Proportion

# One row for each kind of order that there was: every rate is a sum over these.
_CELLS = """
WITH screened AS (
    SELECT order_id, bool_or(decision = 'block') AS is_blocked, bool_or(decision = 'challenge') AS is_challenged
    FROM fraud_assessment WHERE created_at >= %(since)s AND created_at < %(until)s GROUP BY order_id
), reviewed AS (
    SELECT DISTINCT ON (order_id) order_id, state FROM fraud_review
    WHERE created_at >= %(since)s ORDER BY order_id, id DESC
), disputed AS (
    SELECT payment_id, currency, sum(amount)::bigint AS amount FROM payments_dispute
    WHERE stage <> 'inquiry' AND opened_at >= %(since)s GROUP BY payment_id, currency
)
SELECT payment.currency, screened.is_blocked, screened.is_challenged, coalesce(reviewed.state, ''),
    coalesce(label.source, ''), label.is_fraud,
    count(*), sum(payment.amount)::bigint,
    count(*) FILTER (WHERE payment.captured > 0), coalesce(sum(payment.captured), 0)::bigint,
    count(disputed.amount), coalesce(sum(disputed.amount), 0)::bigint,
    coalesce(sum(extract(epoch FROM label.at - payment.created_at)), 0)::float8, max(label.at)
FROM screened JOIN payments_payment payment ON payment.order_id = screened.order_id
LEFT JOIN reviewed ON reviewed.order_id = screened.order_id
LEFT JOIN disputed ON disputed.payment_id = payment.id AND disputed.currency = payment.currency
LEFT JOIN fraud_effective_label label ON label.order_id = screened.order_id
GROUP BY 1, 2, 3, 4, 5, 6
"""


@dataclass(frozen=True, slots=True)
class OrderCell:
    """Orders alike in all of this. Amounts are minor units."""

    currency: str
    is_blocked: bool
    is_challenged: bool
    review: str  # the state of the order's last review, or ""
    source: str  # of the label that counts, or ""
    is_fraud: bool | None
    orders: int
    amount: int
    captured_orders: int
    captured: int
    disputed_orders: int
    disputed: int
    seconds_to_label: float
    newest_label: datetime | None

    @property
    def is_decided(self) -> bool:
        return self.review in ("approved", "rejected")

    @property
    def is_overturned(self) -> bool:
        """A decision that another word contradicts, which counts more than the decision's own label."""
        says_fraud = self.review == "rejected"
        return self.is_decided and self.is_fraud is not None and self.is_fraud is not says_fraud


@dataclass(frozen=True, slots=True)
class Rate:
    """A share by count, and by currency the minor units of it and of all."""

    name: str
    share: Proportion
    money: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SourceMeasure:
    """What one source of labels said of the period's orders; `delay` is from the order to its label, on average."""

    source: str
    orders: int
    fraud: int
    delay: timedelta
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class Overall:
    """Orders screened in the period."""

    cells: tuple[OrderCell, ...]

    def count(self, fits: Callable[[OrderCell], bool] = lambda cell: True) -> int:
        return sum(cell.orders for cell in self.cells if fits(cell))

    @property
    def screened(self) -> int:
        return self.count()

    @property
    def rates(self) -> list[Rate]:
        """Review, block, challenge, approved after review, overturned, and chargebacks, in this order."""
        everything, decided = (lambda cell: True), (lambda cell: cell.is_decided)
        return [
            self._rate("review", lambda cell: cell.review != "", everything),
            self._rate("block", lambda cell: cell.is_blocked, everything),
            self._rate("challenge", lambda cell: cell.is_challenged, everything),
            self._rate("approved after review", lambda cell: cell.review == "approved", decided),
            self._rate("overturned", lambda cell: cell.is_overturned, decided),
            self._chargebacks(),
        ]

    def _rate(self, name: str, fits: Callable[[OrderCell], bool], among: Callable[[OrderCell], bool]) -> Rate:
        all_of = [cell for cell in self.cells if among(cell)]
        part = [cell for cell in all_of if fits(cell)]
        share = Proportion(sum(cell.orders for cell in part), sum(cell.orders for cell in all_of))
        money = _add_up((cell.currency, cell.amount if fits(cell) else 0, cell.amount) for cell in all_of)
        return Rate(name, share, money)

    def _chargebacks(self) -> Rate:
        """Of captured orders; an inquiry is none. By what was disputed, of what was captured."""
        disputed = sum(cell.disputed_orders for cell in self.cells)
        share = Proportion(disputed, max(sum(cell.captured_orders for cell in self.cells), disputed))
        money = _add_up((cell.currency, cell.disputed, cell.captured) for cell in self.cells)
        return Rate("chargebacks", share, money)

    @property
    def labelled(self) -> Proportion:
        """Of how many orders it is known what they were."""
        return Proportion(self.count(lambda cell: cell.is_fraud is not None), self.screened)

    @property
    def blocked_labelled(self) -> Proportion:
        """Of how many blocked ones: seldom any, as nobody disputes what was never charged."""
        return Proportion(
            self.count(lambda cell: cell.is_blocked and cell.is_fraud is not None),
            self.count(lambda cell: cell.is_blocked),
        )

    @property
    def fraud(self) -> Proportion:
        """Of the labelled."""
        return Proportion(self.count(lambda cell: bool(cell.is_fraud)), self.labelled.hits)

    @property
    def sources(self) -> list[SourceMeasure]:
        names = sorted({cell.source for cell in self.cells} - {""})
        return [self._measure_source(name) for name in names]

    def _measure_source(self, name: str) -> SourceMeasure:
        cells = [cell for cell in self.cells if cell.source == name]
        orders = sum(cell.orders for cell in cells)
        delay = timedelta(seconds=sum(cell.seconds_to_label for cell in cells) / orders)
        newest = max((cell.newest_label for cell in cells if cell.newest_label), default=None)
        return SourceMeasure(name, orders, sum(c.orders for c in cells if c.is_fraud), delay, newest)


def _add_up(rows: Iterable[tuple[str, int, int]]) -> dict[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    for currency, part, whole in rows:
        known = sums.get(currency, (0, 0))
        sums[currency] = known[0] + part, known[1] + whole
    return dict(sorted(sums.items()))


def measure_overall(period: Period) -> Overall:
    """In one query."""
    return Overall(tuple(OrderCell(*row) for row in fetch(_CELLS, period)))
