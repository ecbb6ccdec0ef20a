"""What a rule, or a whole rule set, would have done with the last orders: asked before it is saved or published."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fraud.decision import RulePlan, decide
from fraud.facts import FraudContext
from fraud.labels import find_frauds
from fraud.models import Assessment
from payments.decisions import Decision, Stage
from payments.models import Order

LAST_ORDERS = 1000
MAX_SECONDS = 2.0  # then the answer is given for the orders looked at so far
MAX_EXAMPLES = 10
SCREENINGS_PER_ORDER = 3  # two, and some for orders that were tried again

_HARDNESS = list(Decision)


@dataclass(frozen=True, slots=True)
class Screened:
    """The facts of one order at each stage that it came to, and the newest of both."""

    order_id: str
    before: FraudContext | None
    after: FraudContext | None
    newest: FraudContext


@dataclass(slots=True)
class Hits:
    """How one rule came out. `fraud` counts the hits whose label says so; orders are the newest first."""

    looked_at: int = 0
    hits: int = 0
    unknown: int = 0
    fraud: int = 0
    is_cut: bool = False  # the time was over before the last order
    examples: list[Order] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Turn:
    """One order on which two rule sets disagree."""

    order: Order
    before: Decision
    after: Decision


@dataclass(slots=True)
class Rehearsal:
    """What would change. `turns` counts every pair of decisions that differ; `examples` has up to ten of each pair."""

    looked_at: int = 0
    is_cut: bool = False
    turns: Counter[tuple[Decision, Decision]] = field(default_factory=Counter)
    examples: list[Turn] = field(default_factory=list)

    def newly(self, decision: Decision) -> int:
        """How many orders would get this decision that had another."""
        return sum(count for (_, after), count in self.turns.items() if after is decision)


def load_screened(limit: int = LAST_ORDERS) -> Iterator[Screened]:
    """The last orders that were screened, the newest first; those whose facts are gone are left out."""
    rows = Assessment.objects.order_by("-id").values_list("order_id", "stage", "context")
    by_order: dict[str, dict[str, Mapping[str, object]]] = {}
    for order_id, stage, context in rows[: limit * SCREENINGS_PER_ORDER]:
        by_order.setdefault(order_id, {}).setdefault(stage, context)
    for order_id, contexts in islice(by_order.items(), limit):
        before, after = (_read(contexts.get(stage, {})) for stage in Stage)
        if newest_facts := after or before:
            yield Screened(order_id, before, after, newest_facts)


def rehearse_rule(
    test: Callable[[FraudContext], bool | None], *, limit: int = LAST_ORDERS, seconds: float = MAX_SECONDS
) -> Hits:
    """Run one rule over the newest facts of the last orders. A rule that fails on an order cannot tell."""
    found, hits, ends = Hits(), [], time.monotonic() + seconds
    for screened in load_screened(limit):
        if time.monotonic() >= ends:
            found.is_cut = True
            break
        found.looked_at += 1
        answer = _ask(test, screened.newest)
        if answer is None:
            found.unknown += 1
        elif answer:
            hits.append(screened.order_id)
    found.hits = len(hits)
    found.fraud = len(find_frauds(hits))
    found.examples = list(_fetch_orders(hits[:MAX_EXAMPLES]).values())
    return found


def rehearse_plan(
    live: RulePlan, new: RulePlan, *, limit: int = LAST_ORDERS, seconds: float = MAX_SECONDS
) -> Rehearsal:
    """Decide the last orders by both plans, on the same facts, and tell where they disagree."""
    found, turned, ends = Rehearsal(), [], time.monotonic() + seconds
    for screened in load_screened(limit):
        if time.monotonic() >= ends:
            found.is_cut = True
            break
        found.looked_at += 1
        turn = replay(live, screened), replay(new, screened)
        if turn[0] is not turn[1]:
            found.turns[turn] += 1
            if found.turns[turn] <= MAX_EXAMPLES:
                turned.append((screened.order_id, *turn))
    orders = _fetch_orders([order_id for order_id, _, _ in turned])
    found.examples = [Turn(orders[order_id], before, after) for order_id, before, after in turned]
    return found


def replay(plan: RulePlan, screened: Screened) -> Decision:
    """What the plan decides of an order that is screened as far as it was then: the harder of both screenings.

    A back-test (fraud.backtest) decides far more orders, in a frame, by the facts of the last screening alone.
    """
    if screened.before is None:
        return decide(plan, screened.newest.with_score(0)).decision
    first = decide(plan, screened.before.with_score(0))
    if screened.after is None or first.decision is Decision.BLOCK:
        return first.decision
    hits = [verdict for verdict in first.verdicts if verdict.outcome is not None]
    second = decide(
        plan,
        screened.after.with_score(first.score),
        wants_review=any(verdict.outcome == "review" for verdict in hits),
        settled=frozenset(verdict.rule.key for verdict in hits),
    )
    return max(first.decision, second.decision, key=_HARDNESS.index)


def _read(context: Mapping[str, object]) -> FraudContext | None:
    """None for a screening that failed, or whose facts have another shape than today's."""
    try:
        return FraudContext.from_dict(context) if context.get("stage") else None
    except (TypeError, ValueError):
        return None


def _ask(test: Callable[[FraudContext], bool | None], context: FraudContext) -> bool | None:
    try:
        return test(context)
    except Exception:  # as in fraud.decision.judge: whatever a rule raises, it could not tell
        return None


def _fetch_orders(order_ids: Sequence[str]) -> dict[str, Order]:
    """By id, in the order of the ids."""
    found = Order.objects.in_bulk(order_ids)
    return {order_id: found[order_id] for order_id in order_ids}
