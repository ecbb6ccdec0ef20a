"""Child of the checkout benchmark: our engine with four outside steps, and the whole checkout of an order."""

from __future__ import annotations

import itertools
import json
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, connections, transaction  # noqa: E402

from benchmarks.measure import in_threads  # noqa: E402
from payments import services  # noqa: E402
from payments.gateways.base import CardDetails, ChargeResult, ChargeStatus  # noqa: E402
from payments.models import ApiClient, GatewayAccount  # noqa: E402
from payments.money import Money  # noqa: E402
from payments.sagas import checkout, effects, engine  # noqa: E402
from payments.sagas.recipe import Context, Done, EffectRow, Recipe, step  # noqa: E402
from payments.screening import Decision, Screening  # noqa: E402


class Outside:
    """An outside step that answers at once: its intent and its outcome are committed all the same."""

    def intend(self, context: Context) -> EffectRow:
        return EffectRow(context.step, "do", gateway_key=f"{context.run_id}:{context.step}")

    def call(self, context: Context) -> str:
        return "done"

    def ask(self, context: Context) -> str:
        return "done"

    def record(self, context: Context, answer: str) -> Done:
        return Done()


FOUR_STEPS = Recipe(
    kind="bench",
    version=1,
    steps=[step(name, do=Outside()) for name in ("reserve", "authorize", "capture", "notify")],
    completed=lambda context: None,
    compensated=lambda context, cause: None,
)
ORDER = {"id": "o-1", "amount": 4200, "currency": "usd", "customer": "cus_123", "note": "c" * 200}


def run_four_steps() -> None:
    with transaction.atomic():
        runner = engine.start_run(FOUR_STEPS, subject=uuid.uuid4().hex, order=None, payment=None, data=ORDER)
    runner.drive()
    assert runner.run.state == "COMPLETED"


class InstantGateway:
    def authorize(self, request):
        card = CardDetails(
            brand="visa", last4="4242", country="DE", fingerprint=request.operation_id, avs="pass"
        )
        expires = datetime.now(UTC) + timedelta(days=7)
        return ChargeResult(
            ChargeStatus.AUTHORIZED,
            f"pi_{request.operation_id}",
            request.amount,
            card=card,
            expires_at=expires,
        )

    def capture(self, request):
        return ChargeResult(ChargeStatus.CAPTURED, request.reference, request.amount)


class Approve:
    def screen(self, order, payment, *, stage):
        return Screening(stage, Decision.APPROVE)

    def record(self, order, payment, screening):
        """Nothing to keep."""


def prepare_orders():
    gateway, screener = InstantGateway(), Approve()
    effects.get_gateway = lambda account: gateway
    checkout.get_screener = lambda: screener
    client = ApiClient.objects.create(name=uuid.uuid4().hex)
    GatewayAccount.objects.update(is_active=True)
    numbers = itertools.count()

    def place() -> None:
        draft = services.OrderDraft(
            reference=f"bench-{next(numbers)}",
            amount=Money(4200, "USD"),
            payment_method="pm_card_visa",
            lines=[{"sku": "MUG-1", "quantity": 1, "unit_amount": 4200}],
            shipping={"country": "DE"},
        )
        assert services.place_order(client, draft).state == "paid"

    return place


def main(count: int) -> None:
    if not connection.introspection.table_names():
        call_command("migrate", verbosity=0)
    place = prepare_orders()
    for work in (run_four_steps, place):
        in_threads(work, threads=1, count=30, done=connections.close_all)
    print(
        json.dumps(
            {
                f"{name}, {threads} thread{'s' * (threads > 1)}": in_threads(
                    work, threads=threads, count=count, done=connections.close_all
                )
                for name, work in (
                    ("our engine, four outside steps", run_four_steps),
                    ("our whole checkout", place),
                )
                for threads in (1, 8)
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
