"""Answer a request: authenticate, meet the fault, act in one transaction of the books, reply in XML."""

import base64
import binascii
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from payments.sandbox.books import Books, Session
from payments.sandbox.faults import Fault, FaultPlan
from payments.sandbox.gateway import SILENT, Response, json_response
from payments.sandbox.wire import ApiError, Doc, Request, invalid

from . import control, disputes, notifications, transactions
from .answers import Refusal, Status
from .xml import parse, render_collection, render_document

XML = {"Content-Type": "application/xml; charset=utf-8"}
COLLECTION = "credit_card_transactions"
Endpoint = Callable[[Session, str, Doc], Any]  # the id in the path, and the body


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint below the merchant's address, the operation that faults name, and the root of its answer."""

    method: str
    pattern: str
    operation: str
    root: str
    endpoint: Endpoint


ROUTES = (
    Route("POST", "transactions", "authorize", "transaction", transactions.create_sale),
    Route("GET", r"transactions/(\w+)", "retrieve", "transaction", transactions.show_transaction),
    Route("PUT", r"transactions/(\w+)/submit_for_settlement", "capture", "transaction", transactions.submit),
    Route(
        "POST",
        r"transactions/(\w+)/submit_for_partial_settlement",
        "capture",
        "transaction",
        transactions.submit_part,
    ),
    Route("PUT", r"transactions/(\w+)/void", "cancel", "transaction", transactions.void),
    Route("POST", r"transactions/(\w+)/refund", "refund", "transaction", transactions.refund),
    Route("POST", "transactions/advanced_search_ids", "retrieve", "search_results", transactions.search_ids),
    Route("POST", "transactions/advanced_search", "retrieve", COLLECTION, transactions.search),
    Route("DELETE", r"payment_methods/any/(\w+)", "any", "", transactions.delete_payment_method),
    Route("GET", r"disputes/(\w+)", "retrieve", "dispute", disputes.show_dispute),
    Route("PUT", r"disputes/(\w+)/accept", "any", "", disputes.accept),
    Route("PUT", r"disputes/(\w+)/finalize", "any", "", disputes.finalize),
    Route("POST", r"disputes/(\w+)/evidence", "any", "evidence", disputes.add_evidence),
    Route("POST", "document_uploads", "any", "document_upload", disputes.upload_document),
)
_FILE = re.compile(
    r'filename="[^"]+"\r\nContent-Type: (?P<type>[\w/]+)\r\n\r\n(?P<content>.*?)\r\n--', re.DOTALL
)


class BraintreeBooks:
    """One account with its books and its faults."""

    def __init__(self, directory: Path) -> None:
        self.books = Books(directory)
        self.faults = FaultPlan()
        with self.books.session() as session:
            self.faults.load(session)

    def close(self) -> None:
        self.books.close()

    def handle(self, request: Request) -> Response:
        """Never raises: whatever goes wrong is an answer."""
        try:
            return self._control(request) if request.path.startswith("/_") else self._route(request)
        except ApiError as error:
            return json_response(error.status, error.body)
        except Status as error:
            return Response(error.status, "", dict(XML))
        except Exception:  # A mistake of ours: say so on the console, and answer as a broken gateway does.
            traceback.print_exc()
            return Response(500, "", dict(XML))

    def _control(self, request: Request) -> Response:
        command = control.CONTROLS.get((request.method, request.path))
        if command is None:
            raise invalid(f"No such control: {request.method} {request.path}", status=404)
        with self.books.session(request) as session:
            answer = command(self.faults, session, request)
        if command is control.notify:  # outside the transaction: the receiver may ask us back
            answer = notifications.send_notification(answer)
        return json_response(200, answer)

    def _route(self, request: Request) -> Response:
        authenticate(request.headers.get("authorization", ""))
        route, identity = find_route(request.method, request.path)
        params = read_params(request)
        fault = self._meet_fault(request, route.operation, params)
        kind = fault.fault if fault else ""
        if kind in ("timeout_before", "reset_before"):
            return Response(ending=SILENT[kind])
        if kind in ("500", "429"):
            raise Status(int(kind))
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        with self.books.session(request) as session:
            response = perform(session, route, identity, params, wrong=kind == "wrong_amount")
        if kind == "500_after":
            raise Status(500)
        response.ending = SILENT.get(kind, "")
        return response

    def _meet_fault(self, request: Request, operation: str, params: Doc) -> Fault | None:
        with self.books.session(request) as session:
            target = {"metadata": [describe_target(session, request, params)], "token": ""}
            return self.faults.pick(session, operation, target, request)


def find_route(method: str, path: str) -> tuple[Route, str]:
    """The route and the id in its path. Raises Status 404."""
    below = re.fullmatch(r"/merchants/\w+/(.+)", path)
    for route in ROUTES:
        match = re.fullmatch(route.pattern, below[1]) if below and route.method == method else None
        if match:
            return route, match[1] if match.groups() else ""
    raise Status(404)


def perform(session: Session, route: Route, identity: str, params: Doc, *, wrong: bool) -> Response:
    """A refusal for its form is undone, a decline is kept."""
    try:
        found = route.endpoint(session, identity, params)
    except Refusal as refusal:
        if refusal.transaction is None:
            session.undo()
        return Response(422, render_document("api_error_response", refusal.describe()), dict(XML))
    if not route.root:
        return Response(200, "", dict(XML))
    if route.root == COLLECTION:
        return Response(200, render_collection(COLLECTION, "transaction", found), dict(XML))
    if wrong and route.root == "transaction":
        found = transactions.spoil(found)
    return Response(200, render_document(route.root, found), dict(XML))


def describe_target(session: Session, request: Request, params: Doc) -> Doc:
    """The order ids by which a fault is meant: of the authorization, and of the operation itself."""
    given = params.get("transaction") or {}
    order_id = given.get("order_id") or ((params.get("search") or {}).get("order_id") or {}).get("is") or ""
    match = re.search(r"/transactions/(\w+)", request.path)
    found = session.find(match[1], "transaction") if match else None
    return {"operation_id": found["_operation"] if found else order_id, "order_id": order_id}


def read_params(request: Request) -> Doc:
    """Raises Status 400 for a body that cannot be read."""
    if "multipart" in request.params:
        found = _FILE.search(str(request.params["multipart"]))
        if not found:
            raise Status(400)
        return {"content_type": found["type"], "content": found["content"]}
    try:
        return parse(str(request.params.get("xml", "")))
    except ValueError:
        raise Status(400) from None


def authenticate(header: str) -> None:
    """Any pair of keys will do. Raises Status 401."""
    scheme, _, value = header.partition(" ")
    try:
        public, _, private = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        public = private = ""
    if scheme != "Basic" or not public or not private or private == "wrong":
        raise Status(401)
