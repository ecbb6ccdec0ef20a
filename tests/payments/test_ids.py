"""Public ids: typed, in the order of their making, and never a card number."""

from __future__ import annotations

import time

import pytest

from payments.ids import MAX_LENGTH, PREFIXES, is_id, new_id
from payments.redaction import redact


@pytest.mark.parametrize("prefix", sorted(PREFIXES))
def test_every_prefix_makes_ids_that_fit_the_columns(prefix: str) -> None:
    made = new_id(prefix)
    assert made.startswith(f"{prefix}_")
    assert len(made) <= MAX_LENGTH
    assert is_id(made, prefix)
    assert redact(made) == made


def test_an_unknown_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown id prefix 'nope'"):
        new_id("nope")


def test_ids_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [0, 1, 31, 32, 1_763_649_378_123, 1_763_649_378_124, 2**48 - 1]
    made = []
    for moment in moments:
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment * 1_000_000)
        made.append(new_id("ord"))
    assert sorted(made) == made


def test_ids_made_one_after_the_other_are_in_that_order() -> None:
    made = [new_id("ord") for _ in range(1000)]
    assert sorted(made) == made


def test_ids_made_at_one_moment_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_763_649_378_123_000_000)
    made = {new_id("ord") for _ in range(1000)}
    assert len(made) == 1000
    assert len({text[:14] for text in made}) == 1  # ord_ and the ten letters that hold the time


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ord",
        "ord_",
        "ord_01",
        "pay_" + "0" * 26,
        "ord_" + "0" * 25,
        "ord_" + "0" * 27,
        "ord_" + "u" * 26,
        "ord_" + "A" * 26,
    ],
)
def test_what_is_no_order_id_is_recognised(text: str) -> None:
    assert not is_id(text, "ord")
    assert is_id("ord_" + "0" * 26, "ord")
