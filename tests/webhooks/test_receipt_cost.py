"""What a receipt costs the database: at most three statements, and one transaction that writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from django.test import Client

from payments.models import GatewayAccount
from tests.factories.webhooks import encode, make_event, sign
from webhooks.models import InboundSource, InboundWebhook

pytestmark = pytest.mark.django_db(transaction=True)

Deliver = Callable[..., Any]
BODY = encode(make_event())
REWRITTEN = encode(make_event(pending_webhooks=0))
OTHER = encode(make_event(data={"object": {"object": "payment_intent", "id": "pi_other"}}))


@dataclass
class Bill:
    """Statements sent, and transactions that had something to commit; counted below Django, which misses some."""

    statements: list[str] = field(default_factory=list)
    commits: int = 0


@pytest.fixture
def bill(account: GatewayAccount, monkeypatch: pytest.MonkeyPatch) -> Bill:
    bill, execute = Bill(), psycopg.Cursor.execute

    def run_alone(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        assert self.connection.autocommit, "each statement commits by itself"
        bill.statements.append(str(query))
        with self.connection.transaction():
            done = execute(self, query, *args, **kwargs)
            asked = psycopg.Cursor(self.connection)
            execute(asked, "SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
            bill.commits += asked.fetchone()[0]  # type: ignore[index]
        return done

    client = Client()
    first = encode(make_event("evt_first"))
    client.post(
        "/webhooks/stripe/main/", first, "application/json", headers={"Stripe-Signature": sign(first)}
    )
    monkeypatch.setattr(psycopg.Cursor, "execute", run_alone)
    return bill


def receive(deliver: Deliver, bill: Bill, body: bytes, **kwargs: Any) -> tuple[int, int, int]:
    """The answer's status, the statements and the commits of one delivery."""
    bill.statements.clear()
    bill.commits = 0
    status = deliver(body, **kwargs).status_code
    return status, len(bill.statements), bill.commits


def test_what_is_new_costs_one_statement_and_one_commit(bill: Bill, deliver: Deliver) -> None:
    assert receive(deliver, bill, BODY) == (200, 1, 1)


def test_a_duplicate_costs_two_statements_and_one_commit(bill: Bill, deliver: Deliver) -> None:
    deliver(BODY)
    assert receive(deliver, bill, BODY) == (200, 2, 1)


def test_a_rewritten_redelivery_costs_three_statements_and_one_commit(bill: Bill, deliver: Deliver) -> None:
    deliver(BODY)
    assert receive(deliver, bill, REWRITTEN) == (200, 3, 1)


def test_a_conflict_costs_three_statements_and_one_commit(bill: Bill, deliver: Deliver) -> None:
    deliver(BODY)
    assert receive(deliver, bill, OTHER) == (200, 3, 1)
    assert receive(deliver, bill, OTHER) == (200, 3, 1)


def test_a_forgery_costs_a_look_at_the_secrets_and_a_count(bill: Bill, deliver: Deliver) -> None:
    forged = sign(BODY, secret="whsec_wrong")
    assert receive(deliver, bill, BODY, signature=forged) == (400, 2, 1)


def test_an_event_of_the_gateways_list_is_matched_in_three(bill: Bill, deliver: Deliver) -> None:
    deliver(BODY)
    InboundWebhook.objects.update(source=InboundSource.GATEWAY_LIST)
    assert receive(deliver, bill, OTHER) == (200, 3, 1)
