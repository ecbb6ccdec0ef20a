"""Stripe through its official SDK: our requests in, our results out, every failure in our taxonomy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import stripe

from payments.errors import InvalidRequestError
from payments.gateways.base import (
    Capabilities,
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    DisputeFact,
    EvidenceRequest,
    Fact,
    FetchRequest,
    RefundRequest,
    RefundResult,
    SavedToken,
    VoidRequest,
)
from payments.gateways.connection import split_timeout
from payments.gateways.credentials import read_timeout, require
from payments.gateways.doubt import doubted, read_or_doubt, readable
from payments.gateways.stripe import disputes, evidence, results, wire
from payments.gateways.stripe import requests as build
from payments.gateways.stripe.client import API_BASE, FILES_BASE, build_client, to_doc
from payments.gateways.stripe.errors import StripeDeclinedError, WrongStateError, is_missing, translated
from payments.gateways.stripe.events import read_facts
from payments.gateways.stripe.reports import download, run_report
from payments.gateways.stripe.search import find_intent, find_refund, retrieve_intent
from payments.kinds import DisputeState, OperationKind

Doc = dict[str, Any]
MoneyRequest = ChargeRequest | CaptureRequest | VoidRequest | RefundRequest


class StripeGateway:
    """One Stripe account. Amounts in results are those that Stripe states, right or wrong."""

    capabilities = Capabilities(
        idempotency_key_hours=24,
        partial_capture=True,
        several_captures=True,  # if account and card allow it, which the intent says
        asynchronous_refunds=True,
        dispute_evidence=True,
        saved_payment_methods=True,
        lists_events=True,
        sca_exemptions=frozenset(),  # Stripe asks issuers for them itself; its API takes no wish of ours
    )

    def __init__(self, api_key: str, *, api_base: str = API_BASE, timeout: float = 25.0) -> None:
        """`timeout` is the longest that one call may take, in seconds, connecting included."""
        self._timeout = split_timeout(timeout)
        self._api_base = api_base.rstrip("/")
        self._files_base = FILES_BASE if self._api_base == API_BASE else self._api_base
        self._api_key = api_key
        self._client = build_client(
            api_key, api_base=self._api_base, files_base=self._files_base, timeout=self._timeout
        )

    @classmethod
    def from_account(cls, credentials: Mapping[str, str]) -> StripeGateway:
        """From `api_key`, and optionally `api_base` and `timeout`. Raises `ValueError` without a key."""
        require(credentials, "a Stripe", "api_key")
        return cls(
            credentials["api_key"],
            api_base=credentials.get("api_base") or API_BASE,
            timeout=read_timeout(credentials),
        )

    # --- money ----------------------------------------------------------------------------------------------

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        params = build.build_charge(request, customer=self._find_customer(request))
        try:
            intent = self._send("authorize", request, self._client.v1.payment_intents.create, params)
        except StripeDeclinedError as declined:
            return declined.as_result(request.amount)
        return read_or_doubt("Stripe", results.read_authorization, intent)

    def _find_customer(self, request: ChargeRequest) -> str:
        """Stripe's customer: the one that the token belongs to, or a new one when a token is to be kept."""
        if request.customer_reference or not request.save_payment_method:
            return request.customer_reference
        params: Any = {"metadata": {wire.CUSTOMER_ID: request.customer_id}}
        # Made again with the same key it is the same customer, so the charge that follows is the same too.
        options: Any = {"idempotency_key": f"{request.key}-customer"}
        with translated("authorize", request.operation_id):
            return str(self._client.v1.customers.create(params, options).id)

    def capture(self, request: CaptureRequest) -> ChargeResult:
        """Raises `InvalidRequestError` for `final=False` on an authorization that Stripe captures only once."""
        if not request.final:
            self._check_multicapture(request)
        capture = self._client.v1.payment_intents.capture
        try:
            intent = self._send("capture", request, capture, request.reference, build.build_capture(request))
        except StripeDeclinedError as declined:
            return declined.as_result(request.amount, reference=request.reference)
        except WrongStateError as refusal:
            return self._settle_refusal(refusal, OperationKind.CAPTURE, request)
        return read_or_doubt("Stripe", lambda doc: results.read_capture(doc, request.operation_id), intent)

    def _check_multicapture(self, request: CaptureRequest) -> None:
        """A second look costs little; a capture that turned out final would have let the rest go."""
        with translated("capture", request.operation_id):
            intent = retrieve_intent(self._client, request.reference) or {}
            captures = results.read_captures(intent)
            is_allowed = results.is_multicapture(intent)
        if request.operation_id in captures:
            return  # sent before: the same key gives the same answer
        if not is_allowed:
            raise InvalidRequestError(
                f"{request.reference} can be captured once only (Stripe offers it no multicapture): "
                "capture it with final=True; nothing was sent"
            )
        if len(captures) >= build.MAX_CAPTURES - 1:
            raise InvalidRequestError(
                f"{request.reference} was captured {len(captures)} times: its next capture must be the final one; "
                "nothing was sent"
            )

    def void(self, request: VoidRequest) -> ChargeResult:
        """Raises `InvalidRequestError` without a reference: Stripe knows our own id as a search term only."""
        if not request.reference:
            raise InvalidRequestError(
                f"Stripe releases by its own reference only: ask for {request.authorization_id} first; nothing was sent"
            )
        intents = self._client.v1.payment_intents
        call = intents.capture if request.is_rest else intents.cancel
        params = build.build_release(request) if request.is_rest else build.build_cancellation(request)
        try:
            intent = self._send("void", request, call, request.reference, params)
        except WrongStateError as refusal:
            return self._settle_refusal(refusal, OperationKind.VOID, request)
        return read_or_doubt("Stripe", results.read_void, intent)

    def refund(self, request: RefundRequest) -> RefundResult:
        params = build.build_refund(request)
        refund = self._send("refund", request, self._client.v1.refunds.create, params)
        with doubted("Stripe"):
            return results.read_refund(refund)

    def _send(self, operation: str, request: MoneyRequest, call: Callable[..., Any], *args: object) -> Doc:
        with translated(operation, request.operation_id):
            return to_doc(call(*args, {"idempotency_key": request.key}))

    def _settle_refusal(
        self, refusal: WrongStateError, kind: OperationKind, request: CaptureRequest | VoidRequest
    ) -> ChargeResult:
        """A refusal because it is done already is a success; any other is raised. Asks Stripe, once."""
        found = self.fetch(FetchRequest(kind, request.operation_id, request.reference))
        if isinstance(found, ChargeResult) and found.status in (ChargeStatus.CAPTURED, ChargeStatus.VOIDED):
            return found
        raise refusal

    # --- questions ------------------------------------------------------------------------------------------

    def fetch(self, request: FetchRequest) -> ChargeResult | RefundResult | None:
        """What became of an operation. Stripe's search lags by a minute: with `since` we look beside it."""
        with translated("fetch", request.operation_id):
            if request.kind is OperationKind.REFUND:
                refund = find_refund(self._client, request)
                return results.read_refund(refund) if refund else None
            intent = find_intent(self._client, request)
            if intent is None:
                return None
            return results.read_intent(intent, kind=request.kind, operation_id=request.operation_id)

    # --- disputes -------------------------------------------------------------------------------------------

    def fetch_dispute(self, reference: str) -> DisputeFact | None:
        with translated("fetch_dispute", reference):
            try:
                dispute = to_doc(self._client.v1.disputes.retrieve(reference))
            except stripe.InvalidRequestError as error:
                if is_missing(error):
                    return None
                raise
            return disputes.read_dispute(dispute, occurred_at=datetime.now(UTC), source="poll")

    def submit_evidence(self, request: EvidenceRequest) -> DisputeFact:
        texts, places = evidence.build_texts(request), evidence.place_files(request)
        with translated("submit_evidence", request.reference):
            files = {field: self._upload(request, kind) for kind, field in places.items()}
            params: Any = {"evidence": {**texts, **files}, "submit": True}
            options: Any = {"idempotency_key": request.key}
            dispute = to_doc(self._client.v1.disputes.update(request.reference, params, options))
        return read_answer(dispute)

    def _upload(self, request: EvidenceRequest, kind: str) -> str:
        """Stripe's id of the file; the same key gives the same file again."""
        file = request.files[kind]
        params: Any = {"purpose": "dispute_evidence", "file": evidence.NamedFile(file)}
        options: Any = {"idempotency_key": f"{request.key}-{kind}"}
        return str(self._client.v1.files.create(params, options).id)

    def accept_dispute(self, reference: str, *, key: str) -> DisputeFact:
        """Stripe will call it lost, so that we gave in is noted on it first: on one that can still be given up."""
        standing = self.fetch_dispute(reference)
        if standing is not None and standing.state is DisputeState.ACCEPTED:
            return standing
        if standing is None or standing.state is not DisputeState.NEEDS_RESPONSE:
            state = standing.state.replace("_", " ") if standing else "unknown to Stripe"
            raise InvalidRequestError(f"The dispute {reference} is {state}: it was not accepted")
        note: Any = {"metadata": {disputes.ACCEPTED: "true"}, "submit": False}
        options: Any = {"idempotency_key": f"{key}-note"}
        with translated("accept_dispute", reference):
            self._client.v1.disputes.update(reference, note, options)
            close: Any = {"idempotency_key": key}
            dispute = to_doc(self._client.v1.disputes.close(reference, {}, close))
        return read_answer(dispute)

    # --- saved tokens ---------------------------------------------------------------------------------------

    def forget_payment_method(self, saved: SavedToken) -> None:
        methods = self._client.v1.payment_methods
        with translated("forget_payment_method"):
            try:
                methods.detach(saved.token)
            except stripe.InvalidRequestError as error:
                # A token without a customer cannot be detached, and cannot be charged either: look which it is.
                if not is_missing(error) and methods.retrieve(saved.token).customer:
                    raise

    # --- events ---------------------------------------------------------------------------------------------

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[Fact]:
        """Raises `InvalidRequestError` for an event that lacks what its type promises."""
        with readable(f"Stripe's event {payload.get('id', '')}"):
            return read_facts(payload)

    def list_events(
        self, *, since: datetime, until: datetime | None = None, types: Sequence[str] = ()
    ) -> Iterable[Mapping[str, Any]]:
        """Oldest first; Stripe keeps events for 30 days and lists the newest first, so all are read."""
        span = {"gte": int(since.timestamp())} | ({"lt": math.ceil(until.timestamp())} if until else {})
        params: Any = {"created": span, "limit": 100}
        if len(types) == 1:
            params["type"] = types[0]
        with translated("list_events"):
            page = self._client.v1.events.list(params)
            events = [to_doc(event) for event in page.auto_paging_iter()]
        return [event for event in reversed(events) if not types or event["type"] in types]

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        """The day's balance activity as CSV in chunks. Raises `ReportNotReadyError` until complete."""
        url = run_report(self._client, day)
        servers = (FILES_BASE, self._api_base)
        return download(url, api_key=self._api_key, timeout=self._timeout, servers=servers)


def read_answer(dispute: Doc) -> DisputeFact:
    with doubted("Stripe"):
        return disputes.read_dispute(dispute, occurred_at=datetime.now(UTC), source="answer")
