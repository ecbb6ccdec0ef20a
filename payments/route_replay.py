"""What routing rules would have done with the newest orders: the rehearsal before a rule goes live."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from payments.models import GatewayAccount, Payment, RoutingRule, RoutingTarget
from payments.money import Money
from payments.routing import RouteSubject, Rule, Target, list_routes, load_accounts, rank_accounts

MOST_ORDERS = 1000
NOWHERE = "no account"


@dataclass(frozen=True, slots=True)
class Replay:
    """How many of `orders` went to each account first, how many would go there, and how many would change."""

    orders: int
    moved: int
    rows: Sequence[tuple[str, int, int]]  # account, went, would go


def replay_orders(rules: Sequence[Rule], *, most: int = MOST_ORDERS) -> Replay:
    """The newest orders under these rules, with today's accounts and every breaker closed. Three queries."""
    accounts, names = load_accounts(), name_accounts()
    went: Counter[str] = Counter()
    would: Counter[str] = Counter()
    moved = 0
    for subject, account_id in read_subjects(most):
        routes = list_routes(rank_accounts(subject, rules, accounts, lambda account: True))
        before, after = names[account_id], str(routes[0].account) if routes else NOWHERE
        went[before] += 1
        would[after] += 1
        moved += before != after
    rows = [(name, went[name], would[name]) for name in sorted({*went, *would})]
    return Replay(went.total(), moved, rows)


def name_accounts() -> dict[str, str]:
    rows = GatewayAccount.objects.order_by().values_list("id", "gateway", "name")
    return {pk: f"{gateway}/{name}" for pk, gateway, name in rows}


def read_subjects(most: int) -> Iterator[tuple[RouteSubject, str]]:
    """What routing knew of the newest orders, each with the account that it went to."""
    rows: Any = Payment.objects.order_by("-id").values_list(
        "order_id",
        "amount",
        "currency",
        "order__billing__country",
        "order__client_id",
        "is_merchant_initiated",
        "payment_method",
        "payment_methods",
        "saved_method__account_id",
        "account_id",
    )[:most]
    for order_id, minor, currency, country, *more, account_id in rows:
        subject = RouteSubject(order_id, Money(minor, currency), str(country or ""), *more)
        yield subject, account_id


def draft_rule(rule: RoutingRule, targets: Sequence[RoutingTarget]) -> Rule:
    """A rule as its form says it, whether saved or not."""
    ordered = sorted(targets, key=lambda target: target.position)
    return Rule(
        name=rule.name,
        priority=rule.priority,
        targets=[Target(target.account_id, target.share) for target in ordered],
        currencies=frozenset(rule.currencies),
        countries=frozenset(rule.countries),
        min_amount=rule.min_amount,
        max_amount=rule.max_amount,
        is_merchant_initiated=rule.is_merchant_initiated,
        client_id=rule.client_id,
        healthy_only=rule.healthy_only,
    )


def put_in_place(rules: Sequence[Rule], draft: Rule, *, instead_of: str = "") -> list[Rule]:
    """The rules with a draft at its place by priority; `instead_of` names the saved rule that it will replace."""
    others = [rule for rule in rules if rule.name not in (instead_of, draft.name)]
    return sorted([*others, draft], key=lambda rule: (rule.priority, rule.name))
