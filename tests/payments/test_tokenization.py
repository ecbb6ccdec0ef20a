"""Tokens in place of cards: no number in any repr, and no vault of ours in production."""

from __future__ import annotations

import pickle

import pytest

from payments.redaction import contains_card_data
from payments.tokenization import CardEntry, EphemeralTokenizer, TokenDescription, Tokenizer

CARD = CardEntry("4242424242424242", exp_month=12, exp_year=2030, cvc="987")


def test_a_token_describes_its_card_and_no_more() -> None:
    tokenizer: Tokenizer = EphemeralTokenizer()
    token = tokenizer.tokenize(CARD)
    assert tokenizer.describe(token) == TokenDescription(token, "4242", 12, 2030)
    assert contains_card_data(token) is None


def test_each_entry_gets_a_token_of_its_own() -> None:
    tokenizer = EphemeralTokenizer()
    assert tokenizer.tokenize(CARD) != tokenizer.tokenize(CARD)


def test_nothing_that_can_be_printed_or_dumped_holds_the_card() -> None:
    tokenizer = EphemeralTokenizer()
    token = tokenizer.tokenize(CARD)
    shown = f"{CARD!r} {CARD} {vars(tokenizer)} {pickle.dumps(tokenizer)!r}"
    assert CARD.number not in shown
    kept = repr(vars(tokenizer)).replace(token, "")  # a random one may hold the digits by chance
    assert "987" not in repr(CARD) + kept


def test_an_unknown_token_is_an_error() -> None:
    with pytest.raises(LookupError, match="tok_unknown"):
        EphemeralTokenizer().describe("tok_unknown")


@pytest.mark.parametrize(("number", "month"), [("4242424242424241", 12), ("", 12), ("4242424242424242", 13)])
def test_what_is_no_card_is_refused_without_an_echo(number: str, month: int) -> None:
    with pytest.raises(ValueError, match=r"card number|expiry month") as refusal:
        CardEntry(number, exp_month=month, exp_year=2030)
    assert not number or number not in str(refusal.value)


def test_the_ephemeral_vault_refuses_production(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="the gateway holds the vault"):
        EphemeralTokenizer(production=True)
    monkeypatch.setenv("DJANGO_ENV", "production")
    with pytest.raises(RuntimeError, match="the gateway holds the vault"):
        EphemeralTokenizer()
