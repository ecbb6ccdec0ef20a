"""What a model is told of an order, and what its scores are worth: pure functions."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.facts import FraudContext, ListMatch
from fraud.scores.evaluation import (
    Distribution,
    find_stability_index,
    measure_thresholds,
    read_stability,
)
from fraud.scores.features import (
    FEATURES,
    FeatureSpec,
    UnknownFeatureError,
    features,
    find_means,
    raw_features,
)
from payments.decisions import Stage

EVERYTHING = FeatureSpec((*FEATURES, *(f"missing:{name}" for name in FEATURES)))
counts = st.none() | st.integers(0, 10**9)
contexts = st.builds(
    FraudContext,
    stage=st.sampled_from(Stage),
    amount=st.integers(1, 10**15),
    currency=st.sampled_from(["EUR", "JPY", "KWD"]),
    assessed_at=st.integers(0, 2**33),
    is_guest=st.none() | st.booleans(),
    customer_age_days=st.none() | st.integers(-5, 10**5),
    orders_before=counts,
    linked_fraud=counts,
    outside_score=st.none() | st.floats(0, 1),
    billing_country=st.sampled_from(["", "DE", "US"]),
    ip_country=st.sampled_from(["", "DE", "US"]),
    velocity=st.dictionaries(st.sampled_from(["card:3600", "email:86400", "other:1"]), st.integers(0, 10**6)),
    list_matches=st.lists(
        st.builds(ListMatch, st.sampled_from(["block", "review"]), st.just("email"), st.just("x"))
    ),
)


@given(contexts)
def test_the_same_numbers_live_and_from_the_stored_context(context: FraudContext) -> None:
    live = context.to_dict()
    stored = json.loads(json.dumps(live))
    row = features(live, EVERYTHING)
    assert row == features(stored, EVERYTHING)
    assert len(row) == len(EVERYTHING.names)
    assert all(math.isfinite(value) for value in row)


def test_the_features_of_one_order() -> None:
    context = FraudContext(
        Stage.BEFORE_AUTHORIZATION,
        1999,
        "EUR",
        assessed_at=6 * 3600,
        is_guest=False,
        billing_country="DE",
        shipping_country="US",
        velocity={"card:3600": 3},
        list_matches=(ListMatch("review", "email", "b***r@example.com"),),
    )
    spec = FeatureSpec(
        (
            *("amount", "hour", "is_guest", "billing_is_not_shipping", "velocity:card:3600"),
            *("on_review_list", "on_allow_list", "orders_before", "missing:orders_before"),
        ),
        {"orders_before": 1.5, "is_guest": 0.9},
    )
    assert features(context.to_dict(), spec) == [
        math.log1p(19.99), 6.0, 0.0, 1.0, math.log1p(3), 1.0, 0.0, 1.5, 1.0,
    ]  # fmt: skip


def test_a_model_that_asks_for_what_there_is_not_is_refused() -> None:
    with pytest.raises(UnknownFeatureError, match="shoe_size"):
        FeatureSpec(("amount", "shoe_size"))


def test_the_means_are_of_those_that_know() -> None:
    contexts = [
        {"amount": 0, "currency": "EUR", **extra} for extra in ({"is_guest": True}, {"is_guest": False}, {})
    ]
    means = find_means([raw_features(context) for context in contexts])
    assert (means["is_guest"], means["orders_before"], means["amount"]) == (0.5, 0.0, 0.0)


# --- measures -----------------------------------------------------------------------------------------------

SCORED = [(0.9, True), (0.8, False), (0.7, True), (0.2, False), (0.1, True)]


def test_precision_and_recall_at_thresholds() -> None:
    points = measure_thresholds(SCORED, [0.0, 0.7, 0.75, 1.0])
    assert [(p.flagged, p.caught, p.precision, p.recall) for p in points] == [
        (5, 3, 3 / 5, 1.0),
        (3, 2, 2 / 3, 2 / 3),
        (2, 1, 1 / 2, 1 / 3),
        (0, 0, None, 0.0),
    ]
    (nothing,) = measure_thresholds([], [0.5])
    assert (nothing.precision, nothing.recall) == (None, None)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans())), st.lists(st.floats(0, 1), min_size=1))
def test_a_higher_threshold_catches_no_more(scored: list[tuple[float, bool]], limits: list[float]) -> None:
    points = measure_thresholds(scored, sorted(limits))
    for low, high in pairwise(points):
        assert low.flagged >= high.flagged
        assert low.caught >= high.caught
    assert all(0 <= point.caught <= min(point.flagged, point.fraud) for point in points)


def test_the_stability_index_by_hand() -> None:
    training = Distribution((0.5,), (0.5, 0.5))
    moved = [0.1] * 8 + [0.9] * 2
    expected = (0.8 - 0.5) * math.log(0.8 / 0.5) + (0.2 - 0.5) * math.log(0.2 / 0.5)
    assert find_stability_index(training, moved) == pytest.approx(expected)
    assert read_stability(expected) == "shifted"
    assert [read_stability(index) for index in (0.05, 0.1, 0.2, 0.25)] == [
        "stable",
        "moving",
        "moving",
        "shifted",
    ]


scores = st.lists(st.floats(0, 1), min_size=1, max_size=200)


@given(scores, scores)
def test_the_index_is_zero_for_the_same_and_never_below(before: list[float], after: list[float]) -> None:
    training = Distribution.of_training(before)
    assert sum(training.shares) == pytest.approx(1)
    assert find_stability_index(training, before) == 0
    index = find_stability_index(training, after)
    assert index >= 0
    assert math.isfinite(index)


def test_nothing_has_no_distribution() -> None:
    with pytest.raises(ValueError, match="no scores"):
        Distribution.of_training([])
    with pytest.raises(ValueError, match="no scores"):
        find_stability_index(Distribution((), (1.0,)), [])
