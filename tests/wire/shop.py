"""The floor wired to a real sandbox by the real adapter: the sandbox's books are the judge, not ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import requests

from payments import services
from payments.errors import ConflictError, GatewayTimeoutError
from payments.gateways.base import Fact, PaymentGateway
from payments.models import ApiClient, GatewayAccount, Operation, Order, Payment, SagaRun
from payments.models.order import DEAD_STATES
from payments.models.payment import FINAL_OPERATION_STATES
from payments.models.saga import TERMINAL_STATES
from payments.money import Money
from payments.proof import prove_ledger
from payments.sandbox import Sandbox
from tests.payments.gateway_faults import expire_leases, make_questions_due

PATIENCE = 60.0  # seconds: what a call that is answered may take, however busy the machine is
HASTE = 0.6  # half of it to read: what is waited for an answer that never comes
SETTLED_WITHIN_SECONDS = 10.0  # after the caller gave up
MOVES = ("authorize", "capture", "void", "refund")
ROUNDS = 40  # of sweeps and questions, before a story that has not ended is a defect


class ProcessDiedError(BaseException):
    """The process is gone: nobody catches it, nothing more is written."""


class MortalGateway:
    """Hands every call on; where `deaths` names the kind, the process dies `before` the call or `after` it.

    While the sandbox is told to leave a call unanswered, moves go by an adapter that gives up soon.
    """

    def __init__(self, sandbox: Sandbox, connect: Callable[..., PaymentGateway]) -> None:
        self._sandbox = sandbox
        self._patient, self._hasty = connect(timeout=PATIENCE), connect(timeout=HASTE)
        self.capabilities = self._patient.capabilities
        self.deaths: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in MOVES:
            return getattr(self._patient, name)

        def call_or_die(request: Any) -> Any:
            moment = self.deaths.pop(name, "")
            if moment == "before":
                die(name)
            try:
                return self._move(name, request)
            finally:
                if moment == "after":
                    die(name)

        return call_or_die

    def _move(self, name: str, request: Any) -> Any:
        planned = self._sandbox.gateway.faults.show()
        if not any(fault["fault"].startswith("timeout") for fault in planned):
            return getattr(self._patient, name)(request)
        server = self._sandbox.server
        silences = server.silences
        try:
            return getattr(self._hasty, name)(request)
        except GatewayTimeoutError:  # what it does, it has done before anybody asks what became of it
            server.await_silence(silences + 1, seconds=SETTLED_WITHIN_SECONDS)
            raise


def die(where: str) -> NoReturn:
    raise ProcessDiedError(where)


@dataclass
class WiredShop:
    """One account at one sandbox, and what a storefront, a sweeper and a schedule do with it."""

    sandbox: Sandbox
    gateway: MortalGateway
    account: GatewayAccount
    client: ApiClient
    placed: int = 0
    rounds: int = 0
    http: requests.Session = field(default_factory=requests.Session)

    def place(self, money: Money, *, capture: str) -> Order:
        """An order that nobody has driven yet."""
        self.placed += 1
        draft = services.OrderDraft(
            reference=f"wire-{self.placed}",
            amount=money,
            payment_method="pm_card_de",
            capture=capture,
            shipping={"country": "DE"},
        )
        return services.place_order(self.client, draft, drive=False)

    def insist(self, order: Order, act: Callable[[], object]) -> None:
        """What is refused while something is in doubt is asked for again; what is refused at rest is refused."""
        for _ in range(ROUNDS):
            try:
                act()
            except ProcessDiedError:
                return  # what it had begun goes on without it
            except ConflictError:
                if self.is_at_rest(order):
                    return
                self.pass_time()
            else:
                return

    # --- the sandbox ----------------------------------------------------------------------------------------

    def control(self, method: str, path: str, **arguments: Any) -> Any:
        response = self.http.request(method, self.sandbox.url + path, timeout=PATIENCE, **arguments)
        assert response.status_code == 200, response.text
        return response.json()

    def break_calls(self, operation: str, fault: str, *, times: int) -> None:
        self.control("POST", "/_faults", json={"operation": operation, "fault": fault, "times": times})

    def repair(self) -> None:
        self.control("DELETE", "/_faults")
        self.gateway.deaths.clear()

    def call(self, path: str, **data: object) -> Any:
        """The gateway's API, as somebody in its dashboard would use it."""
        return self.control("POST", f"/v1/{path}", data=data, auth=("sk_test_dashboard", ""))

    def events(self) -> list[dict[str, Any]]:
        """All that the sandbox has told, oldest first."""
        page = self.control("GET", "/v1/events?limit=100", auth=("sk_test_dashboard", ""))
        return list(reversed(page["data"]))

    def read(self, event: dict[str, Any]) -> Iterable[Fact]:
        return self.gateway.read_event(event)  # type: ignore[no-any-return]

    def intents(self, order: Order) -> list[dict[str, Any]]:
        books = self.control("GET", "/_books", params={"metadata[order_id]": order.pk})
        return list(books["payment_intents"].values())

    # --- time -----------------------------------------------------------------------------------------------

    def pass_time(self) -> None:
        """Every lease has ended and every saga is due, every other time every question too."""
        expire_leases()
        with suppress(ProcessDiedError):
            services.sweep_sagas()
        self.rounds += 1
        if self.rounds % 2:
            return
        make_questions_due()
        services.ask_due_operations()

    def come_to_rest(self, order: Order) -> None:
        for _ in range(ROUNDS):
            if self.is_at_rest(order):
                return
            self.pass_time()
        runs = list(order.sagas.values_list("kind", "state", "step", "last_error"))
        operations = list(
            Operation.objects.filter(payment__order=order).values_list("kind", "state", "error")
        )
        raise AssertionError(f"no end of {order.pk}: {runs} {operations}")

    def is_at_rest(self, order: Order) -> bool:
        moving = SagaRun.objects.filter(order=order).exclude(state__in=TERMINAL_STATES)
        operations = Operation.objects.filter(payment__order=order)
        return not (moving.exists() or operations.exclude(state__in=FINAL_OPERATION_STATES).exists())

    # --- the judge ------------------------------------------------------------------------------------------

    def judge(self, order: Order) -> None:
        """Nothing twice, nothing lost, nothing held for nobody; every movement is an operation, and the reverse."""
        intents = self.intents(order)
        payment = Payment.objects.select_related("order").get(order=order)
        theirs = Counter(
            (move["idempotency_key"], move["operation"], move["amount"])
            for intent in intents
            for move in intent["movements"]
            if move["operation"] != "create"
        )
        done = payment.operations.filter(state="succeeded").exclude(source="external")
        words = {"void": "cancel"}
        ours = Counter((each.gateway_key, words.get(each.kind, each.kind), each.amount) for each in done)
        assert theirs == ours, f"{order.pk}: the gateway did {theirs - ours}, we believe {ours - theirs}"
        assert max(theirs.values(), default=1) == 1
        totals = (payment.captured, payment.refunded, payment.refund_pending)
        assert totals == (count(intents, "captured"), count(intents, "refunded"), 0)
        held = [intent["id"] for intent in intents if intent["status"] == "requires_capture"]
        assert held == ([payment.gateway_reference] if payment.capturable else []), "an orphan hold"
        if payment.order.state in DEAD_STATES:
            assert (payment.capturable, payment.net) == (0, 0), "a dead order keeps money"
        assert prove_ledger() == []


def count(intents: Iterable[dict[str, Any]], name: str) -> int:
    return sum(intent[name] for intent in intents)
