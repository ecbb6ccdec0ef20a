"""What the view says to a gateway, and whom it takes for the sender."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import RequestFactory

from payments.models import GatewayAccount
from tests.factories.webhooks import encode, make_event
from webhooks import views


def test_an_acceptance_says_its_length_so_that_it_is_not_sent_in_chunks(
    account: GatewayAccount, deliver: Callable[..., Any]
) -> None:
    answer = deliver(encode(make_event()))
    assert answer.headers["Content-Length"] == str(len(answer.content))


@pytest.mark.parametrize(
    ("address", "expected"),
    [("192.0.2.1", "192.0.2.1"), (" 2001:DB8:0::1", "2001:db8::1"), ("unix:", ""), ("", "")],
)
def test_the_senders_address_is_read_in_one_form(address: str, expected: str) -> None:
    assert views._read_ip(RequestFactory(REMOTE_ADDR=address).post("/")) == expected
