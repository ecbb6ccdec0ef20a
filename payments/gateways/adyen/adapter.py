"""Adyen through its official SDK: our requests in, our results out, every failure in our taxonomy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote

from Adyen.services import AdyenCheckoutApi, AdyenDisputesApi

from payments.errors import InvalidRequestError
from payments.gateways.adyen import evidence, results
from payments.gateways.adyen import requests as build
from payments.gateways.adyen.client import build_client, find_addresses, to_doc
from payments.gateways.adyen.disputes import build_answer
from payments.gateways.adyen.errors import is_gone, translated
from payments.gateways.adyen.events import read_facts
from payments.gateways.adyen.reports import download
from payments.gateways.base import (
    Capabilities,
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
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
from payments.gateways.credentials import is_true, read_timeout, require
from payments.gateways.doubt import doubted, readable
from payments.kinds import DisputeState
from payments.money import Money
from payments.redaction import redact

Doc = dict[str, Any]

KEY_DAYS = 7  # docs.adyen.com/development-resources/api-idempotency
_REFERENCE = re.compile(r"[A-Za-z0-9]{1,64}")


class AdyenGateway:
    """One merchant account at Adyen. Amounts in results are those that Adyen states, right or wrong.

    A payment's reference is Adyen's pspReference, its merchant reference our operation. Captures, voids and refunds
    are only received: the webhook that ends one names the reference which the answer gave as its own. Several captures
    need Adyen's consent for the account: without it a first one releases the rest; with it nothing does but a void.
    """

    capabilities = Capabilities(
        idempotency_key_hours=KEY_DAYS * 24,
        answers_questions=False,
        asynchronous_captures=True,
        completes_authentication=True,
        void_without_reference=True,
        dispute_evidence=True,
        saved_payment_methods=True,
        sca_exemptions=frozenset({"low_value", "tra", "recurring"}),
    )

    def __init__(
        self,
        api_key: str,
        merchant_account: str,
        *,
        api_base: str = "",
        report_key: str = "",
        several_captures: bool = False,
        timeout: float = 25.0,
    ) -> None:
        """`timeout` is the longest that one call may take, in seconds, connecting included.

        `api_base` is "" for Adyen's test platform, an account's prefix for the live one, or a whole address. Raises
        `ValueError` for anything else.
        """
        self._timeout = split_timeout(timeout)
        self._account = merchant_account
        self._report_key = report_key or api_key
        self._addresses = find_addresses(api_base.rstrip("/"))
        self._connect(build_client(api_key, self._timeout))
        self.capabilities = replace(
            self.capabilities, several_captures=several_captures, final_capture_releases=not several_captures
        )

    def _connect(self, client: Any) -> None:
        checkout = AdyenCheckoutApi(client=client)
        self._payments, self._changes = checkout.payments_api, checkout.modifications_api
        self._tokens = checkout.recurring_api
        for service in (self._payments, self._changes, self._tokens):
            service.baseUrl = self._addresses.checkout
        self._disputes = AdyenDisputesApi(client=client).disputes_api
        self._disputes.baseUrl = self._addresses.disputes

    @classmethod
    def from_account(cls, credentials: Mapping[str, str]) -> AdyenGateway:
        """From `api_key` and `merchant_account`, and optionally `api_base`, `report_key`, `several_captures` ("true")
        and `timeout`. Raises `ValueError` without the first two.
        """
        require(credentials, "an Adyen", "api_key", "merchant_account")
        return cls(
            credentials["api_key"],
            credentials["merchant_account"],
            api_base=credentials.get("api_base") or "",
            report_key=credentials.get("report_key") or "",
            several_captures=is_true(credentials, "several_captures"),
            timeout=read_timeout(credentials),
        )

    # --- money ----------------------------------------------------------------------------------------------

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        body = self._name_account(build.build_charge(request))
        subject = f"authorize {request.operation_id}"
        answer = self._send(subject, request.key, self._payments.payments, body)
        with doubted("Adyen"):
            return results.read_payment(
                answer, asked=request.amount, now=datetime.now(UTC), return_url=request.return_url
            )

    def complete_authentication(
        self, *, operation_id: str, amount: Money, redirect_result: str
    ) -> ChargeResult:
        """Hand in what the customer brought back from 3-D Secure in the address: the answer is the authorization's."""
        subject = f"complete {operation_id}"
        body = {"details": {"redirectResult": redirect_result}}
        answer = self._send(subject, f"{operation_id}-details", self._payments.payments_details, body)
        with doubted("Adyen"):
            return results.read_payment(answer, asked=amount, now=datetime.now(UTC))

    def capture(self, request: CaptureRequest) -> ChargeResult:
        """Raises `InvalidRequestError` for `final=False` on an account that may capture once only."""
        if not request.final and not self.capabilities.several_captures:
            raise InvalidRequestError(
                f"this account captures {request.reference} once only: capture it with final=True; nothing was sent"
            )
        body = self._name_account(build.build_capture(request))
        call = self._changes.capture_authorised_payment
        answer = self._modify("capture", request, request.reference, call, body)
        with doubted("Adyen"):
            return results.read_modification(answer, reference=request.reference, asked=request.amount)

    def void(self, request: VoidRequest) -> ChargeResult:
        """Releases all that is not captured. Without a reference it names our own: Adyen's technical cancel."""
        body = self._name_account(build.build_cancellation(request))
        if request.reference:
            call = self._changes.cancel_authorised_payment_by_psp_reference
            answer = self._modify("void", request, request.reference, call, body)
        elif request.authorization_id:
            subject = f"void {request.operation_id}"
            answer = self._send(subject, request.key, self._changes.cancel_authorised_payment, body)
        else:
            raise InvalidRequestError(f"void {request.operation_id} names no authorization: nothing was sent")
        with doubted("Adyen"):
            return results.read_modification(answer, reference=request.reference, asked=request.amount)

    def refund(self, request: RefundRequest) -> RefundResult:
        body = self._name_account(build.build_refund(request))
        call = self._changes.refund_captured_payment
        answer = self._modify("refund", request, request.reference, call, body)
        with doubted("Adyen"):
            return results.read_refund(answer, asked=request.amount)

    def _name_account(self, body: Doc) -> Doc:
        return {"merchantAccount": self._account, **body}

    def _modify(
        self,
        operation: str,
        request: CaptureRequest | VoidRequest | RefundRequest,
        reference: str,
        call: Callable[..., Any],
        body: Doc,
    ) -> Doc:
        subject = f"{operation} {request.operation_id}"
        if not _REFERENCE.fullmatch(reference):  # it becomes a part of the address
            raise InvalidRequestError(f"{reference!r} is no reference of Adyen's: {subject} was not sent")
        return self._send(subject, request.key, call, body, reference)

    def _send(self, subject: str, key: str, call: Callable[..., Any], body: Doc, *path: str) -> Doc:
        with translated(subject):
            return to_doc(call(body, *path, idempotency_key=build.shorten_key(key)))

    # --- questions ------------------------------------------------------------------------------------------

    def fetch(self, request: FetchRequest) -> ChargeResult | RefundResult | None:
        """Nothing, ever: Adyen's API answers no question about a payment. Whoever is in doubt sends the same request
        with the same key again, which gives the first answer again, or waits for the webhook.
        """
        return None

    # --- disputes -------------------------------------------------------------------------------------------

    def fetch_dispute(self, reference: str) -> DisputeFact | None:
        """Nothing, ever: the Disputes API takes answers and gives none; its webhooks tell how a dispute stands."""
        return None

    def submit_evidence(self, request: EvidenceRequest) -> DisputeFact:
        """Supply the documents and defend, for good. The answer names no amount: the fact's is zero."""
        files = evidence.collect_evidence(request)
        named = self._name_dispute(request.reference)
        subject = f"defend dispute {request.reference}"
        ask = self._disputes.retrieve_applicable_defense_reasons
        offered = self._answer_dispute(subject, "", ask, named)
        with doubted("Adyen"):
            code, documents = evidence.choose_defense(offered.get("defenseReasons") or (), files)
        if documents:
            supply, supplied = self._disputes.supply_defense_document, named | {"defenseDocuments": documents}
            self._answer_dispute(subject, f"{request.key}-files", supply, supplied)
        defense = named | {"defenseReasonCode": code}
        self._answer_dispute(subject, f"{request.key}-defend", self._disputes.defend_dispute, defense)
        return build_answer(request.reference, DisputeState.UNDER_REVIEW)

    def accept_dispute(self, reference: str, *, key: str) -> DisputeFact:
        """The amount is lost. The answer does not name it: the fact's is zero."""
        self._answer_dispute(
            f"accept dispute {reference}", key, self._disputes.accept_dispute, self._name_dispute(reference)
        )
        return build_answer(reference, DisputeState.ACCEPTED)

    def _name_dispute(self, reference: str) -> Doc:
        return {"merchantAccountCode": self._account, "disputePspReference": reference}

    def _answer_dispute(self, subject: str, key: str, call: Callable[..., Any], body: Doc) -> Doc:
        """Raises `InvalidRequestError` also for a refusal that comes as a 200."""
        answer = self._send(subject, key, call, body)
        with doubted("Adyen"):
            result = answer["disputeServiceResult"]
            if result["success"] is not True:
                text = redact(str(result.get("errorMessage") or "no reason given"))
                raise InvalidRequestError(f"Adyen refused to {subject}: {text}")
        return answer

    # --- saved cards ----------------------------------------------------------------------------------------

    def forget_payment_method(self, saved: SavedToken) -> None:
        if not _REFERENCE.fullmatch(saved.token):
            raise InvalidRequestError("this is no token of Adyen's: nothing was deleted")
        # The SDK writes the query without escaping it.
        query = {
            "merchantAccount": quote(self._account, safe=""),
            "shopperReference": quote(saved.customer_reference, safe=""),
        }
        try:
            with translated("forget_payment_method"):
                self._tokens.delete_token_for_stored_payment_details(saved.token, query_parameters=query)
        except InvalidRequestError as refusal:
            if not is_gone(refusal):
                raise

    # --- events ---------------------------------------------------------------------------------------------

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[Fact]:
        """The facts of all notifications in one webhook. Raises `InvalidRequestError` for one that cannot be read."""
        with readable("Adyen's webhook"):
            return read_facts(payload)

    def list_events(
        self, *, since: datetime, until: datetime | None = None, types: Sequence[str] = ()
    ) -> Iterable[Mapping[str, Any]]:
        """None: Adyen lists no events. It repeats a webhook that was not accepted for 30 days."""
        return ()

    # --- reports --------------------------------------------------------------------------------------------

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        """The payment accounting report of a day as CSV in chunks. Raises `ReportNotReadyError` until it exists.

        Adyen makes it in the account's own time zone: set that to UTC.
        """
        server, key = self._addresses.reports, self._report_key
        return download(server, self._account, day, api_key=key, timeout=self._timeout)
