"""The forms of rule sets: a rule in an analyst's words, and what the dialogs ask."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import zip_longest
from typing import Any, NamedTuple

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import slugify
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from fraud import rulesets
from fraud.admin.review_forms import MaskedCharField
from fraud.decision import ErrorPolicy, Mode, Outcome
from fraud.language import LanguageError, parse
from fraud.language.lexer import MAX_LENGTH
from fraud.models import Rule, RuleSet
from fraud.plans import RuleError, compile_row
from fraud.rules import CODE_RULES
from payments.admin.base import ActionForm
from payments.redaction import contains_card_data

NO_CARDS = "This looks like a card number, which is never kept."
MAX_PARAMETERS, MAX_POINTS, MAX_POSITION = 50, 1000, 32767
OUTCOMES = {
    Outcome.SCORE: "Points only",
    Outcome.REVIEW: "Review by a person",
    Outcome.CHALLENGE: "Challenge: 3-D Secure",
    Outcome.BLOCK: "Block",
}
MODES = {
    Mode.OFF: "Off",
    Mode.SHADOW: "Shadow: recorded, without effect",
    Mode.SHARE: "Share: in effect for some orders",
    Mode.ON: "On",
}
POLICIES = {
    ErrorPolicy.HIT: "It is a hit",
    ErrorPolicy.MISS: "It is no hit",
    ErrorPolicy.REVIEW: "A person looks",
}
PARAMETER_TYPES = {"number": "Number", "text": "Text", "list": "List", "pairs": "Pairs", "bool": "Yes or no"}


class Row(NamedTuple):
    """One line of the table of parameters, as it is typed."""

    name: str
    type: str
    value: str


class Mistake(NamedTuple):
    """What is wrong with a rule: at which field, and in an expression where (from 1) and how it could be mended."""

    field: str
    message: str
    column: int = 0
    suggestion: str = ""
    mended: str = ""  # the whole expression with the suggestion in it
    end: int = 0  # behind the word at the column, from 0


class ParametersWidget(forms.Widget):
    """Three inputs for each parameter; the page's template draws them."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[Row]:
        if not hasattr(data, "getlist"):
            return []
        columns = (data.getlist(f"{name}-{part}") for part in ("name", "type", "value"))
        rows = [Row(*(cell or "" for cell in cells)) for cells in zip_longest(*columns)]
        return [row for row in rows if row.name.strip() or row.value.strip()]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return False


class ParametersField(forms.Field):
    """Typed constants by name, as they are stored: numbers, texts, lists of texts, pairs, yes or no."""

    widget = ParametersWidget

    def prepare_value(self, value: Any) -> list[Row]:
        return (
            [show_parameter(*item) for item in value.items()] if isinstance(value, Mapping) else value or []
        )

    def to_python(self, value: Any) -> dict[str, Any]:
        if len(value) > MAX_PARAMETERS:
            raise ValidationError(f"A rule has at most {MAX_PARAMETERS} parameters.")
        found: dict[str, Any] = {}
        errors = []
        for row in value:
            name = row.name.strip()
            try:
                if name in found:
                    raise ValueError("there are two of this name")
                found[name] = read_parameter(name, row)
            except ValueError as error:
                errors.append(f"Parameter “{name[:40]}”: {error}.")
        if errors:
            raise ValidationError(errors)
        return found

    def validate(self, value: Any) -> None:
        """None is fine: most rules need no parameter."""


def show_parameter(name: str, value: Any) -> Row:
    """The value as the table shows it."""
    match value:
        case bool():
            return Row(name, "bool", "yes" if value else "no")
        case int() | float():
            return Row(name, "number", str(value))
        case [*items]:
            return Row(name, "list", ", ".join(map(str, items)))
        case {**pairs}:
            return Row(name, "pairs", ", ".join(f"{key}: {item}" for key, item in pairs.items()))
    return Row(name, "text", str(value))


def read_parameter(name: str, row: Row) -> Any:
    """The value that the row means. Raises `ValueError` in words."""
    if not name.isascii() or not name.isidentifier() or name != name.lower() or len(name) > 40:
        raise ValueError("a name is small letters, digits and _, such as limit or max_orders")
    text = row.value.strip()
    if not text:
        raise ValueError("it has no value")
    match row.type:
        case "number":
            return _read_number(text)
        case "text":
            return text
        case "list":
            return _split(text)
        case "pairs":
            return dict(_split_pair(item) for item in _split(text))
        case "bool":
            return _read_choice(text)
    raise ValueError("choose whether it is a number, a text, a list or pairs")


def _read_number(text: str) -> int | float:
    try:
        number = float(text)
        if text.lstrip("-").isdecimal() and text.isascii():
            return int(text)
    except ValueError:
        raise ValueError(f"“{text[:40]}” is not a number, such as 25 or 0.25") from None
    if not math.isfinite(number):
        raise ValueError(f"“{text[:40]}” is not a number, such as 25 or 0.25")
    return number


def _read_choice(text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise ValueError("write yes or no")
    return text.lower() == "yes"


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.replace("\n", ",").split(",") if item.strip()]


def _split_pair(item: str) -> tuple[str, str]:
    name, colon, value = item.partition(":")
    if not (colon and name.strip() and value.strip()):
        raise ValueError(f"“{item[:40]}” is not a pair; write pairs such as EUR: 1000, JPY: 150000")
    return name.strip(), value.strip()


class RuleForm(forms.Form):
    """One rule of a draft. `seen` is the token of the rule that was opened: a later save of somebody else shows.

    `key` is empty for a new rule, whose name makes it; it stays when the name changes.
    """

    name = MaskedCharField(max_length=80, widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}))
    code = forms.ChoiceField(label="Decided by", required=False, widget=UnfoldAdminSelectWidget)
    expression = forms.CharField(
        required=False,
        strip=False,  # the columns of errors count from the first character
        max_length=MAX_LENGTH,
        error_messages={
            "max_length": "A rule has at most %(limit_value)d characters; this has %(show_value)d. Split it into two."
        },
        widget=forms.Textarea(
            attrs={"rows": 4, "spellcheck": "false", "autocapitalize": "off", "autocomplete": "off"}
        ),
    )
    parameters = ParametersField(required=False)
    outcome = forms.ChoiceField(
        label="A hit means", choices=list(OUTCOMES.items()), widget=UnfoldAdminSelectWidget
    )
    points = forms.IntegerField(
        min_value=0,
        max_value=MAX_POINTS,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Added to the order's score by every hit.",
    )
    mode = forms.ChoiceField(label="Flag", choices=list(MODES.items()), widget=UnfoldAdminSelectWidget)
    share = forms.IntegerField(
        label="Share (%)",
        min_value=0,
        max_value=100,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Of the orders, when the flag is Share. For the others the rule is in shadow.",
    )
    on_error = forms.ChoiceField(
        label="When it cannot tell",
        choices=list(POLICIES.items()),
        widget=UnfoldAdminSelectWidget,
        help_text="A fact is not known, or the rule fails.",
    )
    position = forms.IntegerField(
        min_value=0,
        max_value=MAX_POSITION,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="The lowest is judged first.",
    )
    seen = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)

    def __init__(self, data: Any = None, *, draft: RuleSet, rule: Rule | None, key: str = "") -> None:
        self.draft, self.present, self.key = draft, rule, key
        super().__init__(data, initial=_begin(draft, rule))
        del self.fields["expression"].widget.attrs[
            "maxlength"
        ]  # browsers cut what is pasted, and say nothing
        code = self.fields["code"]
        assert isinstance(code, forms.ChoiceField)
        code.choices = [
            ("", "The expression below"),
            *((each.name, each.label) for each in CODE_RULES.values()),
        ]
        self.mistakes: list[Mistake] = []

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "name" in cleaned:
            self._check_name(cleaned["name"])
        if "expression" in cleaned and "parameters" in cleaned and "code" in cleaned:
            rule = self.to_rule()
            self.mistakes = find_mistakes(rule)
            if contains_card_data([rule.expression, rule.parameters]) is not None:
                self.mistakes.append(Mistake("expression", NO_CARDS))
            for mistake in self.mistakes:
                self.add_error(mistake.field, mistake.message)
        return cleaned

    def to_rule(self) -> Rule:
        """The rule as it was typed, unsaved; where a field is wrong, what the form began with."""
        values = {**_begin(self.draft, self.present), **self.cleaned_data}
        del values["seen"]
        values["expression"] = "" if values["code"] else values["expression"].strip()
        values["key"] = self.key or make_key(values["name"], self._other_keys())
        return Rule(**values)

    def _check_name(self, name: str) -> None:
        if self.draft.rules.exclude(key=self.key).filter(name__iexact=name).exists():
            self.add_error("name", f"There is another rule named “{name}” in this set.")
        elif not self.key and slugify(name)[:60] in self._other_keys():
            key = slugify(name)[:60]
            self.add_error(
                "name", f"Another rule of this set has the key “{key}”, which this name makes too."
            )

    def _other_keys(self) -> set[str]:
        return set(self.draft.rules.values_list("key", flat=True))


def make_key(name: str, taken: set[str]) -> str:
    """The slug of the name; `rule-1`, `rule-2` ... for a name without Latin letters."""
    if slug := slugify(name)[:60].strip("-"):
        return slug
    return next(key for number in range(1, len(taken) + 2) if (key := f"rule-{number}") not in taken)


def find_mistakes(rule: Rule) -> list[Mistake]:
    """Everything that is wrong with the rule itself, from left to right; nothing for one that can run."""
    if not rule.code and not rule.expression:
        return [Mistake("expression", "Write an expression, or choose a rule that is written as code.")]
    try:
        if not rule.code:
            parse(rule.expression, rule.parameters)
        compile_row(rule)
    except LanguageError as error:
        return [_locate(rule.expression, each) for each in error.errors]
    except RuleError as error:
        return [Mistake(error.field, _sentence(str(error)), error.column, error.suggestion)]
    return []


def _locate(text: str, error: LanguageError) -> Mistake:
    mended = mend(text, error.column, error.suggestion) if error.suggestion else ""
    end = end_of_word(text, error.column - 1)
    return Mistake("expression", _sentence(error.message), error.column, error.suggestion, mended, end)


def mend(text: str, column: int, suggestion: str) -> str:
    """The text with the word at this column (from 1) replaced by the suggestion, in the marks that it had."""
    start = min(column - 1, len(text))
    end = end_of_word(text, start)
    opening, closing = {'"': ('"', '"'), "{": ("{", "}")}.get(text[start:end][:1], ("", ""))
    word = suggestion if suggestion.startswith(opening) else f"{opening}{suggestion}{closing}"
    return f"{text[:start]}{word}{text[end:]}"


def end_of_word(text: str, start: int) -> int:
    """Behind the quoted text, the {parameter}, the name or the operator that begins there."""
    first = text[start : start + 1]
    if first in ('"', "{"):
        closing = text.find('"' if first == '"' else "}", start + 1)
        return closing + 1 if closing >= 0 else len(text)
    is_word = first.isalnum() or first == "_"
    end = start
    while (
        end < len(text) and not text[end].isspace() and (text[end].isalnum() or text[end] == "_") is is_word
    ):
        end += 1
        if not is_word and text[end : end + 1] in ("(", ")", '"', "{"):
            break
    return end


def _sentence(message: str) -> str:
    return f"{message[:1].upper()}{message[1:]}".rstrip(".") + "."


def _begin(draft: RuleSet, rule: Rule | None) -> dict[str, Any]:
    """What the form shows at first: the rule, or for a new one the safe choices, behind all others."""
    shown = rule or Rule(position=min(MAX_POSITION, max(_positions(draft), default=0) + 10))
    values = shown.to_json()
    del values["key"]
    return {**values, "seen": rulesets.token_of(rule)}


def _positions(draft: RuleSet) -> Iterator[int]:
    return iter(draft.rules.values_list("position", flat=True))


def describe_code_rules() -> list[tuple[str, str, list[str]]]:
    """Every rule written as code: its label, what it does, and the names of its parameters with their types."""
    found = []
    for rule in CODE_RULES.values():
        parameters = [f"{each.name} ({each.type}, {each.default!r})" for each in fields(rule.parameters)]
        found.append((rule.label, (rule.judge.__doc__ or "").strip(), parameters))
    return found


class NoteField(MaskedCharField):
    """What a person wants the next to know."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=500, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), **kwargs)


class DraftForm(ActionForm):
    """What a new draft is for; `source` is the set that it begins with."""

    note = NoteField(label="What will change, and why", required=False)


class NoteForm(ActionForm):
    note = NoteField(label="What changes, and why", required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["note"].initial = self.row.note


class ForceForm(ActionForm):
    """From when on a set decides."""

    starts_at = forms.DateTimeField(
        label="From (UTC)",
        required=False,
        widget=forms.DateTimeInput(
            attrs={"type": "datetime-local", "class": "rs-input"}, format="%Y-%m-%dT%H:%M"
        ),
        help_text="Empty: now. Every server follows within five seconds.",
    )
    note = NoteField(label="Note", required=False)


class PublishForm(ForceForm):
    """Bound to the rules that were shown: a set that was taken back and submitted anew is not published unseen."""

    seen = forms.CharField(max_length=64, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["seen"].initial = self.row.digest


class RollBackForm(ForceForm):
    """Shows before it asks what becomes of each rule."""

    def preview(self) -> list[str]:
        changes = rulesets.compare(RuleSet.objects.live(), self.row)
        return [f"“{change.name}” is {change.kind}" for change in changes]
