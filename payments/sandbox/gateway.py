"""Answer a request: authenticate, claim the key, meet the fault, act in one transaction, reply."""

import base64
import binascii
import json
import re
import threading
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import control, disputes, files, pages, timers, wire
from .books import Books, Session
from .faults import Fault, FaultPlan, describe_target, spoil_amounts
from .holds import expire_authorizations
from .intents import authenticate_intent
from .routes import Route, expand, find_route
from .webhooks import Deliverer
from .wire import ApiError, Doc, Request, invalid, public

HTML = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
}
BINARY = {"Content-Type": "application/octet-stream"}
# Where the connection ends without an answer: silence until the client gives up, or a reset.
SILENT = {"timeout_before": "hang", "timeout_after": "hang", "reset_before": "reset", "reset_after": "reset"}
CLASH = "Keys for idempotent requests can only be used with the same parameters they were first used with."


@dataclass(slots=True)
class Response:
    """What goes back: an answer, or (`ending`) none at all: `hang` or `reset`."""

    status: int = 200
    body: str | bytes = ""
    headers: dict[str, str] = field(default_factory=dict)
    ending: str = ""


def json_response(status: int, body: Doc) -> Response:
    return Response(status, json.dumps(body))


class Gateway:
    """One gateway with its books, its faults and its webhooks."""

    def __init__(self, directory: Path) -> None:
        self.books = Books(directory)
        self.faults = FaultPlan()
        self.deliverer = Deliverer(self.books, self.run_timers)
        self._in_flight: set[str] = set()
        self._lock = threading.Lock()
        with self.books.session() as session:
            self.faults.load(session)
            expire_authorizations(session)

    def close(self) -> None:
        self.deliverer.stop()
        self.books.close()

    def run_timers(self) -> None:
        """Do what was left for later: refunds that bounce, disputes that come."""
        with self.books.session() as session:
            timers.run_timers(session)

    def handle(self, request: Request) -> Response:
        """Never raises: whatever goes wrong is an answer in Stripe's shape."""
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
        authenticate(request.headers.get("authorization", ""))
        if file := re.fullmatch(r"/v1/files/(\w+)/contents", request.path):
            return self._download(request, file[1])
        found = find_route(request.method, request.path)
        if found is None:
            raise invalid(f"Unrecognized request URL ({request.method}: {request.path}).", status=404)
        route, ids = found
        if request.method == "POST" and request.idempotency_key:
            return self._answer_once(request, route, ids)
        return self._answer(request, route, ids)

    def _answer_once(self, request: Request, route: Route, ids: tuple[str, ...]) -> Response:
        """Let one request at a time go on with its idempotency key."""
        key = request.idempotency_key or ""
        with self._lock:
            if key in self._in_flight:
                message = f"There is currently another in-progress request using this Idempotent Key ({key})."
                raise ApiError(409, "idempotency_error", message, code="idempotency_key_in_use")
            self._in_flight.add(key)
        try:
            return self._answer(request, route, ids)
        finally:
            with self._lock:
                self._in_flight.discard(key)

    def _answer(self, request: Request, route: Route, ids: tuple[str, ...]) -> Response:
        fault = self._meet_fault(request, route, ids)
        kind = fault.fault if fault else ""
        if kind in ("timeout_before", "reset_before"):
            return Response(ending=SILENT[kind])
        if kind == "500":
            raise server_error()
        if kind == "429":
            raise ApiError(429, "invalid_request_error", "Too many requests.", code="rate_limit")
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        with self.books.session(request) as session:
            response = replay(session, request) or act(
                session, request, route, ids, wrong=kind == "wrong_amount"
            )
        self.deliverer.wake(session.scheduled)
        for delivery in session.first_deliveries:
            self.deliverer.deliver(delivery)
        if kind == "500_after":
            raise server_error()
        response.ending = SILENT.get(kind, "")
        return response

    def _meet_fault(self, request: Request, route: Route, ids: tuple[str, ...]) -> Fault | None:
        with self.books.session(request) as session:
            target = describe_target(session, request, ids[0] if ids else None)
            return self.faults.pick(session, route.operation, target, request)

    def _control(self, request: Request) -> Response:
        if request.path == "/_webhooks/deliver_due" and request.method == "POST":
            newest_first = request.params.get("order") == "newest_first"
            everything = bool(request.params.get("all", False))
            sent = self.deliverer.deliver_due(everything=everything, newest_first=newest_first)
            return json_response(200, {"attempted": sent})
        with self.books.session(request) as session:
            if match := re.fullmatch(r"/_authenticate/(\w+)", request.path):
                success = request.params.get("success", True)
                return json_response(
                    200, public(authenticate_intent(session, match[1], success=bool(success)))
                )
            if match := re.fullmatch(r"/_disputes/(\w+)/evidence", request.path):
                return Response(200, disputes.collect_evidence(session, match[1]), dict(BINARY))
            command = control.CONTROLS.get((request.method, request.path))
            if command is None:
                raise invalid(f"No such control: {request.method} {request.path}", status=404)
            return json_response(200, command(self.faults, session, request))

    def _show_challenge(self, request: Request) -> Response:
        identity = request.path.removeprefix("/3ds/")
        try:
            with self.books.session(request) as session:
                if request.method != "POST":
                    return Response(200, pages.show_page(session, request, identity), dict(HTML))
                outcome = str(request.params.get("outcome", "failure"))
                onward = pages.submit_page(session, request, identity, outcome)
        except ApiError as error:
            return Response(error.status, pages.render_message("Not found", str(error)), dict(HTML))
        if onward is None:
            return Response(200, pages.render_message("Done", "You can go back to the shop."), dict(HTML))
        return Response(303, "", {**HTML, "Location": onward})

    def _download(self, request: Request, identity: str) -> Response:
        with self.books.session(request) as session:
            content = files.read_content(session, identity)
        return Response(200, content, {"Content-Type": "text/csv; charset=utf-8"})


def server_error() -> ApiError:
    return ApiError(
        500, "api_error", "An error occurred with our connection to the network. Please try again."
    )


def authenticate(header: str) -> None:
    """Any test key will do, as bearer token or as the user of basic authentication. Raises ApiError 401."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            value = ""
    if not value.strip().startswith("sk_test_"):
        raise ApiError(401, "invalid_request_error", "Invalid API Key provided: it must begin with sk_test_.")


def replay(session: Session, request: Request) -> Response | None:
    """The stored answer of the key, if any. Raises ApiError 400 when the key came with other parameters."""
    if request.method != "POST" or not request.idempotency_key:
        return None
    row = session.db.execute("SELECT * FROM idempotency WHERE key = ?", (request.idempotency_key,)).fetchone()
    if row is None:
        return None
    if row["fingerprint"] != request.fingerprint:
        raise ApiError(
            400, "idempotency_error", f"{CLASH} Try using another key than '{request.idempotency_key}'."
        )
    headers = {"Idempotent-Replayed": "true", "Original-Request": row["request"]}
    return Response(row["status"], row["body"], headers)


def act(session: Session, request: Request, route: Route, ids: tuple[str, ...], *, wrong: bool) -> Response:
    """Run the endpoint and store its answer under the key, in the transaction of what it wrote."""
    begun = True
    try:
        params = {name: value for name, value in request.params.items() if name != "expand"}
        paths = wire.strings("expand", request.params["expand"]) if "expand" in request.params else []
        body = public(route.handler(session, with_params(request, params), *ids))
        response = json_response(200, expand(session, spoil_amounts(body) if wrong else body, paths))
    except ApiError as error:
        response = json_response(error.status, error.body)
        begun = error.executed
        if not begun:
            session.undo()
    if begun and request.method == "POST" and request.idempotency_key:
        row = (request.idempotency_key, request.fingerprint, response.status, response.body, request.id)
        session.db.execute("INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)", row)
    return response


def with_params(request: Request, params: Doc) -> Request:
    return replace(request, params=params)
