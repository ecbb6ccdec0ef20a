"""What people do with rule sets: draft, submit, publish, schedule, roll back, compare."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from fraud.decision import Mode
from fraud.live import forget_plan
from fraud.models import Rule, RuleActivation, RuleSet, RuleSetState
from fraud.plans import RuleError, compile_row
from payments.errors import ConflictError, InvalidRequestError

_IS = {
    RuleSetState.DRAFT: "is a draft",
    RuleSetState.SUBMITTED: "waits for another person",
    RuleSetState.PUBLISHED: "is published",
    RuleSetState.DISCARDED: "is discarded",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One rule's difference between two versions; of one that is new or gone, the fields of the one there is."""

    key: str
    name: str
    kind: str  # added | removed | changed
    fields: Mapping[str, tuple[Any, Any]]  # name -> before, after


class RuleChangedError(ConflictError):
    """Somebody else saved or removed the rule meanwhile; `now` is how it stands, None for one that is gone."""

    def __init__(self, name: str, now: Rule | None) -> None:
        became = "changed" if now else "removed"
        super().__init__(f"“{name}” was {became} by somebody else meanwhile; nothing was changed.")
        self.now = now


def begin_draft(*, actor: str, note: str = "", based_on: RuleSet | None = None) -> RuleSet:
    """A new draft with the rules of the set in force, or of another."""
    source = based_on or RuleSet.objects.live()
    with transaction.atomic():
        newest = (
            RuleSet.objects.select_for_update().order_by("-number").first()
        )  # numbers are given one by one
        draft = RuleSet.objects.create(
            number=newest.number + 1 if newest else 1,
            note=note,
            based_on=source,
            created_by=actor,
            editors=[actor],
        )
        Rule.objects.bulk_create(_copy(rule, draft) for rule in (source.rules.all() if source else ()))
    return draft


def _copy(rule: Rule, draft: RuleSet) -> Rule:
    return Rule(ruleset=draft, **rule.to_json())


def describe(draft_id: str, note: str, *, actor: str) -> RuleSet:
    """Say what the draft changes, and why. Raises `ConflictError`."""
    with transaction.atomic():
        draft = _locked_draft(draft_id, "changed")
        draft.note = note
        draft.save(update_fields=["note"])
        _note_editor(draft, actor)
    return draft


def save_rule(draft_id: str, rule: Rule, *, actor: str, seen: str | None = None) -> Rule:
    """Add the rule to the draft, or replace the one of its key.

    `seen` is the `token_of` the rule that the caller looked at ("": there was none); None replaces whatever is there.
    Raises `ConflictError`, `RuleChangedError`, `RuleError`.
    """
    with transaction.atomic():
        draft = _locked_draft(draft_id, "changed")
        rule.ruleset = draft
        compile_row(rule)
        present = draft.rules.filter(key=rule.key).first()
        _refuse_stale(rule.name, present, seen)
        rule.pk = present.pk if present else None
        rule.save()
        _note_editor(draft, actor)
    return rule


def remove_rule(draft_id: str, key: str, *, actor: str, seen: str | None = None) -> None:
    """Take a rule out of the draft. Raises `ConflictError`, `InvalidRequestError`, `RuleChangedError`."""
    with transaction.atomic():
        draft = _locked_draft(draft_id, "changed")
        rule = _find_rule(draft, key)
        _refuse_stale(rule.name, rule, seen)
        rule.delete()
        _note_editor(draft, actor)


def move_rule(draft_id: str, key: str, *, up: bool, actor: str) -> None:
    """Let the rule change places with its neighbour; the first cannot go up. Raises as `remove_rule`."""
    with transaction.atomic():
        draft = _locked_draft(draft_id, "changed")
        rule, rules = _find_rule(draft, key), list(draft.rules.all())
        place = rules.index(rule)
        other = place - 1 if up else place + 1
        if not 0 <= other < len(rules):
            return
        positions = _spread([each.position for each in rules])
        rules[place], rules[other] = rules[other], rules[place]
        for each, position in zip(rules, positions, strict=True):
            each.position = position
        Rule.objects.bulk_update(rules, ["position"])
        _note_editor(draft, actor)


def token_of(rule: Rule | None) -> str:
    """Changes whenever the rule does; "" for none."""
    return digest_of([rule])[:16] if rule else ""


def submit(draft_id: str, *, actor: str) -> RuleSet:
    """Close the draft for another person to publish. Raises `ConflictError`, `InvalidRequestError`."""
    with transaction.atomic():
        draft = _locked_draft(draft_id, "submitted")
        problems = find_problems(draft)
        if problems:
            listed = "; ".join(f"{rule.name}: {error}" for rule, error in problems)
            raise InvalidRequestError(f"{draft} cannot run: {listed}. It was not submitted.")
        if not draft.rules.filter(mode__in=[Mode.ON, Mode.SHARE]).exists():
            raise InvalidRequestError(
                f"{draft} has no rule in effect: every order would be approved. It was not submitted."
            )
        draft.digest = digest_of(draft.rules.all())
        if draft.based_on and draft.digest == digest_of(draft.based_on.rules.all()):
            raise InvalidRequestError(f"{draft} does not differ from {draft.based_on}; it was not submitted.")
        draft.state, draft.submitted_by, draft.submitted_at = RuleSetState.SUBMITTED, actor, timezone.now()
        draft.editors = sorted({*draft.editors, actor})
        draft.save()
    return draft


def reopen(ruleset_id: str, *, actor: str) -> RuleSet:
    """Make a submitted set a draft again. Raises `ConflictError`."""
    with transaction.atomic():
        ruleset = _locked(ruleset_id, RuleSetState.SUBMITTED, "reopened")
        ruleset.state, ruleset.digest = RuleSetState.DRAFT, ""
        ruleset.submitted_by, ruleset.submitted_at = "", None
        ruleset.editors = sorted({*ruleset.editors, actor})
        ruleset.save()
    return ruleset


def discard(ruleset_id: str, *, actor: str) -> RuleSet:
    """End a draft; it is kept to be looked at. Raises `ConflictError`."""
    with transaction.atomic():
        draft = _locked_draft(ruleset_id, "discarded")
        draft.state = RuleSetState.DISCARDED
        draft.editors = sorted({*draft.editors, actor})
        draft.save()
    return draft


def publish(
    ruleset_id: str,
    *,
    actor: str,
    seen: str | None = None,
    starts_at: datetime | None = None,
    note: str = "",
) -> RuleActivation:
    """Put a submitted set in force, now or later. Every process takes it within five seconds of that.

    `seen` is the digest of what the publisher looked at; None publishes whatever was submitted last.
    Raises `ConflictError` for who had a hand in it, or when it was changed or decided meanwhile;
    `InvalidRequestError` for a time that is over.
    """
    with transaction.atomic():
        ruleset = _locked(ruleset_id, RuleSetState.SUBMITTED, "published")
        if actor in ruleset.editors:
            raise ConflictError(
                f"You had a hand in {ruleset}: another person publishes it; nothing was changed."
            )
        if seen is not None and seen != ruleset.digest:
            raise ConflictError(
                f"{ruleset} was changed since you looked at it: look at it again; nothing was changed."
            )
        if digest_of(ruleset.rules.all()) != ruleset.digest:
            raise ConflictError(f"{ruleset} is not what was submitted; nothing was changed.")
        ruleset.state, ruleset.published_by, ruleset.published_at = (
            RuleSetState.PUBLISHED,
            actor,
            timezone.now(),
        )
        ruleset.save()
        return _activate(ruleset, actor=actor, starts_at=starts_at, note=note)


def roll_back(
    ruleset_id: str, *, actor: str, starts_at: datetime | None = None, note: str = ""
) -> RuleActivation:
    """Put an earlier set in force again: it was in force once, so one person is enough. Raises `ConflictError`.

    One whose start was taken back, or is still to come, is put in force by who had no hand in it.
    """
    with transaction.atomic():
        ruleset = _locked(ruleset_id, RuleSetState.PUBLISHED, "put in force")
        if actor in ruleset.editors and not ruleset.activations.begun().exists():
            raise ConflictError(
                f"{ruleset} was never in force, and you had a hand in it: another person puts it in force; "
                "nothing was changed."
            )
        if starts_at is None and RuleSet.objects.live() == ruleset:
            raise ConflictError(f"{ruleset} is in force; nothing was changed.")
        return _activate(ruleset, actor=actor, starts_at=starts_at, note=note, is_rollback=True)


def cancel_activation(activation_id: int, *, actor: str) -> RuleActivation:
    """Take back what was scheduled and has not begun. Raises `ConflictError`."""
    waiting = RuleActivation.objects.waiting().filter(pk=activation_id)
    if not waiting.update(cancelled_at=timezone.now(), cancelled_by=actor):
        raise ConflictError("It has begun, or was cancelled already; nothing was changed.")
    return RuleActivation.objects.get(pk=activation_id)


def cancel_schedule(ruleset_id: str, *, actor: str) -> list[RuleActivation]:
    """Take back every start of the set that has not begun. Raises `ConflictError` when there is none."""
    with transaction.atomic():
        waiting = RuleActivation.objects.waiting().filter(ruleset_id=ruleset_id).values_list("pk", flat=True)
        cancelled = [cancel_activation(activation_id, actor=actor) for activation_id in waiting]
    if not cancelled:
        raise ConflictError("It has begun, or was cancelled already; nothing was changed.")
    return cancelled


def find_problems(ruleset: RuleSet) -> list[tuple[Rule, RuleError]]:
    """The rules of the set that cannot run, with the reason."""
    found = []
    for rule in ruleset.rules.all():
        try:
            compile_row(rule)
        except RuleError as error:
            found.append((rule, error))
    return found


def compare(before: RuleSet | None, after: RuleSet) -> list[Change]:
    """What became of each rule from one version to the other, in the order of the later one."""
    old = {rule.key: rule.to_json() for rule in before.rules.all()} if before else {}
    new = {rule.key: rule.to_json() for rule in after.rules.all()}
    changes = [_compare_rule(key, old.get(key, {}), new.get(key, {})) for key in [*new, *(old.keys() - new)]]
    return [change for change in changes if change.fields]


def _compare_rule(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    kind = "added" if not old else "removed" if not new else "changed"
    fields = {name: (old.get(name), new.get(name)) for name in (new or old) if old.get(name) != new.get(name)}
    return Change(key, str((new or old)["name"]), kind, fields)


def name_rules() -> dict[str, str]:
    """What each key is called in the newest set that has it."""
    return dict(Rule.objects.order_by("ruleset__number").values_list("key", "name"))


def digest_of(rules: Iterable[Rule]) -> str:
    """SHA-256 of the rules by key, in canonical JSON."""
    lines = sorted((rule.to_json() for rule in rules), key=lambda rule: str(rule["key"]))
    return hashlib.sha256(json.dumps(lines, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _activate(
    ruleset: RuleSet, *, actor: str, starts_at: datetime | None, note: str, is_rollback: bool = False
) -> RuleActivation:
    now = timezone.now()
    if starts_at is not None and starts_at <= now:
        raise InvalidRequestError("That time is over; choose a later one or none. Nothing was changed.")
    newest = RuleActivation.objects.filter(starts_at__lte=now).aggregate(newest=Max("starts_at"))["newest"]
    transaction.on_commit(forget_plan)
    return RuleActivation.objects.create(
        ruleset=ruleset,
        starts_at=starts_at or max(now, newest or now),
        is_rollback=is_rollback,
        note=note,
        created_by=actor,
    )


def _locked(ruleset_id: str, state: RuleSetState, wish: str) -> RuleSet:
    try:
        ruleset = RuleSet.objects.locked(ruleset_id)
    except RuleSet.DoesNotExist:
        raise InvalidRequestError(f"There is no rule set {ruleset_id}.") from None
    if ruleset.state != state:
        raise ConflictError(
            f"{ruleset} {_IS[RuleSetState(ruleset.state)]}: it cannot be {wish}; nothing was changed."
        )
    return ruleset


def _locked_draft(draft_id: str, wish: str) -> RuleSet:
    return _locked(draft_id, RuleSetState.DRAFT, wish)


def _find_rule(draft: RuleSet, key: str) -> Rule:
    rule = draft.rules.filter(key=key).first()
    if rule is None:
        raise InvalidRequestError(f"{draft} has no rule “{key}”; nothing was changed.")
    return rule


def _refuse_stale(name: str, present: Rule | None, seen: str | None) -> None:
    if seen is not None and token_of(present) != seen:
        raise RuleChangedError(name, present)


def _spread(positions: list[int]) -> list[int]:
    """The same places in order, or new ones ten apart where two rules share one: their order must not be luck."""
    is_strict = all(before < after for before, after in itertools.pairwise(positions))
    return positions if is_strict else [10 * place for place in range(1, len(positions) + 1)]


def _note_editor(draft: RuleSet, actor: str) -> None:
    if actor not in draft.editors:
        draft.editors = [*draft.editors, actor]
        draft.save(update_fields=["editors"])
