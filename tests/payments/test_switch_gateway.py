"""The kill switch from a shell."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from payments.gateways.kill_switch import switch_board
from payments.models import GatewayAccount
from tests.factories.payments import GatewayAccountFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def account(db: None) -> Iterator[GatewayAccount]:
    yield GatewayAccountFactory(name="by-hand")
    switch_board().forget()


def switch(position: str, *, account: str = "stripe/by-hand") -> str:
    said = StringIO()
    call_command("switch_gateway", account, position, "--reason", "Doubled", "--by", "ann", stdout=said)
    return said.getvalue()


def test_it_is_thrown_and_undone(account: GatewayAccount) -> None:
    assert switch("off") == "stripe/by-hand takes no new payments from now on.\n"
    account.refresh_from_db()
    assert (account.switched_off_by, account.switched_off_reason) == ("user:ann", "Doubled")
    assert switch("on") == "stripe/by-hand takes new payments from now on.\n"
    account.refresh_from_db()
    assert account.switched_off_at is None


def test_what_is_done_is_not_done_again(account: GatewayAccount) -> None:
    with pytest.raises(CommandError, match="takes new payments already; nothing was changed"):
        switch("on")
    switch("off")
    with pytest.raises(CommandError, match="was switched off before; nothing was changed"):
        switch("off")


def test_an_unknown_account_is_named_beside_the_known(account: GatewayAccount) -> None:
    with pytest.raises(CommandError, match=r"no gateway account stripe/nope, only .*stripe/by-hand"):
        switch("off", account="stripe/nope")
