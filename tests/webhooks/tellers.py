"""The three gateways' stand-ins, each with an account here that is told what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from payments.gateways import load_adapter
from payments.models import GatewayAccount
from payments.sagas import effects
from payments.sandbox.server import Running
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory, GatewaySecretFactory
from tests.fakes import ScriptedScreener
from tests.payments.gateways import test_braintree_contract as braintree
from tests.payments.gateways.test_whole_payments import ROWS, STAND_INS
from tests.payments.gateways.test_whole_payments import WORLDS as SILENT_WORLDS
from tests.payments.gateways.test_whole_payments import kind as kind
from tests.webhooks.orders import KEYS, HeldGateway, Teller


class TellingBraintree(braintree.BraintreeWorld):
    """Keeps the signed forms of what it tells."""

    def __init__(self, running: Running) -> None:
        super().__init__(running)
        self.forms: list[dict[str, str]] = []

    def tell(self, kind: str, **subject: str) -> None:
        form = self._post("/_notify", {"kind": kind, **subject})
        self.forms.append({name: form[name] for name in ("bt_signature", "bt_payload")})

    def _tell(self, kind: str, dispute: str) -> None:
        self.tell(kind, dispute=dispute)


WORLDS: Mapping[str, Any] = SILENT_WORLDS | {"braintree": TellingBraintree}


@pytest.fixture
def teller(
    kind: str, screener: ScriptedScreener, db: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Teller]:
    GatewayAccount.objects.update(is_active=False)
    with ExitStack() as stack:
        world = WORLDS[kind](stack.enter_context(STAND_INS[kind]()))
        account = GatewayAccountFactory(gateway=kind, name="told", api_base=world.url, **ROWS[kind])
        GatewaySecretFactory(account=account, value=KEYS[kind])
        if kind == "adyen":
            world.post("/_webhooks", {"url": None, "secret": KEYS[kind]})
        gateway = HeldGateway(load_adapter(kind).from_account(account.credentials()))
        monkeypatch.setattr(effects, "get_gateway", lambda _: gateway)
        yield Teller(account, world, ApiClientFactory(), gateway)
