"""Routing rules: which gateway accounts an order is tried at, and in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q

from payments.models.client import ApiClient
from payments.models.gateway import GatewayAccount
from payments.money import MAX_MINOR_UNITS, exponent

WHOLE = 100  # percent
_COUNTRY = re.compile(r"[A-Z]{2}\Z")


class RoutingRule(models.Model):
    """Orders that fit every condition go to the rule's targets. An empty condition fits every order."""

    priority = models.PositiveSmallIntegerField(
        default=100, help_text="The lowest is asked first; the first rule that fits decides."
    )
    name = models.CharField(max_length=80, unique=True, help_text="Kept with each attempt that it routed.")
    is_active = models.BooleanField(default=True)
    currencies = models.JSONField(default=list, blank=True, help_text="ISO 4217 codes.")
    countries = models.JSONField(
        default=list, blank=True, help_text="Of the billing address, ISO 3166-1 alpha-2."
    )
    min_amount = models.BigIntegerField(
        null=True, blank=True, help_text="Minor units of the rule's one currency."
    )
    max_amount = models.BigIntegerField(
        null=True, blank=True, help_text="Minor units of the rule's one currency."
    )
    is_merchant_initiated = models.BooleanField(
        null=True, blank=True, help_text="Only charges without, or only with, the cardholder present."
    )
    client = models.ForeignKey(
        ApiClient, on_delete=models.PROTECT, related_name="routing_rules", null=True, blank=True
    )
    healthy_only = models.BooleanField(
        default=False,
        help_text="The rule counts only while the breaker of one of its targets lets payments pass.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["priority", "name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(min_amount__isnull=True)
                | Q(max_amount__isnull=True)
                | Q(min_amount__lte=F("max_amount")),
                name="routing_rule_bounds_ordered",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Raises `ValidationError` naming the field, the cause and what to do."""
        errors: dict[str, list[str]] = {}
        for field, problem in [
            ("currencies", check_currencies(self.currencies)),
            ("countries", check_countries(self.countries)),
            *self._check_bounds(),
        ]:
            if problem:
                errors.setdefault(field, []).append(problem)
        if errors:
            raise ValidationError(errors)

    def _check_bounds(self) -> list[tuple[str, str]]:
        bounds = [("min_amount", self.min_amount), ("max_amount", self.max_amount)]
        given = [(field, bound) for field, bound in bounds if bound is not None]
        found = [
            (field, "An amount is at least 0 and has at most 18 digits.")
            for field, bound in given
            if not 0 <= bound <= MAX_MINOR_UNITS
        ]
        if given and len(self.currencies) != 1:
            found.append(
                (given[0][0], "An amount needs one currency: name exactly one, or leave both amounts empty.")
            )
        if len(given) == 2 and given[0][1] > given[1][1]:
            found.append(("min_amount", "The smallest amount is above the largest: no order would ever fit."))
        return found


def check_currencies(codes: Any) -> str:
    """What is wrong with a list of currencies, or ""."""
    if not isinstance(codes, list):
        return "Currencies are a list of ISO 4217 codes."
    unknown = [str(code) for code in codes if not _is_currency(code)]
    return f"No payable ISO 4217 currency: {', '.join(unknown)}." if unknown else ""


def _is_currency(code: Any) -> bool:
    try:
        exponent(code)
    except (ValueError, TypeError):
        return False
    return True


def check_countries(codes: Any) -> str:
    """What is wrong with a list of countries, or ""."""
    if not isinstance(codes, list):
        return "Countries are a list of two-letter codes."
    unknown = [str(code) for code in codes if not _COUNTRY.match(str(code))]
    return f"A country is two capital letters, such as DE; not: {', '.join(unknown)}." if unknown else ""


class RoutingTarget(models.Model):
    """One account of a rule, at its place; `share` is the percentage of orders for which it goes first."""

    rule = models.ForeignKey(RoutingRule, on_delete=models.CASCADE, related_name="targets", db_index=False)
    account = models.ForeignKey(GatewayAccount, on_delete=models.PROTECT, related_name="routing_targets")
    position = models.PositiveSmallIntegerField(default=1, help_text="The lowest is tried first.")
    share = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Percent of the orders that begin here; together 100, or all empty."
    )

    class Meta:
        ordering = ["position", "id"]
        verbose_name = "target account"
        constraints = [
            models.UniqueConstraint(fields=["rule", "account"], name="routing_target_once"),
            models.CheckConstraint(
                condition=Q(share__isnull=True) | Q(share__lte=WHOLE), name="routing_share"
            ),
        ]

    def __str__(self) -> str:
        return str(self.account)


def check_targets(targets: Sequence[RoutingTarget], *, is_active: bool = True) -> list[str]:
    """What is wrong with the targets of a rule as a whole. A rule that is switched off may name idle accounts."""
    if not targets:
        return ["A rule needs at least one target account."]
    accounts = [target.account for target in targets]
    found = [
        f"{account} is named twice." for account in dict.fromkeys(accounts) if accounts.count(account) > 1
    ]
    if is_active:
        found += [
            f"{account} is not active: it takes no new payments."
            for account in accounts
            if not account.is_active
        ]
    shares = [target.share for target in targets if target.share is not None]
    if shares and sum(shares) != WHOLE:
        found.append(f"The shares sum to {sum(shares)}, not to {WHOLE}; leave all empty to split nothing.")
    return found
