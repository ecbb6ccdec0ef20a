"""Rule sets: drafted by one person, published by another, never changed, in force when they say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django import Settings

from fraud import live, rulesets
from fraud.models import Rule, RuleActivation, RuleSet, RuleSetState
from fraud.plans import RuleError
from payments.errors import ConflictError, InvalidRequestError
from tests.factories.fraud import RuleFactory, put_in_force

pytestmark = pytest.mark.django_db
ANNA, BEN = "user:anna", "user:ben"


def build_rule(**fields: Any) -> Rule:
    rule: Rule = RuleFactory.build(ruleset=None, **fields)
    return rule


@pytest.fixture
def draft() -> RuleSet:
    draft = rulesets.begin_draft(actor=ANNA, note="a lower limit")
    rulesets.save_rule(draft.pk, build_rule(key="card-velocity", name="Card velocity"), actor=ANNA)
    return draft


@pytest.fixture
def submitted(draft: RuleSet) -> RuleSet:
    return rulesets.submit(draft.pk, actor=ANNA)


def test_a_new_installation_has_a_set_in_force_that_runs() -> None:
    first = RuleSet.objects.live()
    assert first is not None
    assert (first.number, first.state, rulesets.find_problems(first)) == (1, RuleSetState.PUBLISHED, [])
    assert first.digest == rulesets.digest_of(first.rules.all())


def test_a_draft_begins_with_the_rules_in_force_and_changes_nothing() -> None:
    draft = rulesets.begin_draft(actor=ANNA)
    live_set = RuleSet.objects.live()
    assert draft.based_on == live_set != draft
    assert [rule.to_json() for rule in draft.rules.all()] == [rule.to_json() for rule in live_set.rules.all()]
    assert rulesets.compare(live_set, draft) == []


def test_a_rule_is_replaced_by_its_key(draft: RuleSet) -> None:
    assert draft.rules.filter(key="card-velocity").count() == 1
    [change] = rulesets.compare(draft.based_on, draft)
    assert (change.key, change.kind, change.fields["parameters"]) == (
        "card-velocity",
        "changed",
        ({"limit": 10}, {"limit": 4}),
    )


def test_added_and_removed_rules_are_told(draft: RuleSet) -> None:
    rulesets.save_rule(draft.pk, build_rule(key="new"), actor=ANNA)
    rulesets.remove_rule(draft.pk, "blocklist", actor=ANNA)
    kinds = {change.key: change.kind for change in rulesets.compare(draft.based_on, draft)}
    assert kinds == {"card-velocity": "changed", "new": "added", "blocklist": "removed"}


def test_a_rule_that_cannot_run_is_refused_with_its_place(draft: RuleSet) -> None:
    with pytest.raises(RuleError) as caught:
        rulesets.save_rule(draft.pk, build_rule(key="typo", expression='avz == "fail"'), actor=ANNA)
    assert (caught.value.field, caught.value.column) == ("expression", 1)
    assert not draft.rules.filter(key="typo").exists()


def test_a_rule_after_the_authorization_cannot_challenge(draft: RuleSet) -> None:
    late = build_rule(expression='avs == "fail"', parameters={}, outcome="challenge")
    with pytest.raises(RuleError, match="too late for 3-D Secure"):
        rulesets.save_rule(draft.pk, late, actor=ANNA)


def test_another_person_publishes(submitted: RuleSet) -> None:
    with pytest.raises(ConflictError, match="another person"):
        rulesets.publish(submitted.pk, actor=ANNA)
    rulesets.publish(submitted.pk, actor=BEN)
    live_set = RuleSet.objects.live()
    assert live_set is not None
    assert (live_set.pk, live_set.published_by) == (submitted.pk, BEN)


def test_who_once_edited_the_draft_does_not_publish_it(draft: RuleSet) -> None:
    rulesets.save_rule(draft.pk, build_rule(key="bens"), actor=BEN)
    rulesets.submit(draft.pk, actor=ANNA)
    with pytest.raises(ConflictError, match="another person"):
        rulesets.publish(draft.pk, actor=BEN)


def test_a_draft_without_a_difference_is_not_submitted() -> None:
    draft = rulesets.begin_draft(actor=ANNA)
    with pytest.raises(InvalidRequestError, match="does not differ"):
        rulesets.submit(draft.pk, actor=ANNA)


def test_a_set_without_a_rule_in_effect_is_not_submitted(draft: RuleSet) -> None:
    draft.rules.update(mode="shadow")
    with pytest.raises(InvalidRequestError, match="every order would be approved"):
        rulesets.submit(draft.pk, actor=ANNA)


def test_a_submitted_set_can_be_taken_back_and_changed(submitted: RuleSet) -> None:
    with pytest.raises(ConflictError, match="cannot be changed"):
        rulesets.remove_rule(submitted.pk, "blocklist", actor=ANNA)
    rulesets.reopen(submitted.pk, actor=ANNA)
    rulesets.remove_rule(submitted.pk, "blocklist", actor=ANNA)


def test_a_discarded_draft_is_kept_and_is_over(draft: RuleSet) -> None:
    rulesets.discard(draft.pk, actor=ANNA)
    with pytest.raises(ConflictError, match="is discarded"):
        rulesets.submit(draft.pk, actor=ANNA)


WRITES: dict[str, Callable[[RuleSet], Any]] = {
    "a rule changed": lambda found: found.rules.update(points=99),
    "a rule added": lambda found: RuleFactory(ruleset=found),
    "a rule deleted": lambda found: found.rules.filter(verdicts=None)._raw_delete("default"),
    "the set changed": lambda found: RuleSet.objects.filter(pk=found.pk).update(digest="0" * 64),
    "the set made a draft": lambda found: RuleSet.objects.filter(pk=found.pk).update(state="draft"),
    "the set deleted": lambda found: RuleSet.objects.filter(pk=found.pk)._raw_delete("default"),
    "the activation moved": lambda found: found.activations.update(starts_at=timezone.now()),
    "the activation deleted": lambda found: found.activations.all()._raw_delete("default"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_the_database_refuses_to_change_what_was_published(
    submitted: RuleSet, write: Callable[[RuleSet], Any]
) -> None:
    rulesets.publish(submitted.pk, actor=BEN)
    with pytest.raises(IntegrityError), transaction.atomic():
        write(submitted)


def test_the_database_refuses_an_editor_as_publisher(submitted: RuleSet) -> None:
    rows = RuleSet.objects.filter(pk=submitted.pk)
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.update(state="published", published_by=ANNA, submitted_by="user:carla")


def test_a_set_begins_when_it_is_scheduled(submitted: RuleSet) -> None:
    before = RuleSet.objects.live()
    with pytest.raises(InvalidRequestError, match="is over"):
        rulesets.publish(submitted.pk, actor=BEN, starts_at=timezone.now() - timedelta(minutes=1))
    activation = rulesets.publish(submitted.pk, actor=BEN, starts_at=timezone.now() + timedelta(hours=1))
    assert RuleSet.objects.live() == before
    assert list(RuleActivation.objects.waiting()) == [activation]
    rulesets.cancel_activation(activation.pk, actor=BEN)
    assert not RuleActivation.objects.waiting().exists()
    with pytest.raises(ConflictError, match="cancelled already"):
        rulesets.cancel_activation(activation.pk, actor=BEN)


def test_an_earlier_set_is_rolled_back_to_by_one_person(submitted: RuleSet) -> None:
    first = RuleSet.objects.live()
    assert first is not None
    rulesets.publish(submitted.pk, actor=BEN)
    rulesets.roll_back(first.pk, actor=ANNA, note="too many blocked")
    assert RuleSet.objects.live() == first
    with pytest.raises(ConflictError, match="is in force"):
        rulesets.roll_back(first.pk, actor=ANNA)


def test_who_made_a_set_does_not_put_it_in_force_before_its_time(submitted: RuleSet) -> None:
    rulesets.publish(submitted.pk, actor=BEN, starts_at=timezone.now() + timedelta(days=1))
    for _ in ("still to come", "taken back"):
        with pytest.raises(ConflictError, match="another person puts it in force"):
            rulesets.roll_back(submitted.pk, actor=ANNA)
        if RuleActivation.objects.waiting().exists():
            rulesets.cancel_schedule(submitted.pk, actor=BEN)
    rulesets.roll_back(submitted.pk, actor=BEN)
    assert RuleSet.objects.live() == submitted


# --- what a process keeps -----------------------------------------------------------------------------------


def test_orders_between_two_looks_cost_no_query(django_assert_num_queries: Any) -> None:
    live.live_plan()
    with django_assert_num_queries(0):
        live.live_plan()


def test_a_process_takes_a_new_set_at_its_next_look(settings: Settings) -> None:
    kept = live.live_plan()
    ruleset = put_in_force(build_rule())
    settings.FRAUD_RULES_SECONDS = 0.0
    assert (live.live_plan().ruleset_id, kept.number) == (ruleset.pk, 1)


def test_what_is_published_during_a_look_is_looked_at_next(monkeypatch: pytest.MonkeyPatch) -> None:
    in_force, looks = RuleActivation.objects.in_force, []

    def look_while_another_publishes() -> RuleActivation | None:
        looks.append(in_force())
        live.forget_plan()
        return looks[-1]

    live.forget_plan()
    monkeypatch.setattr(RuleActivation.objects, "in_force", look_while_another_publishes)
    assert [live.live_plan().number, live.live_plan().number] == [1, 1]
    assert len(looks) == 2


def test_who_publishes_takes_no_rules_from_an_order_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lock:
        def acquire(self, *, blocking: bool) -> bool:
            return True

        def release(self) -> None:
            live.forget_plan()

    live.forget_plan()
    monkeypatch.setattr(live, "_looking", Lock())
    assert live.live_plan().number == 1


def test_a_set_that_cannot_be_read_leaves_the_old_one_in_force(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    live.live_plan()
    settings.FRAUD_RULES_SECONDS = 0.0

    def fail(ruleset: RuleSet) -> None:
        raise RuleError("it cannot run")

    put = rulesets.begin_draft(actor=ANNA)
    rulesets.remove_rule(put.pk, "blocklist", actor=ANNA)
    rulesets.submit(put.pk, actor=ANNA)
    rulesets.publish(put.pk, actor=BEN)
    monkeypatch.setattr(live.LivePlan, "of", fail)
    assert live.live_plan().number == 1
    live.forget_plan()
    with pytest.raises(live.NoRulesError, match="cannot run"):
        live.live_plan()
