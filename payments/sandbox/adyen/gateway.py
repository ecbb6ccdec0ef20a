"""Answer a request as Adyen does: authenticate, claim the key, meet the fault, act in one transaction, reply."""

import re
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from payments.sandbox.books import Books, Session
from payments.sandbox.faults import Fault, FaultPlan
from payments.sandbox.gateway import HTML, SILENT, Response, json_response
from payments.sandbox.wire import ApiError, Request, invalid

from . import changes, control, disputes, pages, payments, reports
from .notifications import Deliverer
from .wire import AdyenError, Doc, refuse

KEY_PREFIX = "AQE"
Handler = Callable[[Session, Request, str], Doc]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: the status of its success, and what a fault calls it."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    operation: str
    status: int = 200


def route(path: str, handler: Handler, operation: str, *, method: str = "POST", status: int = 200) -> Route:
    return Route(method, re.compile(path.replace("{id}", "([A-Za-z0-9]+)")), handler, operation, status)


def delete_token(session: Session, request: Request, identity: str) -> Doc:
    payments.check_account(request.params)
    payments.delete_token(session, identity, str(request.params.get("shopperReference") or ""))
    return {}


V = "/checkout/v72"
D = "/ca/services/DisputeService/v30"
ROUTES = (
    route(f"{V}/payments", lambda s, r, _: payments.create_payment(s, r.params, r.base_url), "authorize"),
    route(f"{V}/payments/details", lambda s, r, _: payments.submit_details(s, r.params), "authorize"),
    route(f"{V}/payments/{{id}}/captures", lambda s, r, i: changes.capture(s, r.params, i), "capture", status=201),
    route(f"{V}/payments/{{id}}/cancels", lambda s, r, i: changes.cancel(s, r.params, i), "cancel", status=201),
    route(f"{V}/payments/{{id}}/refunds", lambda s, r, i: changes.refund(s, r.params, i), "refund", status=201),
    route(f"{V}/cancels", lambda s, r, _: changes.cancel_by_own_reference(s, r.params), "cancel", status=201),
    route(f"{V}/storedPaymentMethods/{{id}}", delete_token, "any", method="DELETE", status=204),
    route(f"{D}/retrieveApplicableDefenseReasons", lambda s, r, _: disputes.list_defenses(s, r.params), "retrieve"),
    route(f"{D}/supplyDefenseDocument", lambda s, r, _: disputes.supply_documents(s, r.params), "any"),
    route(f"{D}/defendDispute", lambda s, r, _: disputes.defend(s, r.params), "any"),
    route(f"{D}/acceptDispute", lambda s, r, _: disputes.accept(s, r.params), "any"),
)  # fmt: skip


class Gateway:
    """One stand-in with its books, its faults and its webhooks."""

    def __init__(self, directory: Path) -> None:
        self.books = Books(directory)
        self.faults = FaultPlan()
        self.deliverer = Deliverer(self.books)
        self._in_flight: set[str] = set()
        self._lock = threading.Lock()
        with self.books.session() as session:
            self.faults.load(session)

    def close(self) -> None:
        self.deliverer.stop()
        self.books.close()

    def handle(self, request: Request) -> Response:
        """Never raises: whatever goes wrong is an answer in Adyen's shape."""
        try:
            return self._route(request)
        except ApiError as error:
            return json_response(error.status, error.body)
        except Exception:  # A mistake of ours: say so on the console, and answer as a broken gateway does.
            traceback.print_exc()
            return json_response(500, server_error().body)

    def _route(self, request: Request) -> Response:
        if request.path.startswith("/3ds/"):
            return self._show_challenge(request)
        if request.path.startswith("/_"):
            return self._control(request)
        if not request.headers.get("x-api-key", "").startswith(KEY_PREFIX):
            raise AdyenError(401, "000", "HTTP Status Response - Unauthorized", "security")
        if request.path.startswith("/reports/"):
            return self._download(request)
        for candidate in ROUTES:
            match = candidate.pattern.fullmatch(request.path)
            if match and candidate.method == request.method:
                return self._answer_once(request, candidate, match[1] if match.groups() else "")
        raise refuse("000", "Not Found", status=404)

    def _answer_once(self, request: Request, found: Route, identity: str) -> Response:
        """Let one request at a time go on with its idempotency key."""
        key = request.idempotency_key or ""
        with self._lock:
            if key and key in self._in_flight:
                raise in_progress()
            self._in_flight.add(key)
        try:
            return self._answer(request, found, identity)
        finally:
            with self._lock:
                self._in_flight.discard(key)

    def _answer(self, request: Request, found: Route, identity: str) -> Response:
        fault = self._meet_fault(request, found, identity)
        kind = fault.fault if fault else ""
        if kind in ("timeout_before", "reset_before"):
            return Response(ending=SILENT[kind])
        if kind == "500":
            raise server_error()
        if kind == "429":
            raise AdyenError(429, "000", "Too Many Requests", "security")
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        with self.books.session(request) as session:
            response = replay(session, request) or act(session, request, found, identity)
        if kind == "wrong_amount":
            stated = str(response.body)
            response.body = re.sub(r'("value": )(\d+)', lambda m: m[1] + str(int(m[2]) + 1), stated)
        if kind == "500_after":
            raise server_error()
        response.ending = SILENT.get(kind, "")
        return response

    def _meet_fault(self, request: Request, found: Route, identity: str) -> Fault | None:
        with self.books.session(request) as session:
            target = {"metadata": [describe_target(session, request, identity)], "token": ""}
            return self.faults.pick(session, found.operation, target, request)

    def _control(self, request: Request) -> Response:
        if request.path == "/_webhooks/deliver_due" and request.method == "POST":
            sent = self.deliverer.deliver_due(
                batch=int(request.params.get("batch") or 1),
                everything=bool(request.params.get("all", False)),
                newest_first=request.params.get("order") == "newest_first",
            )
            return json_response(200, {"attempted": sent})
        with self.books.session(request) as session:
            command = control.CONTROLS.get((request.method, request.path))
            if command is None:
                raise invalid(f"No such control: {request.method} {request.path}", status=404)
            return json_response(200, command(self.faults, session, request))

    def _show_challenge(self, request: Request) -> Response:
        challenge = request.path.removeprefix("/3ds/")
        try:
            with self.books.session(request) as session:
                payment = payments.find_challenge(session, challenge)
                if request.method != "POST":
                    return Response(200, pages.show_page(payment), dict(HTML))
                success = request.params.get("outcome") == "success"
                payments.authenticate(session, payment, success=success)
        except ApiError as error:
            return Response(error.status, pages.render_message("Not found", str(error)), dict(HTML))
        return Response(303, "", {**HTML, "Location": payments.find_onward(payment)})

    def _download(self, request: Request) -> Response:
        with self.books.session(request) as session:
            return Response(200, reports.download(session, request.path), {"Content-Type": "text/csv"})


def describe_target(session: Session, request: Request, identity: str) -> Doc:
    """What a request is about: the metadata of the payment that it names by either reference, or gives itself."""
    named = str(request.params.get("paymentReference") or "")
    payment = session.find(identity, "payment") or payments.find_by_own_reference(session, named) or {}
    given = request.params.get("metadata")
    metadata = {**payment.get("metadata", {}), **(given if isinstance(given, dict) else {})}
    return {**metadata, "reference": request.params.get("reference", "")}


def server_error() -> AdyenError:
    return AdyenError(500, "905", "Payment details are not supported", "configuration")


def in_progress() -> AdyenError:
    return refuse("704", "request already processed or in progress")


def replay(session: Session, request: Request) -> Response | None:
    """The stored answer of the key, if any. Raises ApiError 422 when the key came with another request."""
    row = session.db.execute(
        "SELECT * FROM idempotency WHERE key = ?", (request.idempotency_key or "",)
    ).fetchone()
    if row is None:
        return None
    if row["fingerprint"] != request.fingerprint:
        raise in_progress()
    return Response(row["status"], row["body"])


def act(session: Session, request: Request, found: Route, identity: str) -> Response:
    """Run the endpoint and store its answer under the key, in the transaction of what it wrote."""
    response = json_response(found.status, found.handler(session, request, identity))
    if request.idempotency_key and request.method == "POST":
        row = (request.idempotency_key, request.fingerprint, response.status, response.body, request.id)
        session.db.execute("INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)", row)
    return response
