"""The spelling of values: one for all the ways in which people and fraudsters write the same thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.lists.values import (
    MAIL_RULES,
    NETWORKS,
    domains_above,
    hashes_of,
    join_address,
    networks_around,
    normalise,
    read_value,
)
from payments.errors import InvalidRequestError

SPELLINGS = [
    # e-mail: case, dots and tags only where the provider overlooks them, domains by IDNA
    ("email", " Buyer@Example.COM ", "buyer@example.com"),
    ("email", "buy.er+shop@example.com", "buy.er+shop@example.com"),
    ("email", "B.u.y.e.r+shop@googlemail.com", "buyer@gmail.com"),
    ("email", "buy.er+x@outlook.com", "buy.er@outlook.com"),
    ("email", "buyer+x@icloud.com", "buyer@icloud.com"),
    ("email", "buyer@MÜLLER.de.", "buyer@xn--mller-kva.de"),
    ("email", "cafe\u0301@example.com", "café@example.com"),
    ("email", "+@gmail.com", "+@gmail.com"),
    ("domain", "@Bad.Example.", "bad.example"),
    ("domain", "müller.de", "xn--mller-kva.de"),
    ("ip", "2001:DB8:0:0::1", "2001:db8::1"),
    ("ip", "::ffff:198.51.100.7", "198.51.100.7"),
    ("network", "198.51.100.7", "198.51.100.0/24"),
    ("network", "198.51.100.7/24", "198.51.100.0/24"),
    ("network", "2001:db8:1:2::7", "2001:db8:1::/48"),
    ("network", "10.1.2.3/12", "10.0.0.0/12"),
    ("phone", "0049 (0)30 / 123-4567", "+49301234567"),
    ("phone", "+1 (202) 555.0143", "+12025550143"),
    ("address", "de, 10115, Invalidenstraße 7", "DE|10115|invalidenstr7"),
    ("address", "DE,10115,Invaliden Str. 7", "DE|10115|invalidenstr7"),
    ("address", "US, 10001, 5 Fifth Avenue", "US|10001|5fifthave"),
    ("address", "FR, 75001, 12 Rue de l'Échelle", "FR|75001|12ruedelechelle"),
    ("country", "de", "DE"),
    ("device", " d_abcDEF ", "d_abcDEF"),
]
WRONG = [
    ("email", "nobody"),
    ("email", "b***@example.com"),
    ("email", "a b@example.com"),
    ("email", "a@localhost"),
    ("domain", "nodots"),
    ("domain", "exa mple.com"),
    ("ip", "1.2.3"),
    ("ip", "fe80::1%eth0"),
    ("network", "10.0.0.0/7"),
    ("network", "10.0.0.0/25"),
    ("network", "10.0.0.0/x"),
    ("network", "2001:db8::/64"),
    ("phone", "98"),
    ("phone", "call me"),
    ("address", "Hauptstr. 9"),
    ("address", "Germany, 10115, Invalidenstr. 7"),
    ("country", "DEU"),
    ("country", "Ñ1"),
    ("card", " "),
    ("card", "d_ab…"),
    ("device", "x" * 501),
]
CARD_NUMBERS = [("device", "4242424242424242"), ("card", "4242 4242 4242 4242"), ("card", "411111111111"),
    ("customer", "5555-5555-5555-4444"), ("email", "4242424242424242@example.com")]  # fmt: skip


@pytest.mark.parametrize(("kind", "given_value", "expected"), SPELLINGS)
def test_a_value_has_one_spelling(kind: str, given_value: str, expected: str) -> None:
    assert normalise(kind, given_value) == expected


@pytest.mark.parametrize(("kind", "value"), WRONG + CARD_NUMBERS)
def test_what_cannot_be_a_value_is_refused_and_never_repeated(kind: str, value: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        normalise(kind, value)
    assert not value.strip() or value.strip() not in refused.value.message
    assert hashes_of(kind, value) == set()


@pytest.mark.parametrize(("kind", "value"), CARD_NUMBERS)
def test_a_card_number_is_refused_as_such(kind: str, value: str) -> None:
    with pytest.raises(InvalidRequestError, match="card number"):
        normalise(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("email", "buyer@example.com", "b***@example.com"),
        ("ip", "198.51.100.7", "198.51.100.x"),
        ("ip", "2001:db8::1", "2001:db8::x"),
        ("network", "198.51.100.7", "198.51.100.0/24"),
        ("domain", "Bad.example", "bad.example"),
        ("phone", "+49 30 1234567", "+493…67"),
        ("address", "DE, 10115, Invalidenstr. 7", "DE 101…"),
        ("device", "d_abcdef", "d_ab…"),
    ],
)
def test_only_a_masked_form_is_shown(kind: str, value: str, shown: str) -> None:
    assert read_value(kind, value).masked == shown


@given(
    local=st.text("abcdefgh", min_size=1, max_size=10),
    dots=st.sets(st.integers(1, 9)),
    tag=st.text("abc+.", max_size=5),
    domain=st.sampled_from(["gmail.com", "googlemail.com", "GMAIL.COM"]),
)
def test_every_way_to_write_a_gmail_address_is_one_address(
    local: str, dots: set[int], tag: str, domain: str
) -> None:
    dotted = "".join(f".{char}" if index in dots and index else char for index, char in enumerate(local))
    assert normalise("email", f"{dotted}+{tag}@{domain}") == f"{local}@gmail.com"


@given(st.sampled_from(sorted(MAIL_RULES)), st.from_regex(r"[a-z0-9.+]{1,20}", fullmatch=True))
def test_a_spelling_is_its_own_spelling(domain: str, local: str) -> None:
    once = normalise("email", f"{local}@{domain}")
    assert normalise("email", once) == once


@given(st.ip_addresses())
def test_an_address_is_in_each_network_around_it(address: object) -> None:
    around = networks_around(str(address))
    assert around == [normalise("network", network) for network in around]
    assert len(around) in {len(lengths) for lengths in NETWORKS.values()}
    assert normalise("network", str(address)) == around[0]


def test_a_domain_is_below_those_above_it() -> None:
    assert domains_above("a.b.shop.example") == ["a.b.shop.example", "b.shop.example", "shop.example"]
    assert domains_above("a.b.c.d.e.example")[0] == "b.c.d.e.example"
    assert domains_above("localhost") == []


def test_an_address_listed_before_its_provider_had_a_rule_is_still_found() -> None:
    assert len(hashes_of("email", "b.uyer@gmail.com")) == 2
    assert len(hashes_of("email", "buyer@example.com")) == 1


def test_an_order_without_a_street_has_no_address() -> None:
    assert join_address("DE", "10115", " ") == ""
    assert normalise("address", join_address("DE", "10,115", "Weg, 1")) == "DE|10115|weg1"
