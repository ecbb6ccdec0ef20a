"""Every operation of the schema has a curl, and it works as it stands."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from pytest_django.live_server_helper import LiveServer

from payments.gateways.base import Capabilities, DisputeFact, EvidenceRequest
from payments.kinds import DisputeStage, DisputeState
from payments.models import Dispute, GatewayAccount, Order, Payment
from payments.services import disputes
from tests.factories import ApiKeyFactory
from tests.factories.customers import OpenDisputeFactory
from tests.fakes import FakeGateway, ScriptedScreener
from tests.storefront import ORDER, Storefront

Names = dict[str, str]


class AnsweringGateway:
    """Knows every dispute, and takes whatever it is sent."""

    capabilities = Capabilities(dispute_evidence=True)

    def submit_evidence(self, request: EvidenceRequest) -> DisputeFact:
        return self.decide(request.reference, DisputeState.UNDER_REVIEW)

    def accept_dispute(self, reference: str, *, key: str) -> DisputeFact:
        return self.decide(reference, DisputeState.ACCEPTED)

    def decide(self, reference: str, state: DisputeState) -> DisputeFact:
        found = Dispute.objects.get(gateway_reference=reference)
        return DisputeFact(
            reference=reference,
            payment_reference="",
            stage=DisputeStage(found.stage),
            state=state,
            amount=found.money,
            source="answer",
        )


def place(shop: Storefront, **members: Any) -> Names:
    """The ids that a sample may name: of an order placed so, and of what belongs to it."""
    answer = shop.post("orders", ORDER | {"reference": "sample"} | members).json()
    order = Order.objects.get(pk=answer.get("order") or answer["id"])
    names = {"ORDER": order.pk, "PAYMENT": order.payment.pk}
    refund = shop.post(f"orders/{order.pk}/refunds", {"amount": 1})
    return names | ({"REFUND": refund.json()["id"]} if refund.status_code == 201 else {})


def dispute(shop: Storefront) -> Names:
    """A chargeback of a paid order, with a receipt against it."""
    names = place(shop)
    made = OpenDisputeFactory.create(payment=Payment.objects.get(pk=names["PAYMENT"]))
    shop.post(f"disputes/{made.pk}/evidence", {"kind": "receipt", "text": "Paid on the 1st."})
    return names | {"DISPUTE": made.pk, "KIND": "receipt"}


# What must be there before the sample of an operation; the others want nothing special.
BEFORE: dict[str, Callable[[Storefront], Names]] = {
    "order_confirm": lambda shop: place(shop, payment_method="pm_card_chargeDeclined"),
    "order_capture": lambda shop: place(shop, capture="manual"),
    "order_cancel": lambda shop: place(shop, capture="manual"),
    "dispute_retrieve": dispute,
    "dispute_add_evidence": dispute,
    "dispute_remove_evidence": dispute,
    "dispute_submit": dispute,
    "dispute_accept": dispute,
}


def list_samples() -> dict[str, Any]:
    """Of what this package serves; other resources have their own tests."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    return {
        operation["operationId"]: operation
        for methods in schema["paths"].values()
        for operation in methods.values()
        if operation["tags"][0] in ("orders", "payments", "refunds", "events", "disputes", "oauth")
    }


@pytest.mark.django_db(transaction=True)
def test_the_sample_of_every_operation_works(
    live_server: LiveServer,
    account: GatewayAccount,
    gateway: FakeGateway,
    screener: ScriptedScreener,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disputes, "get_gateway", lambda account: AnsweringGateway())
    samples = list_samples()
    assert set(BEFORE) < set(samples)
    for name, operation in samples.items():
        [sample] = operation["x-codeSamples"]
        assert sample["source"] in operation["description"], name
        key: Any = ApiKeyFactory.create()
        names = BEFORE.get(name, place)(Storefront(key)) | {"SHOP": live_server.url, "KEY": key.secret}
        answer = run(sample["source"], names)
        assert answer.returncode == 0, (name, answer.stdout + answer.stderr)
        assert "204" in operation["responses"] or json.loads(answer.stdout), name


def run(source: str, names: Names) -> subprocess.CompletedProcess[str]:
    loud = 'curl() { command curl -sS --fail-with-body "$@"; }\n'
    shell = ["bash", "-euo", "pipefail", "-c", loud + source]
    return subprocess.run(
        shell, env=os.environ | names, capture_output=True, text=True, timeout=60, check=False
    )
