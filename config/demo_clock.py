"""Moves the seeder's clock into the past: Python's, the sandbox gateway's, and what the database has stamped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

import requests
import stripe
from django.conf import settings
from django.db import connection

from payments.gateways.base import ChargeRequest, ChargeResult
from payments.gateways.stripe import StripeGateway
from payments.gateways.stripe.client import API_BASE

with suppress(ModuleNotFoundError):  # of requirements/local.txt; production has none, and refuses to seed
    import time_machine

CUSTOMER_SECONDS = 15 * 60
REVIEW_SECONDS = 5 * 24 * 60 * 60
LONG_AGO = timedelta(days=4)  # a review of then would be overdue now, or soon

# A run's leases and diary carry the database's own clock, which nobody can move. So the demo, and only the
# demo, rewrites these stamps afterwards. The diary is append-only by trigger; replica mode passes the
# triggers, which takes a superuser. The embedded server's role is one, a production role must never be:
# there the history stays as it was written. Times alone are moved, never a fact or an amount. The function
# is a temporary one: it is gone with this connection.
_MOVE = """
CREATE OR REPLACE FUNCTION pg_temp.move_to_past(orders text[], webhooks text[], since timestamptz, shift interval)
RETURNS void LANGUAGE plpgsql SET session_replication_role = replica AS $$
DECLARE
    is_long_ago boolean := shift < '-4 days';
BEGIN
    UPDATE payments_sagarun SET updated_at = updated_at + shift,
        created_at = created_at + CASE WHEN created_at >= since THEN shift ELSE '0' END
    WHERE order_id = ANY (orders) AND updated_at >= since;
    UPDATE payments_sagaevent diary SET detail = jsonb_set(diary.detail, '{deadline}',
        to_jsonb(((diary.detail ->> 'deadline')::timestamptz + shift)::text))
    FROM payments_sagarun run WHERE run.id = diary.run_id AND run.order_id = ANY (orders) AND diary.at >= since
        AND diary.detail ? 'deadline' AND (diary.step = 'authorize' OR is_long_ago);
    UPDATE payments_sagaevent diary SET at = diary.at + shift
    FROM payments_sagarun run WHERE run.id = diary.run_id AND run.order_id = ANY (orders) AND diary.at >= since;
    UPDATE payments_sagaeffect effect SET
        intent_at = intent_at + CASE WHEN intent_at >= since THEN shift ELSE '0' END,
        outcome_at = outcome_at + CASE WHEN outcome_at >= since THEN shift ELSE '0' END
    FROM payments_sagarun run WHERE run.id = effect.run_id AND run.order_id = ANY (orders)
        AND (intent_at >= since OR outcome_at >= since);
    UPDATE payments_sagasignal signal SET
        created_at = signal.created_at + CASE WHEN signal.created_at >= since THEN shift ELSE '0' END,
        consumed_at = consumed_at + CASE WHEN consumed_at >= since THEN shift ELSE '0' END
    FROM payments_sagarun run WHERE run.id = signal.run_id AND run.order_id = ANY (orders)
        AND (signal.created_at >= since OR consumed_at >= since);
    UPDATE fraud_velocityevent SET at = at + shift WHERE order_id = ANY (orders) AND at >= since;
    UPDATE fraud_entitylink SET at = at + shift WHERE order_id = ANY (orders) AND at >= since;
    UPDATE payments_payment SET authorization_expires_at = authorization_expires_at + shift
    WHERE order_id = ANY (orders) AND is_long_ago AND authorization_expires_at > created_at + interval '8 days';
    UPDATE fraud_review SET expires_at = expires_at + shift
    WHERE order_id = ANY (orders) AND is_long_ago AND state <> 'open' AND expires_at > created_at + interval '8 days';
    UPDATE webhooks_inboundwebhook SET received_at = received_at + shift, processed_at = processed_at + shift
    WHERE id = ANY (webhooks) AND received_at >= since;
END $$
"""


# The rules that a new installation begins with are in force from its migration on: after the whole history.
_DATE_RULES = """
CREATE OR REPLACE FUNCTION pg_temp.date_first_rules(moment timestamptz) RETURNS void LANGUAGE plpgsql
SET session_replication_role = replica AS $$
BEGIN
    UPDATE fraud_ruleactivation SET starts_at = moment, created_at = moment
    WHERE created_by = 'installation' AND starts_at > moment;
    UPDATE fraud_ruleset SET created_at = moment, submitted_at = moment, published_at = moment
    WHERE published_by = 'installation' AND published_at > moment;
END $$
"""


@dataclass
class Scene:
    """What one act has touched: the orders and webhooks whose database times are to be moved."""

    orders: set[str] = field(default_factory=set)
    webhooks: set[str] = field(default_factory=set)


class PastClock:
    """Python's clock, put to a moment and running on from there; use it as a context manager."""

    def __init__(self, start: datetime) -> None:
        self._travel = time_machine.travel(start, tick=True)

    def __enter__(self) -> PastClock:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = off")  # a made-up day need not survive a power cut
            cursor.execute(_MOVE)
        self._traveller = self._travel.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._travel.stop()
        with connection.cursor() as cursor:
            cursor.execute("RESET synchronous_commit")

    @contextmanager
    def at(self, moment: datetime) -> Iterator[Scene]:
        """What happens inside happens at `moment`, by every clock, once it is over."""
        scene, began = Scene(), self._read_database_clock()
        self._traveller.move_to(moment)
        stretch_deadlines(began - moment)
        try:
            yield scene
        finally:
            self._move(scene, began, moment - began)

    def _read_database_clock(self) -> datetime:
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            now: datetime = cursor.fetchone()[0]
        return now

    def _move(self, scene: Scene, since: datetime, shift: timedelta) -> None:
        touched = [sorted(scene.orders), sorted(scene.webhooks)]
        seconds = shift.total_seconds()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_temp.move_to_past(%s, %s, %s, make_interval(secs => %s))",
                [*touched, since, seconds],
            )


def stretch_deadlines(age: timedelta) -> None:
    """What waits must wait until the real present: sweepers that run beside us go by the database's clock.

    Settings are those of an `override_settings` block.
    """
    settings.CUSTOMER_ACTION_SECONDS = CUSTOMER_SECONDS + int(age.total_seconds())
    PastStripeGateway.stretch = age if age > LONG_AGO else timedelta()
    settings.REVIEW_SECONDS = REVIEW_SECONDS + int(PastStripeGateway.stretch.total_seconds())


def date_first_rules(moment: datetime) -> None:
    """Let the rules of a new installation be older than its history."""
    with connection.cursor() as cursor:
        cursor.execute(_DATE_RULES)
        cursor.execute("SELECT pg_temp.date_first_rules(%s)", [moment])


def is_superuser() -> bool:
    """Whether the database's role may move what the database has stamped."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        return bool(cursor.fetchone()[0])


# --- the gateway's clock ------------------------------------------------------------------------------------


class PastSession(requests.Session):
    """Tells the sandbox, with each request, what time it is for us."""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        request.headers["X-Sandbox-Now"] = str(int(time.time()))
        return super().send(request, **kwargs)


class PastStripeGateway(StripeGateway):
    """The real adapter, over a session that names the time; the site beside it stays in the present."""

    stretch: ClassVar[timedelta] = timedelta()  # how much longer than it does an authorization seems to hold

    def __init__(self, api_key: str, *, api_base: str = API_BASE, timeout: float = 25.0) -> None:
        super().__init__(api_key, api_base=api_base, timeout=timeout)
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": self._api_base, "files": self._files_base},
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=self._timeout, session=PastSession()),
        )

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        result = super().authorize(request)
        return replace(result, expires_at=result.expires_at + self.stretch) if result.expires_at else result


class Bank:
    """The sandbox gateway as its operator sees it: what customers, other shops and faults do there."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = PastSession()
        self._session.headers["Authorization"] = f"Bearer {settings.STRIPE_API_KEY}"

    def control(self, path: str, **body: Any) -> dict[str, Any]:
        """POST to one of the sandbox's controls. Raises `requests.RequestException`."""
        return self._read(self._session.post(f"{self.url}/{path}", json=body, timeout=10))

    def post(self, path: str, **form: Any) -> dict[str, Any]:
        """POST to the gateway's own API, past our adapter: what others do with the account."""
        return self._read(self._session.post(f"{self.url}/v1/{path}", data=form, timeout=10))

    def list_events(self, *, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """At most the last hundred, oldest first."""
        window = {
            "created[gte]": int(since.timestamp()),
            "created[lte]": int(until.timestamp()),
            "limit": 100,
        }
        page = self._read(self._session.get(f"{self.url}/v1/events", params=window, timeout=10))
        events: list[dict[str, Any]] = page["data"]
        return events[::-1]

    def is_sandbox(self) -> bool:
        """Only the sandbox has faults to show."""
        try:
            return "faults" in self._read(self._session.get(f"{self.url}/_faults", timeout=10))
        except (requests.RequestException, ValueError):
            return False

    def _read(self, answer: requests.Response) -> dict[str, Any]:
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body
