"""The pages of rule sets: who may do what, every step from a draft to what decides, and the editor's checks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fraud import rulesets
from fraud.facts import FraudContext
from fraud.labels import label_decision
from fraud.models import Rule, RuleActivation, RuleSet, RuleSetState
from payments.decisions import Stage
from tests.factories.fraud import AssessmentFactory, ReviewFactory, RuleFactory, VerdictFactory

pytestmark = pytest.mark.django_db
DRAFTER = ("view_ruleset", "draft_ruleset")
PUBLISHER = ("view_ruleset", "publish_ruleset", "view_assessment")
LIST = "/admin/fraud/ruleset/"
ANN = "user:ann"
RULE = {
    "name": "Many orders",
    "code": "",
    "expression": 'velocity("card", "1h") >= {limit}',
    "parameters-name": ["limit", ""],
    "parameters-type": ["number", "number"],
    "parameters-value": ["4", ""],
    "outcome": "review",
    "points": "20",
    "mode": "on",
    "share": "100",
    "on_error": "miss",
    "position": "55",
    "seen": "",
}


CARD = "4111111111111111"


def log_in(*rights: str, name: str = "ann") -> Client:
    user = User.objects.create_user(name, password="a long password", is_staff=True)
    user.user_permissions.set(
        [
            *Permission.objects.filter(content_type__app_label="fraud", codename__in=rights),
            Permission.objects.get(content_type__app_label="payments", codename="view_order"),
        ]
    )
    client = Client()
    client.force_login(user)
    return client


def words(response: Any) -> str:
    return " ".join(response.content.decode().split())


def url(ruleset: RuleSet, view: str = "change", key: str = "") -> str:
    return reverse(f"admin:fraud_ruleset_{view}", args=[ruleset.pk]) + (f"?key={key}" if key else "")


def act(client: Client, ruleset: RuleSet, view: str, **fields: object) -> str:
    fields = {"seen": ruleset.digest, **fields}
    return words(client.post(url(ruleset, view), {"token": uuid4().hex, **fields}, follow=True))


def screen(**facts: Any) -> Any:
    """One more screened order with these facts."""
    context = FraudContext(
        **{"stage": Stage.BEFORE_AUTHORIZATION, "amount": 5000, "currency": "EUR", **facts}
    )
    return AssessmentFactory(context=context.to_dict(), stage=context.stage).order


@pytest.fixture
def drafter() -> Client:
    return log_in(*DRAFTER)


@pytest.fixture
def publisher() -> Client:
    return log_in(*PUBLISHER, name="pat")


@pytest.fixture
def first() -> RuleSet:
    return RuleSet.objects.get()


@pytest.fixture
def draft(first: RuleSet) -> RuleSet:
    return rulesets.begin_draft(actor=ANN, note="a lower limit")


@pytest.fixture
def submitted(draft: RuleSet) -> RuleSet:
    rulesets.save_rule(draft.pk, RuleFactory.build(ruleset=None, key="new", name="New rule"), actor=ANN)
    return rulesets.submit(draft.pk, actor=ANN)


# --- the list and the page --------------------------------------------------------------------------------


def test_the_list_says_what_decides_and_what_will(publisher: Client, submitted: RuleSet) -> None:
    rulesets.publish(submitted.pk, actor="user:pat", starts_at=timezone.now() + timedelta(days=1))
    text = words(publisher.get(LIST))
    assert "Rule set 1</a> since" in text
    assert "Rule set 2</a> from" in text
    assert text.count("In force") == 1
    assert "a lower limit" in text
    assert "New draft" not in text


def test_a_scheduled_set_is_cancelled_from_the_list(publisher: Client, submitted: RuleSet) -> None:
    rulesets.publish(submitted.pk, actor="user:pat", starts_at=timezone.now() + timedelta(days=1))
    address = url(submitted, "cancel")
    assert "was cancelled" in words(publisher.post(address, follow=True))
    assert not RuleActivation.objects.waiting().exists()
    assert "cancelled already" in words(publisher.post(address, follow=True))
    assert "cancelled" in words(publisher.get(url(submitted)))


def test_a_new_draft_begins_with_any_version(drafter: Client, submitted: RuleSet, first: RuleSet) -> None:
    address = reverse("admin:fraud_ruleset_draft")
    drafter.post(address, {"token": "a", "note": "from what is in force"})
    drafter.post(address, {"token": "b", "source": submitted.pk})
    newest, older = RuleSet.objects.all()[:2]
    assert (older.based_on, older.note, newest.based_on) == (first, "from what is in force", submitted)


def test_the_page_shows_every_rule_with_its_hits(drafter: Client, first: RuleSet) -> None:
    for status in ("hit", "hit", "shadow", "error", "miss"):
        VerdictFactory(rule_key="card-velocity", status=status)
    text = words(drafter.get(url(first)))
    assert "2 hits, 1 without effect, 1 could not tell" in text
    assert "velocity(&quot;card&quot;, &quot;1h&quot;) &gt; {limit}" in text
    assert "limit = 10" in text
    assert first.digest in text
    assert "Add a rule" not in text
    assert "New draft of it" in text


def test_the_hits_lead_to_their_screenings(publisher: Client) -> None:
    hit = VerdictFactory(rule_key="card-velocity", status="hit").assessment
    miss = VerdictFactory(rule_key="card-velocity", status="miss").assessment
    text = words(publisher.get("/admin/fraud/assessment/?rule=card-velocity"))
    assert hit.order.reference in text
    assert miss.order.reference not in text


def test_the_page_tells_the_differences_in_words(drafter: Client, draft: RuleSet) -> None:
    changed = draft.rules.get(key="card-velocity")
    changed.parameters, changed.mode = {"limit": 3}, "on"
    rulesets.save_rule(draft.pk, changed, actor=ANN)
    rulesets.remove_rule(draft.pk, "blocklist", actor=ANN)
    rulesets.save_rule(draft.pk, RuleFactory.build(ruleset=None, key="new", name="New rule"), actor=ANN)
    text = words(drafter.get(url(draft)))
    assert "Was</span> limit = 10</del>" in text
    assert "Now</span> limit = 3</ins>" in text
    assert "From Rule set 1, which is in force, to Rule set 2" in text
    assert 'New rule <span class="bo-badge bo-success">Added' in text
    assert 'Blocklist <span class="bo-badge bo-danger">Removed' in text


def test_two_versions_of_choice_are_compared(drafter: Client, submitted: RuleSet) -> None:
    other = rulesets.begin_draft(actor=ANN, based_on=submitted)
    assert "New rule" not in words(drafter.get(url(other), {"against": submitted.pk})).split("Differences")[1]
    assert drafter.get(url(other), {"against": "nonsense"}).status_code == 200


# --- rights -----------------------------------------------------------------------------------------------

STEPS = ["submit", "discard", "note", "takeback", "publish", "rollback"]


@pytest.mark.parametrize("step", STEPS)
def test_who_only_looks_changes_nothing(draft: RuleSet, step: str) -> None:
    reader = log_in("view_ruleset", name="reader")
    assert reader.get(url(draft, step)).status_code == 405
    assert reader.post(url(draft, step), {"token": "t"}).status_code == 403
    text = words(reader.get(url(draft)))
    assert "Add a rule" not in text
    assert "-dialog" not in text.replace("command-dialog", "")


@pytest.mark.parametrize("view", ["rule", "check", "complete"])
def test_the_editor_is_for_who_may_draft(publisher: Client, draft: RuleSet, view: str) -> None:
    assert publisher.post(url(draft, view), RULE).status_code == 403
    assert publisher.post(url(draft, "remove"), {"key": "blocklist"}).status_code == 403
    assert publisher.post(url(draft, "move"), {"key": "blocklist"}).status_code == 403
    assert publisher.get(url(draft, "rule", "blocklist")).status_code == 403
    assert publisher.post(reverse("admin:fraud_ruleset_draft")).status_code == 403
    assert draft.rules.filter(key="blocklist").exists()


def test_a_drafter_does_not_publish(drafter: Client, submitted: RuleSet) -> None:
    assert drafter.post(url(submitted, "publish"), {"token": "t"}).status_code == 403
    assert drafter.post(url(submitted, "rollback"), {"token": "t"}).status_code == 403


def test_nobody_else_sees_anything(draft: RuleSet) -> None:
    stranger = log_in(name="stranger")
    addresses = [LIST, url(draft), url(draft, "look"), url(draft, "rule")]
    assert [stranger.get(address).status_code for address in addresses] == [403] * 4


def test_a_change_needs_the_csrf_token(draft: RuleSet) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root", password="a long password"))
    for view in ("rule", "check", "complete", "submit"):
        assert client.post(url(draft, view), RULE).status_code == 403


# --- the steps --------------------------------------------------------------------------------------------


def test_a_draft_is_submitted_taken_back_and_discarded(drafter: Client, draft: RuleSet) -> None:
    assert "It does not differ from Rule set 1." in words(drafter.get(url(draft)))
    drafter.post(url(draft, "rule"), RULE)
    assert "was submitted" in act(drafter, draft, "submit")
    assert "is a draft again" in act(drafter, draft, "takeback")
    assert "was saved" in act(drafter, draft, "note", note="Another note")
    assert "was discarded" in act(drafter, draft, "discard")
    draft.refresh_from_db()
    assert (draft.state, draft.note) == (RuleSetState.DISCARDED, "Another note")


def test_another_person_looks_and_publishes(publisher: Client, submitted: RuleSet) -> None:
    text = words(publisher.get(url(submitted, "look")))
    assert "No order was screened yet." in text
    assert "New rule" in text
    assert "decides from now on" in act(publisher, submitted, "publish")
    assert RuleSet.objects.live() == submitted


def test_who_had_a_hand_in_it_is_told_why_not(submitted: RuleSet) -> None:
    ann = log_in(*DRAFTER, "publish_ruleset")
    for view in ("change", "look"):
        assert "You had a hand in it: another person publishes it." in words(ann.get(url(submitted, view)))
    assert "another person publishes it" in act(ann, submitted, "publish")
    assert RuleSet.objects.live() != submitted


def test_what_was_changed_since_it_was_looked_at_is_not_published(
    publisher: Client, submitted: RuleSet
) -> None:
    assert f'name="seen" value="{submitted.digest}"' in words(publisher.get(url(submitted, "look")))
    rulesets.reopen(submitted.pk, actor=ANN)
    rulesets.remove_rule(submitted.pk, "blocklist", actor=ANN)
    rulesets.submit(submitted.pk, actor=ANN)
    assert "was changed since you looked at it" in act(publisher, submitted, "publish")
    assert RuleSet.objects.live() != submitted
    assert publisher.post(url(submitted, "publish"), {"token": "x"}).status_code == 422, "it must be said"


def test_publishing_for_later_and_for_a_time_that_is_over(publisher: Client, submitted: RuleSet) -> None:
    assert "That time is over" in act(publisher, submitted, "publish", starts_at="2020-01-01T00:00")
    broken = publisher.post(url(submitted, "publish"), {"token": "x", "starts_at": "soon"})
    assert broken.status_code == 422
    assert "Enter a valid date/time." in words(broken)
    assert "2099-01-01 06:00:00 UTC" in act(publisher, submitted, "publish", starts_at="2099-01-01T06:00")
    assert "It decides from 2099-01-01 06:00 UTC on." in words(publisher.get(url(submitted)))


def test_what_would_change_is_shown_before_it_is_published(publisher: Client, draft: RuleSet) -> None:
    large, small = screen(amount=90_000), screen(amount=2_000)
    blocker = RuleFactory.build(
        ruleset=None, key="large", name="Large", expression='amount > money("500 EUR")', parameters={}
    )
    rulesets.save_rule(draft.pk, blocker, actor=ANN)
    rulesets.submit(draft.pk, actor=ANN)
    text = words(publisher.get(url(draft, "look")))
    assert "Newly blocked</dt><dd>1</dd>" in text
    assert "Orders looked at</dt><dd>2</dd>" in text
    assert f"/admin/payments/order/{large.pk}/change/" in text
    assert small.reference not in text


def test_an_earlier_set_is_put_in_force_again(publisher: Client, submitted: RuleSet, first: RuleSet) -> None:
    act(publisher, submitted, "publish")
    assert "<li>“New rule” is removed</li>" in words(publisher.get(url(first)))
    assert "Rule set 1 decides from now on" in act(publisher, first, "rollback", note="too many blocked")
    assert RuleSet.objects.live() == first
    text = words(publisher.get(url(first)))
    assert "Back in force" in text
    assert "too many blocked" in text
    assert "It is in force." in text


# --- the editor -------------------------------------------------------------------------------------------


def send(client: Client, draft: RuleSet, key: str = "", **changes: object) -> Any:
    return client.post(url(draft, "rule", key), {**RULE, **changes}, follow=True)


def test_a_rule_is_added_and_its_key_made_from_its_name(drafter: Client, draft: RuleSet) -> None:
    assert "“Many orders” was saved." in words(send(drafter, draft))
    rule = draft.rules.get(key="many-orders")
    assert (rule.parameters, rule.points, rule.position, rule.ruleset) == ({"limit": 4}, 20, 55, draft)


def test_the_key_stays_when_the_name_changes(drafter: Client, draft: RuleSet) -> None:
    seen = rulesets.token_of(draft.rules.get(key="blocklist"))
    send(drafter, draft, "blocklist", name="Bad people", expression='in_list("block")', seen=seen)
    assert draft.rules.get(key="blocklist").name == "Bad people"


def test_a_typo_is_told_with_its_place_and_what_was_meant(drafter: Client, draft: RuleSet) -> None:
    response = send(drafter, draft, expression='velocty("card", "1h") >= 4')
    text = words(response)
    assert response.status_code == 422
    assert "Column 1:" in text
    assert "Use “velocity”" in text
    assert 'value="velocity(&quot;card&quot;, &quot;1h&quot;) &gt;= 4"' in text
    assert "Many orders" in text
    assert not draft.rules.filter(key="many-orders").exists()


def test_the_suggestion_works_without_javascript(drafter: Client, draft: RuleSet) -> None:
    mended = 'velocity("card", "1h") >= 4'
    text = words(send(drafter, draft, expression="velocty", mended=mended))
    assert "It hits 0 of the last 0 orders." in text
    assert "velocity(&quot;card&quot;, &quot;1h&quot;) &gt;= 4</textarea>" in text
    assert not draft.rules.filter(key="many-orders").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"expression": "amount " * 20_000}, "A rule has at most 2000 characters; this has 140000."),
        ({"expression": ""}, "Write an expression, or choose a rule that is written as code."),
        ({"expression": "amount > 5\x00"}, "Null characters are not allowed."),
        ({"expression": "größe > 5"}, "Column 3:"),
        ({"name": "Blocklist"}, "There is another rule named “Blocklist” in this set."),
        ({"name": "Block list!", "key": ""}, "was saved"),
        ({"name": "Card, velocity?"}, "has the key “card-velocity”, which this name makes too."),
        ({"name": "x" * 81}, "at most 80 characters"),
        ({"name": f"Card {CARD}"}, "“Card 411111******1111” was saved."),
        ({"expression": f'email_domain == "{CARD}"'}, "This looks like a card number, which is never kept."),
        ({"share": "101"}, "less than or equal to 100"),
        ({"points": "-1"}, "greater than or equal to 0"),
        ({"points": "many"}, "Enter a whole number."),
        ({"mode": "sometimes"}, "Select a valid choice."),
        ({"code": "nothing"}, "Select a valid choice."),
        ({"parameters-value": ["four", ""]}, "Parameter “limit”: “four” is not a number"),
        ({"parameters-value": ["1e999", ""]}, "is not a number"),
        ({"parameters-value": ["", ""]}, "Parameter “limit”: it has no value."),
        ({"parameters-name": ["Limit!", ""]}, "a name is small letters"),
        ({"parameters-type": ["json", ""]}, "choose whether it is a number"),
        (
            {"parameters-name": ["limit", "limit"], "parameters-value": ["1", "2"]},
            "Parameter “limit”: there are two of this name.",
        ),
        ({"parameters-name": [], "parameters-type": [], "parameters-value": []}, "parameter"),
        ({"expression": 'avs == "fail"', "outcome": "challenge"}, "too late for 3-D Secure"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    drafter: Client, draft: RuleSet, changes: dict[str, Any], told: str
) -> None:
    assert told in words(send(drafter, draft, **changes))


@pytest.mark.parametrize(
    ("name", "key"), [("Überweisung – groß", "uberweisung-gro"), ("高額", "rule-1"), ("💳💳", "rule-1")]
)
def test_a_name_in_any_script_gets_a_key(drafter: Client, draft: RuleSet, name: str, key: str) -> None:
    send(drafter, draft, name=name)
    assert draft.rules.get(name=name).key == key


def test_a_rule_written_as_code_with_its_parameters(drafter: Client, draft: RuleSet) -> None:
    typed = {
        "code": "high_amount",
        "expression": "left over",
        "parameters-name": ["default", "limits"],
        "parameters-type": ["text", "pairs"],
        "parameters-value": ["900.00", "JPY: 150000, EUR: 800"],
    }
    wrong = send(drafter, draft, **typed | {"parameters-value": ["900.00", "JPY"]})
    assert "“JPY” is not a pair" in words(wrong)
    unknown = send(drafter, draft, **typed | {"parameters-name": ["default", "bounds"]})
    assert "nknown parameter “bounds”" in words(unknown)
    send(drafter, draft, **typed)
    rule = draft.rules.get(key="many-orders")
    assert (rule.code, rule.expression) == ("high_amount", "")
    assert rule.parameters == {"default": "900.00", "limits": {"JPY": "150000", "EUR": "800"}}


def test_rules_are_moved_and_taken_out(drafter: Client, draft: RuleSet) -> None:
    keys = list(draft.rules.values_list("key", flat=True))
    drafter.post(url(draft, "move"), {"key": keys[1], "to": "up"})
    drafter.post(url(draft, "move"), {"key": keys[1], "to": "up"})
    assert list(draft.rules.values_list("key", flat=True)) == [keys[1], keys[0], *keys[2:]]
    rule = draft.rules.get(key=keys[1])
    assert "by somebody else meanwhile" in words(
        drafter.post(url(draft, "remove"), {"key": rule.key, "seen": "old"}, follow=True)
    )
    drafter.post(url(draft, "remove"), {"key": rule.key, "seen": rulesets.token_of(rule)})
    assert not draft.rules.filter(key=keys[1]).exists()


def test_rules_that_share_a_position_are_spread(draft: RuleSet) -> None:
    Rule.objects.filter(ruleset=draft).update(position=7)
    keys = [rule.key for rule in draft.rules.all()]
    rulesets.move_rule(draft.pk, keys[0], up=False, actor=ANN)
    assert [rule.key for rule in draft.rules.all()] == [keys[1], keys[0], *keys[2:]]


# --- two people -------------------------------------------------------------------------------------------


def test_a_rule_that_somebody_else_saved_is_not_overwritten(drafter: Client, draft: RuleSet) -> None:
    rule = draft.rules.get(key="blocklist")
    seen = rulesets.token_of(rule)
    rule.points = 77
    rulesets.save_rule(draft.pk, rule, actor="user:bob")
    mine = {"name": "Blocklist", "expression": 'in_list("block", "email")', "seen": seen}
    response = send(drafter, draft, "blocklist", **mine)
    text = words(response)
    assert response.status_code == 409
    assert "Somebody else saved this rule meanwhile" in text
    assert "<td>77</td>" in text
    assert "in_list(&quot;block&quot;, &quot;email&quot;)</textarea>" in text
    assert draft.rules.get(key="blocklist").points == 77
    again = send(drafter, draft, "blocklist", **mine | {"seen": rulesets.token_of(rule)})
    assert "was saved" in words(again)


def test_what_was_typed_outlives_the_rule(drafter: Client, draft: RuleSet) -> None:
    seen = rulesets.token_of(draft.rules.get(key="blocklist"))
    rulesets.remove_rule(draft.pk, "blocklist", actor="user:bob")
    response = send(drafter, draft, "blocklist", name="People", seen=seen)
    assert response.status_code == 409
    assert "Somebody else removed this rule meanwhile" in words(response)
    send(drafter, draft, "blocklist", name="People", seen="")
    assert draft.rules.get(key="blocklist").name == "People"
    assert drafter.get(url(draft, "rule", "never-was")).status_code == 404


def test_what_was_typed_outlives_the_draft(drafter: Client, submitted: RuleSet) -> None:
    assert submitted.rules.count() == 10
    response = send(drafter, submitted)
    assert response.status_code == 409
    assert "Rule set 2 waits for another person: it cannot be changed" in words(response)
    assert 'value="Many orders"' in words(response)
    assert "is no draft" in words(drafter.get(url(submitted, "rule", "new"), follow=True))


# --- while somebody types ---------------------------------------------------------------------------------


def check(client: Client, draft: RuleSet, **changes: object) -> Any:
    return client.post(url(draft, "check"), {**RULE, **changes}).json()


def test_the_check_underlines_every_mistake(drafter: Client, draft: RuleSet) -> None:
    answer = check(drafter, draft, expression='amont > money("5 EUR") and avz == "fail"')
    assert answer["marks"] == [{"start": 0, "end": 5}, {"start": 27, "end": 30}]
    assert "Use “amount”" in answer["html"]


def test_the_check_shows_the_hits_before_anything_is_saved(drafter: Client, draft: RuleSet) -> None:
    hit, miss = screen(amount=90_000), screen(amount=100)
    fraud = ReviewFactory(state="rejected", reason_code="stolen_card", decided_at=timezone.now())
    fraud.assessment.context = FraudContext(Stage.AFTER_AUTHORIZATION, 80_000, "EUR").to_dict()
    fraud.assessment.save()
    label_decision(fraud)
    screen(amount=90_000, currency="JPY")
    html = " ".join(check(drafter, draft, expression='amount > money("500 EUR")')["html"].split())
    assert "It hits 2 of the last 4 orders." in html
    assert "For 1 it cannot tell" in html
    assert "1 of the hits is known as fraud." in html
    assert f"/admin/payments/order/{hit.pk}/change/" in html
    assert miss.reference not in html
    assert not draft.rules.filter(key="many-orders").exists()


def test_the_check_answers_whatever_is_sent(drafter: Client, draft: RuleSet) -> None:
    assert drafter.get(url(draft, "check")).status_code == 405
    assert drafter.post(url(draft, "check"), {}).json()["marks"] == []
    assert "at most 2000" in check(drafter, draft, expression="a" * 3000)["html"]
    answer = drafter.post(url(draft, "complete"), {"expression": "am", "cursor": "-1"}).json()
    assert answer["items"]


def test_completion_offers_facts_words_and_parameters(drafter: Client, draft: RuleSet) -> None:
    def complete(text: str) -> list[str]:
        data = {**RULE, "expression": text, "cursor": len(text)}
        return [item["text"] for item in drafter.post(url(draft, "complete"), data).json()["items"]]

    assert complete("bill") == ["billing_country"]
    assert '"card"' in complete('velocity("c')
    assert complete("amount > {l") == ["{limit}"]
