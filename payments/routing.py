"""Chooses the gateway accounts that an order is tried at: rules first, then by priority; tripped ones last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from payments import sql
from payments.gateways import resilience
from payments.models import GatewayAccount
from payments.models.routing import WHOLE
from payments.money import Money


@dataclass(frozen=True, slots=True)
class RouteSubject:
    """What routing may know of an order. `payment_methods` maps `gateway/name` or `gateway` to a token."""

    order_id: str
    amount: Money
    country: str = ""  # of the billing address
    client_id: str = ""
    is_merchant_initiated: bool = False
    payment_method: str = ""
    payment_methods: Mapping[str, str] = field(default_factory=dict)
    saved_account_id: str | None = None  # of the saved payment method: no other account has its token


@dataclass(frozen=True, slots=True)
class Route:
    """One account to try, with the token to charge there; `why` fits `Attempt.route`."""

    account: GatewayAccount
    token: str
    why: str


@dataclass(frozen=True, slots=True)
class Target:
    account_id: str
    share: int | None = None  # percent


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule as it is applied, saved or not. Amounts are minor units of the one currency."""

    name: str
    priority: int
    targets: Sequence[Target]
    currencies: frozenset[str] = frozenset()
    countries: frozenset[str] = frozenset()
    min_amount: int | None = None
    max_amount: int | None = None
    is_merchant_initiated: bool | None = None
    client_id: str | None = None
    healthy_only: bool = False

    def fits(self, subject: RouteSubject) -> bool:
        """Whether every condition holds. A bound holds for its own currency alone."""
        amount = subject.amount
        return (
            (not self.currencies or amount.currency in self.currencies)
            and (not self.countries or subject.country.upper() in self.countries)
            and self._is_within(amount)
            and self.is_merchant_initiated in (None, subject.is_merchant_initiated)
            and self.client_id in (None, subject.client_id)
        )

    def _is_within(self, amount: Money) -> bool:
        if self.min_amount is None and self.max_amount is None:
            return True
        return (
            self.currencies == {amount.currency}
            and (self.min_amount is None or amount.minor >= self.min_amount)
            and (self.max_amount is None or amount.minor <= self.max_amount)
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """An account at its place. `left_out` says why it is not tried; "" when it is."""

    account: GatewayAccount
    why: str
    token: str = ""
    left_out: str = ""
    is_tripped: bool = False


IsReady = Callable[[GatewayAccount], bool]


def choose_routes(subject: RouteSubject) -> list[Route]:
    """The accounts to try, best first; empty when none may be tried. Two queries.

    Go on to the next one only when surely nothing was sent to the one before.
    """
    return list_routes(rank_accounts(subject, load_rules(), load_accounts(), ask_breakers()))


def ask_breakers() -> IsReady:
    """Asks each account's breaker once at most."""
    return cache(resilience.takes_payments)


def list_routes(candidates: Iterable[Candidate]) -> list[Route]:
    return [Route(item.account, item.token, item.why) for item in candidates if not item.left_out]


def rank_accounts(
    subject: RouteSubject, rules: Sequence[Rule], accounts: Sequence[GatewayAccount], is_ready: IsReady
) -> list[Candidate]:
    """Every active account: first those to try in their order, then those that are left out, with the reason.

    `rules` and `accounts` come in the order of their priority. `is_ready` asks a breaker, and only when it matters.
    """
    if subject.saved_account_id:
        ordered = [
            (account, "the saved payment method belongs to it")
            for account in accounts
            if account.pk == subject.saved_account_id
        ]
    else:
        ordered = order_accounts(subject, rules, accounts, is_ready)
    home = find_home(subject, [account for account, _ in ordered])
    candidates = [judge(subject, account, why, home) for account, why in ordered]
    tried = [item for item in candidates if not item.left_out]
    if len(tried) > 1:
        tried = put_tripped_last(tried, is_ready)
    return [*tried, *(item for item in candidates if item.left_out)]


def order_accounts(
    subject: RouteSubject, rules: Sequence[Rule], accounts: Sequence[GatewayAccount], is_ready: IsReady
) -> list[tuple[GatewayAccount, str]]:
    """By the first rule that fits, then the others by priority; each with the reason for its place."""
    by_id = {account.pk: account for account in accounts}
    rule = next((rule for rule in rules if rule.fits(subject) and counts(rule, by_id, is_ready)), None)
    named = order_targets(rule, subject.order_id) if rule else []
    chosen = [(by_id[account_id], why) for account_id, why in named if account_id in by_id]
    taken = {account.pk for account, _ in chosen}
    after = f"after the rule “{rule.name}”, by priority" if rule else "by priority"
    return [*chosen, *((account, after) for account in accounts if account.pk not in taken)]


def counts(rule: Rule, by_id: Mapping[str, GatewayAccount], is_ready: IsReady) -> bool:
    """Whether a rule that fits decides: one for healthy accounts alone needs one that is."""
    if not rule.healthy_only:
        return True
    targets = [by_id[target.account_id] for target in rule.targets if target.account_id in by_id]
    return any(account.switched_off_at is None and is_ready(account) for account in targets)


def order_targets(rule: Rule, order_id: str) -> list[tuple[str, str]]:
    """The targets' accounts in order: whom the share draws goes first, the same for an order for ever."""
    listed = [
        (target.account_id, f"rule “{rule.name}”, number {number}")
        for number, target in enumerate(rule.targets, start=1)
    ]
    if not any(target.share for target in rule.targets):
        return listed
    drawn = draw_target(rule.targets, draw_point(order_id))
    first = (drawn.account_id, f"rule “{rule.name}”, its share of {drawn.share} %")
    return [first, *(item for item in listed if item[0] != drawn.account_id)]


def draw_target(targets: Sequence[Target], point: int) -> Target:
    """The target whose share the point of 0 to 99 falls into; the last one takes what is missing to 100."""
    shared = [target for target in targets if target.share]
    for target in shared:
        point -= target.share or 0
        if point < 0:
            return target
    return shared[-1]


def draw_point(order_id: str) -> int:
    """0 to 99, spread evenly over orders, and never another for the same order."""
    return int.from_bytes(hashlib.sha256(order_id.encode()).digest()[:8]) % WHOLE


def find_home(subject: RouteSubject, ordered: Sequence[GatewayAccount]) -> GatewayAccount | None:
    """The account that the plain token belongs to: the first one for which no token is named."""
    return next((account for account in ordered if not named_token(subject, account)), None)


def named_token(subject: RouteSubject, account: GatewayAccount) -> str:
    tokens = subject.payment_methods
    return tokens.get(str(account)) or tokens.get(account.gateway) or ""


def judge(subject: RouteSubject, account: GatewayAccount, why: str, home: GatewayAccount | None) -> Candidate:
    token = find_token(subject, account, home)
    if account.switched_off_at is not None:
        return Candidate(account, why, token, f"switched off by {account.switched_off_by}")
    if not token:
        return Candidate(account, why, token, "there is no token for it")
    return Candidate(account, why, token)


def find_token(subject: RouteSubject, account: GatewayAccount, home: GatewayAccount | None) -> str:
    """What may be charged at an account: a token named for it, else the plain one where that is at home."""
    if subject.saved_account_id:
        return subject.payment_method
    if named := named_token(subject, account):
        return named
    return subject.payment_method if home and may_use(account, home) else ""


def may_use(account: GatewayAccount, home: GatewayAccount) -> bool:
    """Whether a token of `home` means the same card at `account`; it never leaves its gateway."""
    if account.pk == home.pk:
        return True
    shares = str(home) in account.shares_tokens_with() or str(account) in home.shares_tokens_with()
    return shares and account.gateway == home.gateway


def put_tripped_last(candidates: Sequence[Candidate], is_ready: IsReady) -> list[Candidate]:
    ready, tripped = [], []
    for item in candidates:
        if is_ready(item.account):
            ready.append(item)
        else:
            why = f"{item.why}; last, because its breaker is open"
            tripped.append(Candidate(item.account, why, item.token, is_tripped=True))
    return [*ready, *tripped]


# --- what the rows say ----------------------------------------------------------------------------------------


def load_accounts() -> list[GatewayAccount]:
    return list(GatewayAccount.objects.filter(is_active=True).order_by("priority", "gateway", "name"))


def load_rules() -> list[Rule]:
    """The active rules by priority."""
    row = sql.fetch_one(_RULES, [])
    return [_read_rule(line) for line in json.loads(row[0])] if row else []


# By hand, because it runs for every order: one value, prepared on the server, and next to nothing without rules.
_RULES = """
SELECT coalesce(json_agg(json_build_object(
    'name', rule.name, 'priority', rule.priority, 'targets', target.list,
    'currencies', rule.currencies, 'countries', rule.countries,
    'min_amount', rule.min_amount, 'max_amount', rule.max_amount,
    'is_merchant_initiated', rule.is_merchant_initiated, 'client_id', rule.client_id,
    'healthy_only', rule.healthy_only) ORDER BY rule.priority, rule.name), '[]')::text
FROM payments_routingrule rule CROSS JOIN LATERAL (
    SELECT json_agg(json_build_array(account_id, share) ORDER BY position, id) AS list
    FROM payments_routingtarget WHERE rule_id = rule.id
) target
WHERE rule.is_active AND target.list IS NOT NULL
"""


def _read_rule(line: dict[str, Any]) -> Rule:
    targets = [Target(account_id, share) for account_id, share in line.pop("targets")]
    currencies, countries = frozenset(line.pop("currencies")), frozenset(line.pop("countries"))
    return Rule(**line, targets=targets, currencies=currencies, countries=countries)
