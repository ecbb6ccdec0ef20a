"""The catalogue names exactly the public events that the code records, and its examples and schemas are true."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from payments import services
from payments.errors import InvalidRequestError
from payments.events import CATALOGUE, SUBSCRIBABLE, check_event_types
from payments.models import Order
from payments.screening import Decision, Stage
from tests.architecture.sources import read_sources
from tests.fakes import ScriptedScreener

NAME = re.compile(r"(order|payment|refund|dispute|review|webhook_endpoint)\.[a-z_]+")


def find_calls() -> Iterator[tuple[str, ast.Call, ast.Module]]:
    """Every call that records an event, but for the definition's own."""
    for source in read_sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                is_event = name in ("record_event", "tell_client") or "Event.objects.record" in ast.unparse(
                    node.func
                )
                if is_event and source.path != "payments/facts/totals.py":
                    yield source.path, node, source.tree


def is_public(call: ast.Call) -> bool:
    return not any(word.arg == "is_public" for word in call.keywords)


def read_names(node: ast.AST) -> set[str]:
    texts = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return {text for text in texts if isinstance(text, str) and NAME.fullmatch(text)}


def test_what_the_code_records_for_storefronts_is_in_the_catalogue_and_nothing_else() -> None:
    recorded: set[str] = set()
    for path, call, tree in find_calls():
        if not is_public(call):
            continue
        assert not any(isinstance(given, ast.JoinedStr) for given in call.args), f"{path}: write the name out"
        # A name held in a variable comes from this module too.
        names = set().union(*map(read_names, call.args)) or read_names(tree)
        assert names, f"{path}:{call.lineno}"
        recorded |= names
    assert recorded == set(SUBSCRIBABLE)


def test_what_is_recorded_for_our_own_eyes_is_not_told() -> None:
    hidden = {
        name
        for _, call, _ in find_calls()
        if not is_public(call)
        for name in set().union(*map(read_names, call.args))
    }
    assert "payment.void_failed" in hidden
    assert not hidden & set(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_example_of_each_type_fits_its_schema(name: str) -> None:
    kind = CATALOGUE[name]
    Draft202012Validator.check_schema(kind.schema)
    validator = Draft202012Validator(kind.schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    validator.validate(kind.example)
    assert kind.example["type"] == name
    assert not validator.is_valid(kind.example | {"type": "order.something"})
    assert not validator.is_valid(kind.example | {"data": {}})
    assert kind.description.endswith(".")


def test_names_fit_the_column_that_keeps_them() -> None:
    assert max(map(len, CATALOGUE)) <= 50


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("order.payd", "order.paid"), ("refund.fail", "refund.failed"), ("dispute.open", "dispute.opened")],
)
def test_an_unknown_type_is_refused_with_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(repr(meant))) as caught:
        check_event_types(["order.placed", wrong])
    assert caught.value.details == {"pointer": "/event_types/1"}


def test_known_types_are_let_through() -> None:
    check_event_types(SUBSCRIBABLE)
    check_event_types([])


@pytest.mark.parametrize("odd", ["", "*", "x" * 5000])
def test_odd_names_are_refused_and_not_repeated_at_length(odd: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_event_types([odd])
    assert len(caught.value.message) < 200


@pytest.mark.django_db
def test_what_services_really_tell_fits_the_catalogue(
    place: Callable[..., Order], screener: ScriptedScreener, told_types: set[str]
) -> None:
    """Every test below this folder checks what its services tell; this one tells most of it."""
    services.refund_order(place(), amount=None, reason="requested", actor="api:shop")
    place(payment_method="pm_card_chargeDeclined")
    place(payment_method="pm_3ds")
    services.cancel_order(place(capture="manual"), reason="requested", actor="api:shop")
    screener.decisions[Stage.BEFORE_AUTHORIZATION] = Decision.BLOCK
    place()
    screener.decisions = {Stage.AFTER_AUTHORIZATION: Decision.REVIEW}
    held, refused = place(), place()
    services.release_review(held.id, actor="user:analyst")
    services.reject_review(refused.id, actor="user:analyst", reason="fraudulent")
    services.resume_order(held)
    services.resume_order(refused)
    order = {"placed", "paid", "declined", "awaiting_customer", "authorized", "canceled", "blocked"}
    payment = {"authorized", "declined", "captured", "voided"}
    assert told_types == {
        *(f"order.{word}" for word in order),
        *(f"payment.{word}" for word in payment),
        *(f"refund.{word}" for word in ("created", "succeeded")),
        *(f"review.{word}" for word in ("opened", "approved", "rejected")),
    }
