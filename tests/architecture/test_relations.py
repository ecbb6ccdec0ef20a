"""Who may know whom: tables point down, calls go down, and nothing happens behind anybody's back."""

from __future__ import annotations

import ast
import re

from django.apps import apps
from django.db.models import Model

from tests.architecture.sources import PACKAGES, Source, read_sources

FLOOR = "payments"
SIGNALS = (
    "django.dispatch",
    "django.db.models.signals",
    "django.db.backends.signals",
    "django.core.signals",
    "django.contrib.auth.signals",
    "django.test.signals",
)
RESOLVERS = {
    "payments/gateways/__init__.py",
    "payments/screening.py",
    "payments/fulfilment/__init__.py",
    "payments/retention.py",
    "fraud/scores/model.py",  # a library that is not installed everywhere
}
BY_NAME = ("django.utils.module_loading.import_string", "importlib.import_module")


def own_models() -> list[type[Model]]:
    return [model for model in apps.get_models() if model._meta.app_label in PACKAGES]


def test_relations_between_apps_point_down_to_the_floor() -> None:
    upward = [
        f"{model._meta.label}.{field.name} -> {field.related_model._meta.label}"
        for model in own_models()
        for field in model._meta.get_fields()
        if field.concrete and field.is_relation and field.related_model is not None
        if field.related_model._meta.app_label in PACKAGES
        and field.related_model._meta.app_label not in (model._meta.app_label, FLOOR)
    ]
    assert upward == []


def test_the_floor_has_tables_and_each_neighbour_points_at_it() -> None:
    """Else the test above would look at nothing."""
    pointing = {
        model._meta.app_label
        for model in own_models()
        for field in model._meta.get_fields()
        if field.concrete and field.is_relation and field.related_model._meta.app_label == FLOOR
    }
    assert {"payments", "fraud", "reconciliation", "webhooks"} <= pointing


def test_no_row_of_money_is_deleted_by_a_cascade() -> None:
    kept = {
        "Order",
        "Payment",
        "Attempt",
        "Operation",
        "Event",
        "LedgerEntry",
        "Posting",
        "SagaRun",
        "SagaEffect",
    }
    cascading = [
        f"{model._meta.label}.{field.name}"
        for model in own_models()
        if model.__name__ in kept
        for field in model._meta.get_fields()
        if field.concrete and field.is_relation and field.remote_field.on_delete.__name__ != "PROTECT"
    ]
    assert cascading == []


def test_no_signals() -> None:
    assert find_imports(SIGNALS) == []


def test_only_the_resolvers_import_by_name() -> None:
    """And each app's own configuration, which loads its checks after the models."""
    places = {place.split(":")[0] for place in find_imports(BY_NAME)}
    assert {place for place in places if not place.endswith("/apps.py")} == RESOLVERS


def find_imports(names: tuple[str, ...]) -> list[str]:
    return [
        f"{source.path}:{line} {name}"
        for source in read_sources()
        for name, line in source.imported()
        if any(name == banned or name.startswith(f"{banned}.") for banned in names)
    ]


def test_no_import_inside_a_function() -> None:
    inside = [
        f"{source.path}:{node.lineno}"
        for source in read_sources()
        for function in source.functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


def test_no_module_is_a_drawer_for_anything() -> None:
    drawers = ("utils", "helpers", "common", "misc")
    assert [s.path for s in read_sources() if set(s.module.split(".")) & set(drawers)] == []


def test_each_module_says_in_one_sentence_what_it_is_for() -> None:
    assert {s.path: why for s in read_sources() if (why := find_fault(s))} == {}


def find_fault(source: Source) -> str:
    """What is wrong with the docstring's first paragraph; empty files need none."""
    if not source.tree.body:
        return ""
    text = ast.get_docstring(source.tree) or ""
    if not text:
        return "has none"
    sentence = re.sub(r"`[^`]*`|\([^)]*\)|e\.g\.|i\.e\.", "x", text.split("\n\n")[0])
    if not sentence.endswith((".", "?", "!", "x")):
        return "does not end"
    return "has more than one sentence" if re.search(r"[.!?]\s+[A-Z]", sentence) else ""
