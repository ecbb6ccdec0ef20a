"""Schemathesis against a live server with a real gateway behind it: what the schema says is what happens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django.live_server_helper import LiveServer

from fraud.lists import add_to_list
from fraud.models import ListEntry
from payments.models import DisputeEvidence, Event, Payment
from payments.sandbox import Sandbox, start
from tests.factories import ApiKeyFactory
from tests.factories.customers import OpenDisputeFactory
from tests.factories.fraud import AssessmentFactory, HeldPaymentFactory, ReviewFactory
from tests.factories.webhooks import DeliveryFactory, EndpointFactory
from tests.storefront import ORDER, Storefront
from webhooks.models import Endpoint

# What a schema cannot say is not checked: a body that it allows may still be refused (lines that do not add up),
# and a key sent twice is answered from its memory. What is too long may be refused for that alone (413).
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,negative_data_rejection,missing_required_header,unsupported_method,"
    "ignored_auth"
)


@pytest.fixture
def sandbox(settings: Any, tmp_path: Path) -> Iterator[Sandbox]:
    with start() as gateway:
        settings.STRIPE_API_BASE = gateway.url
        settings.STRIPE_API_KEY = "sk_test_sandbox"
        settings.API_RATE_LIMIT = "100000/second"
        settings.MEDIA_ROOT = str(tmp_path)
        yield gateway


def place(shop: Storefront, reference: str, **members: Any) -> Any:
    return shop.post("orders", ORDER | {"reference": reference} | members).json()


@pytest.mark.django_db(transaction=True)
def test_every_operation_answers_as_its_schema_says(
    live_server: LiveServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    key: Any = ApiKeyFactory.create()
    shop = Storefront(key)
    paid, held = place(shop, "paid"), place(shop, "held", capture="manual")["id"]
    refund = shop.post(f"orders/{paid['id']}/refunds", {"amount": 100}).json()["id"]
    disputed = OpenDisputeFactory.create(payment=Payment.objects.get(order=paid["id"])).pk
    delivery = DeliveryFactory.create(
        endpoint=EndpointFactory.create(client=key.client),
        event=Event.objects.filter(type="order.paid").first(),
    )
    held_payment = HeldPaymentFactory.create(order__client=key.client)
    review = ReviewFactory.create(assessment=AssessmentFactory.create(payment=held_payment))
    entry, ended = (
        add_to_list("block", "device", device, reason="fuzzed", client=key.client).public_id
        for device in ("d_1", "d_2")
    )
    # What stops or removes one has others, or the rest would find it gone.
    spare, doomed = (EndpointFactory.create(client=key.client).pk for _ in range(2))
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f"""
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 429, "5xx"]
[phases.coverage]
unexpected-methods = ["DELETE", "TRACE"]
[[operations]]
include-path-regex = "/orders/.+(capture|confirm|cancel)"
parameters = {{ "path.id" = "{held}" }}
[[operations]]
include-path-regex = "/orders/[{{]id[}}](/refunds)?$"
parameters = {{ "path.id" = "{paid["id"]}" }}
[[operations]]
include-path-regex = "/payments/"
parameters = {{ "path.id" = "{paid["payment"]["id"]}" }}
[[operations]]
include-path-regex = "/refunds/[{{]"
parameters = {{ "path.id" = "{refund}" }}
[[operations]]
include-path-regex = "/disputes/[{{]"
parameters = {{ "path.id" = "{disputed}" }}
[[operations]]
include-path-regex = "/webhook_endpoints/[{{]id[}}]/(test|rotate|recover|replay_missing|deliveries)"
parameters = {{ "path.id" = "{delivery.endpoint_id}", "path.delivery_id" = "{delivery.pk}" }}
[[operations]]
include-path-regex = "/webhook_endpoints/[{{]id[}}](/enable|/disable)?$"
exclude-method = "DELETE"
parameters = {{ "path.id" = "{spare}" }}
[[operations]]
include-path-regex = "/webhook_endpoints/[{{]id[}}]$"
include-method = "DELETE"
parameters = {{ "path.id" = "{doomed}" }}
[[operations]]
include-path-regex = "/reviews/[{{]"
parameters = {{ "path.id" = "{review.pk}" }}
[[operations]]
include-path-regex = "/assessments/[{{]"
parameters = {{ "path.id" = "{review.assessment_id}" }}
[[operations]]
include-path-regex = "/lists/entries/[{{]"
exclude-method = "DELETE"
parameters = {{ "path.id" = "{entry}" }}
[[operations]]
include-path-regex = "/lists/entries/[{{]"
include-method = "DELETE"
parameters = {{ "path.id" = "{ended}" }}
[[operations]]
include-path-regex = "/event_types/[{{]"
parameters = {{ "path.name" = "order.paid" }}
"""
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
            *("run", f"{live_server.url}/api/schema/", "--url", live_server.url),
            *("--header", f"Authorization: Bearer {key.secret}", "--checks", CHECKS),
            *(
                "--phases",
                "examples,coverage,fuzzing",
                "--max-examples",
                os.environ.get("FUZZ_EXAMPLES", "4"),
            ),
            *("--generation-deterministic", "--suppress-health-check", "all"),
            *("--continue-on-failure", "--no-color", "--warnings", "off", "--request-timeout", "120"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert Event.objects.filter(type="refund.created").count() > 1, "it went through to the domain"
    assert DisputeEvidence.objects.exists(), "texts and files were kept"
    assert Endpoint.objects.filter(client=key.client).count() > 2, "endpoints were made"
    assert delivery.endpoint.deliveries.filter(event__isnull=True).exists(), "tests were sent"
    assert ListEntry.objects.filter(client=key.client).count() > 2, "values were listed"
