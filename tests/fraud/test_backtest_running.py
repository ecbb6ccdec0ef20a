"""A back-test is asked for, read from the history by its own connections, and ends with figures or a reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from fraud.backtest import running
from fraud.backtest.history import Period, load_history
from fraud.backtest.running import Sweep
from fraud.decision import Mode
from fraud.facts import FraudContext
from fraud.language import parse
from fraud.language.frames import columns
from fraud.models import BackTest, RuleSet
from payments.decisions import Stage
from payments.errors import InvalidRequestError
from tests.factories.fraud import AssessmentFactory, RuleFactory, put_in_force

DAY = timedelta(days=1)
HOSTILE = ['a"b,c', "line\nbreak", "\\N", "\\.", "'; --", "%s %(x)s", "{0}", "#", "ünï", ""]


def screened(**facts: Any) -> str:
    context = FraudContext(
        **{"stage": Stage.BEFORE_AUTHORIZATION, "amount": 5000, "currency": "EUR", **facts}
    )
    return str(AssessmentFactory(context=context.to_dict(), stage=context.stage).order_id)


def ask(ruleset: RuleSet, sweep: Sweep | None = None) -> BackTest:
    now = timezone.now()
    return running.start(ruleset, actor="user:ana", since=now - DAY, until=now + DAY, sweep=sweep)


@pytest.mark.django_db(transaction=True)
def test_texts_come_out_of_the_history_as_they_are() -> None:
    put = {screened(email_domain=text): text or None for text in HOSTILE}
    now = timezone.now()
    history = load_history(
        Period(now - DAY, now + DAY),
        columns([parse('contains(email_domain, "x")')], "assessment.context").values(),
    )
    assert dict(history.select("order_id", "email_domain").iter_rows()) == put


@pytest.mark.django_db(transaction=True)
def test_every_value_of_a_sweep_is_tried() -> None:
    for count in (1, 5, 9):
        screened(velocity={"card:3600": count})
    ruleset = put_in_force(RuleFactory.build(ruleset=None, key="cards", parameters={"limit": 4}))
    asked = ask(ruleset, Sweep("cards", "limit", [0, 4, 8]))
    assert running.run_waiting() == 1
    asked.refresh_from_db()
    assert (asked.state, asked.error, asked.result["orders"]) == ("done", "", 3)
    assert [tried["value"] for tried in asked.result["sweep"]] == [0, 4, 8]


@pytest.mark.django_db
def test_a_rule_that_is_off_has_nothing_to_vary() -> None:
    ruleset = put_in_force(
        RuleFactory.build(ruleset=None),
        RuleFactory.build(ruleset=None, key="cards", parameters={"limit": 4}, mode=Mode.OFF),
    )
    with pytest.raises(InvalidRequestError, match="that runs"):
        ask(ruleset, Sweep("cards", "limit", [1, 2]))
