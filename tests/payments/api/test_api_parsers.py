"""What counts as a body."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError

from payments.api.parsers import MAX_BODY_BYTES, MAX_DEPTH, MAX_NAMES, parse_body
from payments.models import IdempotencyKey, Order
from tests.storefront import Storefront, assert_problem


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"nonsense",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": 1234567890123456789}',
        b'{"a": -1234567890123456789}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\\u0000"}',
        b'{"\\u0000": 1}',
        b'{"a": ["\\ud800"]}',
        b"[" * 60_000,
        b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        json.dumps({str(number): 0 for number in range(MAX_NAMES + 1)}).encode(),
        json.dumps([{"a": 0}] * (MAX_NAMES + 1)).encode(),
    ],
)
def test_a_strange_body_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse_body(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 123456789012345678}', {"a": 123456789012345678}),
        (b'{"a": -1, "b": [1.5, null, true]}', {"a": -1, "b": [1.5, None, True]}),
        ('{"a": "\\ud83d\\ude00 é"}'.encode(), {"a": "😀 é"}),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
    ],
)
def test_an_ordinary_body_is_read(body: bytes, value: Any) -> None:
    assert parse_body(body) == value


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_parse_error(body: bytes) -> None:
    with contextlib.suppress(ParseError):
        parse_body(body)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**17), 10**17)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=20,
    )
)
def test_a_value_comes_back_as_it_was_or_is_refused_for_its_nul(value: Any) -> None:
    body = json.dumps(value).encode()
    if b"\\u0000" in body or "\\ud" in body.decode():
        return
    assert parse_body(body) == value


def test_a_refused_body_says_why_and_keeps_nothing(shop: Storefront) -> None:
    problem = assert_problem(shop.post("orders", raw=b'{"amount": 1, "amount": 2}'), 400, "invalid_json")
    assert "twice" in problem["detail"]
    assert not Order.objects.exists()
    assert not IdempotencyKey.objects.exists()


def test_a_large_body_is_refused_by_its_length(shop: Storefront) -> None:
    assert_problem(shop.post("orders", raw=b" " * (MAX_BODY_BYTES + 1)), 413, "body_too_large")


def test_a_body_of_the_largest_size_is_read(shop: Storefront) -> None:
    assert_problem(shop.post("orders", raw=b"{}".ljust(MAX_BODY_BYTES)), 400, "invalid_request")


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_type": "application/json; charset=latin-1"},
        {"content_encoding": "gzip"},
    ],
)
def test_only_plain_utf8_json_is_understood(shop: Storefront, headers: dict[str, str]) -> None:
    assert_problem(shop.post("orders", raw=b"{}", **headers), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", 'application/json; charset="UTF-8"']
)
def test_utf8_may_be_named(shop: Storefront, content_type: str) -> None:
    assert_problem(shop.post("orders", raw=b"{}", content_type=content_type), 400, "invalid_request")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"metadata": {"note": "pay with 4242 4242 4242 4242"}}, "/metadata/note"),
        ({"card": {"number": "4242424242424242"}}, "/card/number"),
        ({"payment_method": "4242424242424242"}, "/payment_method"),
        ({"card": {"cvv": "123"}}, "/card/cvv"),
        ({"lines": [{"sku": "A"}, {"sku": "5555555555554444"}]}, "/lines/1/sku"),
    ],
)
def test_card_data_is_refused_without_echo(shop: Storefront, body: Any, pointer: str) -> None:
    response = shop.post("orders", body)
    problem = assert_problem(response, 422, "card_data_refused")
    assert problem["errors"][0]["pointer"] == pointer
    for digits in (b"4242", b"5555", b'"123"'):
        assert digits not in response.content
    assert not IdempotencyKey.objects.exists()
