"""The endpoints of Stripe's API that this gateway has, and which function answers each."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import balance, customers, disputes, files, holds, intents, refunds, reports, wire
from .books import Session
from .wire import Doc, Request, invalid, list_of, public

Handler = Callable[..., Doc]
PAGE: wire.Spec = {
    "limit": wire.integer,
    "starting_after": wire.string,
    "ending_before": wire.string,
    "created": wire.span,
    "expand": wire.strings,
}
EXPANDABLE = (
    "latest_charge",
    "balance_transaction",
    "charge",
    "payment_intent",
    "payment_method",
    "source",
    "payout",
)


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    operation: str


def post(handler: Callable[[Session, Doc], Doc]) -> Handler:
    return lambda session, request: handler(session, request.params)


def post_to(handler: Callable[[Session, str, Doc], Doc]) -> Handler:
    return lambda session, request, identity: handler(session, identity, request.params)


def retrieve(kind: str) -> Handler:
    def retrieve_object(session: Session, request: Request, identity: str) -> Doc:
        wire.check_params(request.params, {"expand": wire.strings, "client_secret": wire.string})
        return session.get(identity, kind)

    return retrieve_object


def retrieve_intent(session: Session, request: Request, identity: str) -> Doc:
    wire.check_params(request.params, {"expand": wire.strings, "client_secret": wire.string})
    return holds.load_intent(session, identity)


def page_of(kind: str, **filters: str) -> Handler:
    spec = {**PAGE, **{name: wire.strings if name == "types" else wire.string for name in filters}}

    def list_objects(session: Session, request: Request) -> Doc:
        given = wire.check_params(request.params, spec)
        docs, has_more = session.page(kind, given, filters)
        return list_of(request.path, docs, has_more=has_more)

    return list_objects


def search_intents(session: Session, request: Request) -> Doc:
    """Stripe's search language as far as needed: metadata['k']:'v', -metadata['k']:null, status and currency,
    joined by AND.

    Unlike Stripe's, the answer is never late.
    """
    given = wire.check_params(
        request.params,
        {"query": wire.string, "limit": wire.integer, "page": wire.string, "expand": wire.strings},
        required=("query",),
    )
    where, values = parse_query(given["query"])
    limit = min(max(given.get("limit", 10), 1), 100)
    offset = wire.integer("page", given.get("page", 0))
    order = f"created DESC, seq DESC LIMIT {limit + 1} OFFSET {offset}"
    found = session.select("payment_intent", where, values, order)
    more = len(found) > limit
    return {
        "object": "search_result",
        "url": request.path,
        "has_more": more,
        "next_page": str(offset + limit) if more else None,
        "data": [public(doc) for doc in found[:limit]],
    }


CLAUSE = re.compile(
    r"""(metadata\[(['"])(?P<key>.+?)\2\]|(?P<field>status|currency)):(['"])(?P<value>.*?)\5"""
)
HAS_KEY = re.compile(r"""-metadata\[(['"])(?P<key>.+?)\1\]:null""")


def parse_query(query: str) -> tuple[str, list[str]]:
    where, values = [], []
    for clause in re.split(r"\s+AND\s+", query.strip()):
        if present := HAS_KEY.fullmatch(clause):
            where.append("id IN (SELECT id FROM metadata WHERE key = ?)")
            values.append(present["key"])
            continue
        match = CLAUSE.fullmatch(clause)
        if match is None:
            raise invalid(f"We were unable to parse your search query: {clause}", "query", "query_invalid")
        if match["key"]:
            where.append("id IN (SELECT id FROM metadata WHERE key = ? AND value = ?)")
            values += [match["key"], match["value"]]
        else:
            where.append(f"json_extract(doc, '$.{match['field']}') = ?")
            values.append(match["value"])
    return " AND ".join(where), values


def expand(session: Session, body: Doc, paths: list[str]) -> Doc:
    """Replace ids by their objects along each path; `data.` means every item. Raises ApiError 400."""
    for path in paths:
        expand_path(session, body, path.split("."), path)
    return body


def expand_path(session: Session, target: Doc, names: list[str], path: str) -> None:
    name, rest = names[0], names[1:]
    if name == "data" and rest:
        for item in target.get("data", []):
            expand_path(session, item, rest, path)
        return
    if name not in EXPANDABLE or name not in target:
        raise invalid(f"This property cannot be expanded ({path}).", "expand")
    if isinstance(target[name], str):
        rows = session.db.execute("SELECT kind FROM objects WHERE id = ?", (target[name],)).fetchone()
        target[name] = public(session.get(target[name], rows["kind"])) if rows else target[name]
    if rest and isinstance(target[name], dict):
        expand_path(session, target[name], rest, path)


def route(method: str, path: str, handler: Any, operation: str = "retrieve") -> Route:
    return Route(method, re.compile(path.replace("{id}", r"([A-Za-z0-9_.]+)")), handler, operation)


ROUTES = (
    route("POST", "/v1/payment_intents", post(intents.create_intent), "authorize"),
    route("POST", "/v1/payment_intents/{id}/confirm", post_to(intents.confirm_intent), "authorize"),
    route("POST", "/v1/payment_intents/{id}/capture", post_to(holds.capture_intent), "capture"),
    route("POST", "/v1/payment_intents/{id}/cancel", post_to(holds.cancel_intent), "cancel"),
    route("GET", "/v1/payment_intents/search", search_intents),
    route("POST", "/v1/payment_intents/{id}", post_to(intents.update_intent), "update"),
    route("GET", "/v1/payment_intents/{id}", retrieve_intent),
    route("GET", "/v1/payment_intents", page_of("payment_intent", customer="customer")),
    route("POST", "/v1/refunds", post(refunds.create_refund), "refund"),
    route("GET", "/v1/refunds/{id}", retrieve("refund")),
    route("GET", "/v1/refunds", page_of("refund", payment_intent="payment_intent", charge="charge")),
    route("GET", "/v1/charges/{id}", retrieve("charge")),
    route("GET", "/v1/charges", page_of("charge", payment_intent="payment_intent", customer="customer")),
    route("POST", "/v1/payment_methods/{id}/attach", post_to(customers.attach_method), "customer"),
    route("POST", "/v1/payment_methods/{id}/detach", post_to(customers.detach_method), "customer"),
    route("GET", "/v1/payment_methods/{id}", retrieve("payment_method")),
    route("GET", "/v1/payment_methods", page_of("payment_method", customer="customer", type="type")),
    route("POST", "/v1/customers", post(customers.create_customer), "customer"),
    route("GET", "/v1/customers/{id}", retrieve("customer")),
    route("GET", "/v1/customers", page_of("customer", email="email")),
    route("POST", "/v1/files", files.create_file, "file"),
    route("GET", "/v1/files/{id}", retrieve("file")),
    route("POST", "/v1/disputes/{id}", post_to(disputes.update_dispute), "dispute"),
    route("POST", "/v1/disputes/{id}/close", post_to(disputes.close_dispute), "dispute"),
    route("GET", "/v1/disputes/{id}", retrieve("dispute")),
    route("GET", "/v1/disputes", page_of("dispute", payment_intent="payment_intent", charge="charge")),
    route("GET", "/v1/events/{id}", retrieve("event")),
    route("GET", "/v1/events", page_of("event", type="type", types="type")),
    route("GET", "/v1/balance", lambda session, request: balance.show_balance(session)),
    route("GET", "/v1/balance_transactions/{id}", retrieve("balance_transaction")),
    route(
        "GET",
        "/v1/balance_transactions",
        page_of("balance_transaction", payout="_payout", type="type", source="source", currency="currency"),
    ),
    route("GET", "/v1/payouts/{id}", retrieve("payout")),
    route("GET", "/v1/payouts", page_of("payout", status="status")),
    route("POST", "/v1/reporting/report_runs", reports.create_run, "report"),
    route("GET", "/v1/reporting/report_runs/{id}", reports.retrieve_run, "report"),
    route("GET", "/v1/reporting/report_types/{id}", reports.retrieve_type, "report"),
)


def find_route(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    for candidate in ROUTES:
        if candidate.method == method and (match := candidate.pattern.fullmatch(path)):
            return candidate, match.groups()
    return None
