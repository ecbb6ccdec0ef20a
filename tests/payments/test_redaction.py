"""The card-data detector: what must never come through, what must never be touched, and at what price."""

from __future__ import annotations

import json
import logging
import random
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from payments.card_numbers import is_card_number, mask_card_number
from payments.ids import PREFIXES, new_id
from payments.redaction import (
    REDACTED,
    PCIRedactionFilter,
    RedactingFormatter,
    contains_card_data,
    redact,
    redact_data,
    redaction_counts,
)

VISA = "4111111111111111"
MASTERCARD = "5555555555554444"
AMEX = "378282246310005"

# --- card numbers in any dress ------------------------------------------------------------------------------
BRANDS = [
    VISA,
    "4242424242424242",
    "4000056655665556",
    "4000000000000000006",  # 19 digits
    MASTERCARD,
    "2223003122003222",
    "2720990000000007",
    AMEX,
    "371449635398431",
    "30569309025904",
    "36227206271667",
    "38520000023237",
    "3566002020360505",
    "6011111111111117",
    "6445644564456445",
    "6555900000604105",
    "6200000000000005",
    "6205500000000000004",
    "8171999900000000021",
    "2200000000000004",
    "6759649826438453",
    "5019717010103742",
    "6304000000000000",
    "9792000000000003",
    "5078601870000127985",
    "6062826786276634",
]
WRAPPERS = [
    "{}",
    "card {} declined",
    "card={}",
    "'{}'",
    '"{}"',
    "<PAN>{}</PAN>",
    "({})",
    "[{}]",
    "card{}x",
    "n:{},next",
    "order_{}",
    "{}.",
    "{}\n",
    "\t{}\t",
    "https://shop.example/pay?card={}&x=1",
    "/cards/{}/charge",
    "b'{}'",
    "#{}",
    "**{}**",
    "{}.00",
    "{}EUR",
    "id-{}",
    "2026-11-20 {}",
    "2026-11-20T10:00:00Z {}",
    "from 198.51.100.7 {}",
    "x{}",
    "+{}",
    "000 {}",
    "2026 {}",
    "12 {}",
]
SPELLINGS = [
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111.1111.1111.1111",
    "4111_1111_1111_1111",
    "4111+1111+1111+1111",
    "4111%201111%201111%201111",
    "4111%2D1111%2D1111%2D1111",
    "4111%2B1111%2B1111%2B1111",
    "4111&nbsp;1111&nbsp;1111&nbsp;1111",
    "4111\u00a01111\u00a01111\u00a01111",
    "4111\u202f1111\u202f1111\u202f1111",
    "4111\u20131111\u20131111\u20131111",
    "4111\u20111111\u20111111\u20111111",
    "4111\u22121111\u22121111\u22121111",
    "4111\u200b1111\u200b1111\u200b1111",
    "4111\n1111\n1111\n1111",
    "4111\r\n1111\r\n1111\r\n1111",
    "4111\\n1111\\n1111\\n1111",
    "4111\\u00a01111\\u00a01111\\u00a01111",
    "4111  1111  1111  1111",
    "4111 - 1111 - 1111 - 1111",
    "4111\t1111\t1111\t1111",
    "41111111 11111111",
    "411111 1111111111",
    "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    "4-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1",
    "４１１１１１１１１１１１１１１１",
    "٤١١١١١١١١١١١١١١١",
    "४१११११११११११११११",
    "4111 1111-1111.1111",
    "4111·1111·1111·1111",
]


@pytest.mark.parametrize("number", BRANDS)
def test_every_brand_is_masked_to_its_first_six_and_last_four(number: str) -> None:
    assert is_card_number(number)
    assert redact(f"charged {number} today") == f"charged {mask_card_number(number)} today"


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_no_wrapper_hides_a_card_number(wrapper: str) -> None:
    assert redact(wrapper.format(VISA)) == wrapper.format("411111******1111")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_masked_to_the_same_text(spelling: str) -> None:
    assert redact(f"paid with {spelling} ok") == "paid with 411111******1111 ok"


@pytest.mark.parametrize("spelling", ["3782 822463 10005", "3782-822463-10005", "3782 8224 6310 005"])
def test_the_groups_of_an_amex_are_read(spelling: str) -> None:
    assert redact(spelling) == "378282*****0005"


def test_two_numbers_side_by_side_are_both_masked() -> None:
    assert redact("4111 1111 1111 1111 5555 5555 5555 4444") == "411111******1111 555555******4444"


def test_overlapping_readings_show_no_digit() -> None:
    text = "4111 1111 1111 1111 110"  # sixteen and nineteen digits both pass the check
    assert is_card_number(VISA)
    assert is_card_number("4111111111111111110")
    assert redact(text) == "*" * 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("card 4222222222222", "card *********2222"),
        ("Visa no. 4222222222222", "Visa no. *********2222"),
        ("pan=4222222222222", "pan=*********2222"),
        ("credit: 4222 222 222 222", "credit: *********2222"),
        ("item 4222222222222", "item 4222222222222"),  # as likely a barcode
    ],
)
def test_thirteen_digits_are_a_card_only_near_a_card_word(text: str, expected: str) -> None:
    assert redact(text) == expected


# --- what follows a card number -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f";{VISA}=25121010000012345678?", f";411111******1111{REDACTED}"),
        (f"{VISA}D25121010000012345678", f"411111******1111{REDACTED}"),
        (f"%B{VISA}^DOE/JOHN^25121010000000000?", f"%B411111******1111{REDACTED}"),
        (f"%25B{VISA}%5EDOE/JOHN%5E2512101000?", f"%25B411111******1111{REDACTED}"),
        (f"{VISA}|12|2027|123", f"411111******1111|12|2027|{REDACTED}"),
        (f"{VISA} 12/27 123", f"411111******1111 12/27 {REDACTED}"),
        (f"{VISA} exp 12/27 1234", f"411111******1111 exp 12/27 {REDACTED}"),
        (f"{VISA}:123", f"411111******1111:{REDACTED}"),
        (f"{AMEX},1234", f"378282*****0005,{REDACTED}"),
        (f"{VISA} 123", f"411111******1111 {REDACTED}"),
    ],
)
def test_tracks_and_security_codes_behind_a_number_go_with_it(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cvv=123", f"cvv={REDACTED}"),
        ("CVV: 123", f"CVV: {REDACTED}"),
        ("cvc 123", f"cvc {REDACTED}"),
        ("CVV2 is 1234", f"CVV2 is {REDACTED}"),
        ("cvv code: 123", f"cvv code: {REDACTED}"),
        ("CVC/CVV: 123", f"CVC/CVV: {REDACTED}"),
        ("card_cvv=123&x=1", f"card_cvv={REDACTED}&x=1"),
        ("cardCvc=123", f"cardCvc={REDACTED}"),
        ("security code 123", f"security code {REDACTED}"),
        ("card verification value: 123", f"card verification value: {REDACTED}"),
        ("cvv%3D123", f"cvv%3D{REDACTED}"),
        ("card[cvc]=123", f"card[cvc]={REDACTED}"),
        ("card%5Bcvc%5D=123", f"card%5Bcvc%5D={REDACTED}"),
        ("%22cvc%22%3A%22123%22", f"%22cvc%22%3A%22{REDACTED}%22"),
        ("<CVV2>123</CVV2>", f"<CVV2>{REDACTED}</CVV2>"),
        ("cvv (123)", f"cvv ({REDACTED})"),
        ("cvv: ١٢٣", f"cvv: {REDACTED}"),
        ('{"cvv": "123"}', f'{{"cvv": "{REDACTED}"}}'),
        ('{"cvc":123}', f'{{"cvc":"{REDACTED}"}}'),
        (r"{\"cvv\": \"123\"}", rf"{{\"cvv\": \"{REDACTED}\"}}"),
        ("{'cvv': 123}", f"{{'cvv': '{REDACTED}'}}"),
        ("cid=1234", f"cid={REDACTED}"),
        ("pin: 4321", f"pin: {REDACTED}"),
        ("pin_block=0412AC89ABCDEF67", f"pin_block={REDACTED}"),
        ("track2=;411=25?", f"track2={REDACTED}"),
        ("track_data: B411X", f"track_data: {REDACTED}"),
    ],
)
def test_named_authentication_data_is_masked_in_text(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc.def", f"Authorization: {REDACTED}"),
        ("sent Bearer 5f2a.0123456789abcdef", f"sent Bearer {REDACTED}"),
        ("api_key=k-123", f"api_key={REDACTED}"),
        ("X-Api-Key: k-123", f"X-Api-Key: {REDACTED}"),
        ("STRIPE_API_KEY=abc", f"STRIPE_API_KEY={REDACTED}"),
        ("DJANGO_SECRET_KEY='a b c'", f"DJANGO_SECRET_KEY='{REDACTED}'"),
        ('{"password": "correct horse"}', f'{{"password": "{REDACTED}"}}'),
        (r"{\"password\": \"correct horse\"}", rf"{{\"password\": \"{REDACTED}\"}}"),
        ("access_token=eyJh.bb.cc&x=1", f"access_token={REDACTED}&x=1"),
        ("used sk_test_51abcdefgh", f"used sk_test_{REDACTED}"),
        ("used sk_live_51abcdefgh,", f"used sk_live_{REDACTED},"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8", f"whsec_{REDACTED}"),
        ("postgres://app:hunter2@db/x", f"postgres://app:{REDACTED}@db/x"),
        ("token=eyJhbGciOi.x", f"token={REDACTED}"),
        ("client_secret=pi_3Nx_secret_Ab1", f"client_secret={REDACTED}"),
        ("password=my_password", f"password={REDACTED}"),
    ],
)
def test_secrets_are_masked_in_text(text: str, expected: str) -> None:
    assert redact(text) == expected


# --- look-alikes --------------------------------------------------------------------------------------------
LOOK_ALIKES = [
    "1763649378123",  # epoch in milliseconds, microseconds, nanoseconds
    "1763649378123456",
    "1763649378123456789",
    "at 1763649378.4111111111111111",
    "20261120143618",
    "2026-11-23 2026-11-24 2026-11-25 2026-11-26",
    "2026-11-30 2026-12-01 2026-12-02",
    "2026-11-20T14:36:18.123456+00:00",
    "41111111-1111-1111-1111-111111111111",
    "urn:uuid:4f3c2b1a-4111-4111-8111-111111111111",
    "ord_01k9abcdef4111111111111111",
    "trace_id=4bf92f3577b34da6a3ce929d0e0e4736",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "span 4111111111111a11",
    "md5 4111111111111111abcdefabcdefabcd",
    "sha1 4111111111111111abcdefabcdefabcdefabcdef",
    "sha256 4111111111111111" + "abcdef01" * 6,
    "0.4111111111111111",
    "37.4111111111111111",
    "4.111111111111111",
    "-0.5555555555554444",
    "+49 30 901820 15",
    "+44 20 7946 0958 +49 30 901820",
    "(555) 555-5555 ext. 4444",
    "ISBN 978-3-16-148410-0",
    "EAN 4006381333931",
    "GTIN 04006381333931",
    "IMEI 356938035643809",
    "41111111111111111111",  # twenty digits
    "0004111111111111111111",
    "4111111111111112",  # the check digit is wrong
    "1234567890123452",  # no issuer
    "9999999999999995",
    "DE89 3704 0044 0532 0130 00",
    "FR14 2004 1010 0505 0001 3M02 606 paid",
    "198.51.100.7, 203.0.113.195",
    "52.95.110.123 54.12.33.200 54.240.1.17",
    "order web-1001, invoice 2026-000123",
    "12950 EUR for 2 items at 6475",
    "amount=999999999999",
    "1,234,567,890,123.45",
    "psp 8535516988942333",
    "version 1.2.3.4.5.6.7.8.9.10",
    "411111******1111",
    "card ending 4242, exp 12/27",
    "tracking_number=1234567890123456",
    "track: 5 of 12",
    "shipping=1234",
    "author=1234",
    "postal=10115",
    "cvc_check: pass",
    "cvv_result=M",
    "the cvv matched",
    "AVS 200, CVC check 200",
    "can 1234",
    "opinion: 1234",
    "payment_method=pm_card_visa",
    "token=tok_timeout_after",
    "the token is missing",
    "authorization: succeeded",
    "Basic authentication is refused",
    "https://shop.example:8000/orders",
    "key=value",
    "Idempotency-Key: 7c0f",
]


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes_are_left_alone(text: str) -> None:
    assert redact(text) == text


def test_the_corpus_is_as_large_as_the_one_it_answers_to() -> None:
    assert len(BRANDS) + len(WRAPPERS) + len(SPELLINGS) >= 62
    assert len(LOOK_ALIKES) >= 26


# --- properties ---------------------------------------------------------------------------------------------
BRAND_PREFIXES = [("4", 16), ("4", 19), ("51", 16), ("55", 16), ("2221", 16), ("2720", 16), ("34", 15)]
BRAND_PREFIXES += [("37", 15), ("36", 14), ("3528", 16), ("6011", 16), ("65", 16), ("62", 19), ("81", 17)]
SEPARATORS = [
    "",
    " ",
    "-",
    ".",
    "_",
    "+",
    "\u00a0",
    "\u2013",
    "\u200b",
    "  ",
    "%20",
    "&nbsp;",
    "\n",
    "\r\n",
    "\\n",
]
GROUPINGS = [(4, 4, 4, 4, 3), (4, 6, 9), (6, 13), (8, 8, 3), (1,) * 19, (2,) * 10, (5, 5, 5, 4), (19,)]


def complete(digits: str) -> str:
    """The digits with the check digit that makes them pass."""
    every_second = [int(digit) * 2 - 9 * (int(digit) > 4) for digit in digits[::-2]]
    return digits + str(-sum(every_second + [int(digit) for digit in digits[-2::-2]]) % 10)


@st.composite
def card_numbers(draw: st.DrawFn) -> str:
    prefix, length = draw(st.sampled_from(BRAND_PREFIXES))
    body = draw(st.text("0123456789", min_size=length - len(prefix) - 1, max_size=length - len(prefix) - 1))
    return complete(prefix + body)


def spell(number: str, grouping: tuple[int, ...], separator: str) -> str:
    groups, rest = [], number
    for size in grouping:
        groups.append(rest[:size])
        rest = rest[size:]
    return separator.join(filter(None, groups))


def count_longest_shown(text: str, number: str) -> int:
    """How many digits of the number stand together in the text, whatever stands between them."""
    shown = "".join(char for char in text if char.isdecimal() or char == "*")
    sizes = range(len(number), 0, -1)
    return next(
        (size for size in sizes for at in range(len(number) - size + 1) if number[at : at + size] in shown), 0
    )


@settings(max_examples=1500, deadline=None)
@given(card_numbers(), st.sampled_from(GROUPINGS), st.sampled_from(SEPARATORS), st.sampled_from(WRAPPERS))
def test_no_valid_number_survives_any_spelling_in_any_wrapper(
    number: str, grouping: tuple[int, ...], separator: str, wrapper: str
) -> None:
    spelling = spell(number, grouping, separator)
    assume(not re.fullmatch(r"\d+\.\d+", spelling))  # a decimal number, and kept as one
    text = redact(wrapper.format(spelling))
    assert "*" in text
    assert count_longest_shown(text, number) <= 6


@settings(max_examples=500, deadline=None)
@given(card_numbers())
def test_a_plain_number_shows_at_most_six_digits_in_a_row(number: str) -> None:
    assert redact(f"card {number} ok") == f"card {mask_card_number(number)} ok"


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=200))
def test_what_is_redacted_once_is_redacted_for_good(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def make_log_line(chance: random.Random) -> str:
    """A line as this site writes them: ids, hex, times, amounts, addresses."""
    prefix = chance.choice(sorted(PREFIXES))
    parts = [
        f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T10:07:07.{chance.randrange(10**6):06}Z",
        f"id={prefix}_{''.join(chance.choices('0123456789abcdefghjkmnpqrstvwxyz', k=26))}",
        f"trace={chance.randrange(1 << 127, 1 << 128):032x} span={chance.randrange(10 << 60, 1 << 64):016x}",
        f"amount={chance.randrange(10**7)} ms={1_763_000_000_000 + chance.randrange(10**9)}",
        f"ip=198.51.{chance.randrange(256)}.{chance.randrange(256)} ratio={chance.random()}",
        f"sha256={chance.randrange(10 << 252, 1 << 256):064x} duration_ms={chance.uniform(0, 500):.3f}",
        f"ref=ch_{''.join(chance.choices('0123456789ABCDEFabcdefxyzXYZ', k=24))} status=402",
        f"phone=+49 30 {chance.randrange(10**6):06} period=2026-11-23 2026-11-{chance.randint(24, 30)}",
    ]
    chance.shuffle(parts)
    return " ".join(parts)


def test_twenty_thousand_log_lines_are_written_as_they_are() -> None:
    chance = random.Random(20261120)
    lines = (make_log_line(chance) for _ in range(20_000))
    assert [(line, redact(line)) for line in lines if redact(line) != line][:3] == []


def test_our_own_ids_are_never_redacted() -> None:
    assert [new for prefix in PREFIXES for new in [new_id(prefix)] if redact(new) != new] == []


# --- hostile input ------------------------------------------------------------------------------------------
@contextmanager
def at_most_seconds(seconds: int) -> Iterator[None]:
    """Fails instead of hanging; far above what linear work takes, far below what quadratic work would."""

    def stop(_signal: int, _frame: Any) -> None:
        raise AssertionError(f"not finished after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "text",
    [
        "4" * 200_000,
        "4-" * 50_000,
        "4 " * 50_000,
        "4111 " * 40_000,
        "4111%20" * 30_000,
        "%20" * 70_000,
        "\\" * 200_000,
        "1." * 100_000,
        "." * 200_000,
        "cvv " * 50_000,
        "cvv" + " " * 200_000,
        'password="' * 20_000,
        'password=\\"' * 20_000,
        "://a" * 50_000,
        "bearer a" * 25_000,
        "AB12 " * 40_000,
        "4111111111111111^" * 12_000,
        f"{VISA} " * 12_000,
        "a1" * 100_000,
        "٤" * 100_000,
    ],
    ids=lambda text: f"{text[:12]!r}",
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    with at_most_seconds(20):
        redact(text)


def count_calls(text: str) -> int:
    """How many Python functions one pass enters: the measure of work that no slow machine disturbs."""
    calls = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(profile)
    try:
        redact(text)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("piece", ["4-", "4111 ", "4 1", f"{VISA} ", "cvv 123 "])
def test_twice_the_text_is_twice_the_work(piece: str) -> None:
    once, twice = count_calls(piece * 1000), count_calls(piece * 2000)
    assert twice <= 2.2 * once + 50


# --- data ---------------------------------------------------------------------------------------------------
def test_members_are_masked_by_name_and_by_content() -> None:
    data = {
        "card": {"number": VISA, "cvv": "123", "exp": "12/27", "pin": 1234},
        "api_key": "k",
        "apiKey": "k",
        "clientSecret": "s",
        "password": "p",
        "Authorization": "Bearer x",
        "access_token": "t",
        "track2_data": "x9",
        "note": f"customer said {VISA}",
        "raw": f"n={VISA}".encode(),
        "items": [int(VISA), ("a", VISA)],
    }
    masked = "411111******1111"
    assert redact_data(data) == {
        "card": {"number": masked, "cvv": REDACTED, "exp": "12/27", "pin": REDACTED},
        "api_key": REDACTED,
        "apiKey": REDACTED,
        "clientSecret": REDACTED,
        "password": REDACTED,
        "Authorization": REDACTED,
        "access_token": REDACTED,
        "track2_data": REDACTED,
        "note": f"customer said {masked}",
        "raw": f"n={masked}".encode(),
        "items": [masked, ("a", masked)],
    }


@pytest.mark.parametrize(
    "data",
    [
        {"shipping": 1234, "author": 1234, "postal": "10115", "postal_code": "10115"},
        {"cvc_check": "pass", "cvv": None, "cvv_result": "M", "cvc": "unchecked"},
        {"payment_method": "pm_card_visa", "token": "tok_visa", "client_id": "cli_01", "cid": "c-9"},
        {"number": "INV-2026-1", "card_number": "4242", "pan": None, "number_of_items": 3},
        {"tracking_number": "1234567890123456", "track_id": 12},
        {"authorization": 1999, "idempotency_key": "7c0f", "keyboard": "de", "compass": "n"},
        {"amount": 12950, "ratio": 0.5, "price": Decimal("19.99"), "ok": True, "none": None, "empty": ""},
        {"created": 1763649378123, "when": "2026-11-20T10:00:00Z"},
    ],
)
def test_innocent_members_are_left_alone(data: dict[str, Any]) -> None:
    assert redact_data(data) == data
    assert contains_card_data(data) is None


def test_the_input_is_not_changed() -> None:
    data = {"cvv": "123", "list": [VISA]}
    redact_data(data)
    assert data == {"cvv": "123", "list": [VISA]}


def test_a_number_under_a_card_name_is_masked_even_with_a_wrong_check_digit() -> None:
    assert redact_data({"card_number": "4111111111111112"}) == {"card_number": REDACTED}
    assert redact_data({"cvv": {"value": "123"}}) == {"cvv": {"value": REDACTED}}


def test_masked_json_is_still_json() -> None:
    text = json.dumps({"number": int(VISA), "cvv": 123, "note": f"a {VISA}", "api_key": "k", "n": 1})
    assert json.loads(redact(text)) == {
        "number": "411111******1111",
        "cvv": REDACTED,
        "note": "a 411111******1111",
        "api_key": REDACTED,
        "n": 1,
    }


def test_data_without_an_end_is_cut_off() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    assert REDACTED in json.dumps(redact_data(endless))
    assert contains_card_data(endless) is not None


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"card": {"number": VISA}}, "/card/number"),
        ({"card": {"cvc": "123"}}, "/card/cvc"),
        ({"lines": [{"sku": "a"}, {"sku": VISA}]}, "/lines/1/sku"),
        ({"metadata": {"a/b~c": f"x {VISA}"}}, "/metadata/a~1b~0c"),
        ({"n": int(VISA)}, "/n"),
        ({"note": "my cvv is 123"}, "/note"),
        ({"track2": ";411=2512?"}, "/track2"),
        ({"card_number": "4111 1111 1111 1112"}, "/card_number"),
        ({"a": {VISA: 1}}, "/a/411111******1111"),
        (VISA, ""),
    ],
)
def test_card_data_is_pointed_at_without_an_echo(body: Any, pointer: str) -> None:
    found = contains_card_data(body)
    assert found == pointer
    assert VISA not in str(found)


def test_a_token_only_order_holds_no_card_data() -> None:
    order = {
        "reference": "web-1001",
        "amount": 12950,
        "currency": "EUR",
        "payment_method": "pm_card_visa",
        "customer": {"id": "cus_42", "email": "buyer@example.com", "created_at": "2026-01-05T10:00:00Z"},
        "billing": {"country": "DE", "postal_code": "10115"},
        "context": {"ip": "198.51.100.7", "user_agent": "Mozilla/5.0", "device": "d_abc"},
    }
    assert contains_card_data(order) is None
    assert redact_data(order) == order


def test_redactions_are_counted_by_kind() -> None:
    before = redaction_counts()
    redact(f"{VISA} cvv=123 api_key=k")
    after = redaction_counts()
    assert {kind: after[kind] - before.get(kind, 0) for kind in ("pan", "sad", "secret")} == {
        "pan": 1,
        "sad": 1,
        "secret": 1,
    }


# --- logging ------------------------------------------------------------------------------------------------
@pytest.fixture(params=["filter", "formatter"])
def log(request: pytest.FixtureRequest) -> tuple[logging.Logger, StringIO]:
    """A logger whose handler is protected in one of the two ways."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    if request.param == "filter":
        handler.addFilter(PCIRedactionFilter())
    else:
        handler.setFormatter(RedactingFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger, stream


class Card:
    def __str__(self) -> str:
        return VISA

    __repr__ = __str__


class Broken:
    def __str__(self) -> str:
        raise ValueError(VISA)


@pytest.mark.parametrize("argument", [VISA, int(VISA), Card(), {"n": VISA}, [VISA], VISA.encode()])
def test_arguments_of_a_record_are_masked(log: tuple[logging.Logger, StringIO], argument: Any) -> None:
    log[0].warning("card %s", argument)
    assert "411111******1111" in log[1].getvalue()
    assert VISA not in log[1].getvalue()


def test_a_number_split_between_message_and_arguments_is_masked(log: tuple[logging.Logger, StringIO]) -> None:
    log[0].warning("card 4111 %s 1111 %s", "1111", 1111)
    assert log[1].getvalue() == "card 411111******1111\n"


def test_tracebacks_causes_and_stacks_are_masked(log: tuple[logging.Logger, StringIO]) -> None:
    try:
        try:
            raise ValueError(f"card {VISA}")
        except ValueError as error:
            raise RuntimeError(f"charge of {MASTERCARD}") from error
    except RuntimeError:
        log[0].exception("failed with %s", AMEX, stack_info=True)
    text = log[1].getvalue()
    assert "Traceback" in text
    assert "Stack (most recent call last)" in text
    assert "411111******1111" in text
    assert not [number for number in (VISA, MASTERCARD, AMEX) if number in text]


def test_a_record_that_cannot_be_formatted_is_not_printed_raw(
    log: tuple[logging.Logger, StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    log[0].warning(f"card {VISA} %s %s", "one")
    log[0].warning("card %s", Broken())
    assert "could not be formatted" in log[1].getvalue()
    assert VISA not in log[1].getvalue() + capsys.readouterr().err


def test_the_filter_masks_extra_fields_for_every_later_handler() -> None:
    record = logging.makeLogRecord({"msg": "x", "card": VISA, "cvv": "123", "data": {"api_key": "k"}})
    assert PCIRedactionFilter().filter(record)
    assert (record.card, record.cvv, record.data) == ("411111******1111", REDACTED, {"api_key": REDACTED})  # type: ignore[attr-defined]
