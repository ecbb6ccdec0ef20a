"""Braintree through its official SDK: our requests in, our results out, every failure in our taxonomy.

Braintree knows no idempotency key, so every transaction carries our operation's id as its `order_id`, by which it is
searched; nothing is sent again before that question is answered. A capture of the whole is the authorization itself
under the capture's id; a capture of a part, and a refund, are transactions of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from typing import Any

from braintree.exceptions.not_found_error import NotFoundError

from payments.errors import InvalidRequestError, ReportNotReadyError
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
from payments.gateways.braintree import evidence, movements, wire
from payments.gateways.braintree.client import build_client
from payments.gateways.braintree.disputes import read_dispute
from payments.gateways.braintree.errors import (
    check,
    translated,
)
from payments.gateways.braintree.events import read_facts
from payments.gateways.braintree.reports import stream_report
from payments.gateways.braintree.requests import build_charge
from payments.gateways.braintree.search import fetch, find_dispute, prove_address
from payments.gateways.connection import split_timeout
from payments.gateways.credentials import is_true, read_timeout, require
from payments.gateways.doubt import readable
from payments.kinds import DisputeState

Doc = dict[str, Any]

MERCHANT_ACCOUNT = "merchant_account_"  # and a currency: the merchant account that charges it


class BraintreeGateway:
    """One Braintree account. Amounts in results are those that Braintree states, right or wrong.

    No webhook tells of a movement: Braintree sends those of transactions for direct debits alone.
    """

    capabilities = Capabilities(
        idempotency_key_hours=0,
        asynchronous_refunds=True,
        refunds_per_capture=True,
        dispute_evidence=True,
        saved_payment_methods=True,
        sca_exemptions=frozenset({"low_value", "tra", "recurring"}),
        challenges=False,
        lists_events=False,
        webhook_kinds=frozenset(),
    )

    def __init__(
        self,
        merchant_id: str,
        public_key: str,
        private_key: str,
        *,
        api_base: str,
        timeout: float = 25.0,
        merchant_accounts: Mapping[str, str] | None = None,
        several_captures: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`timeout` is the longest that one call may take, in seconds, connecting included.

        `merchant_accounts` are keyed by currency. `several_captures`: Braintree has enabled multiple partial
        settlements, a limited release for cards, for the account. Raises `ValueError` for an address that the SDK
        cannot reach.
        """
        self._timeout = split_timeout(timeout)
        self._merchant_accounts = merchant_accounts or {}
        self._clock = clock
        self.capabilities = replace(self.capabilities, several_captures=several_captures)
        self._sdk = build_client(
            merchant_id, public_key, private_key, api_base=api_base, timeout=self._timeout
        )

    @classmethod
    def from_account(cls, credentials: Mapping[str, str]) -> BraintreeGateway:
        """From `merchant_id`, `public_key` and `api_key` (the private key); optionally the others below.

        `api_base` is `sandbox`, `production` (as it is without) or an address; `merchant_account_EUR` names the
        merchant account of a currency; `several_captures` is `true` where Braintree has enabled it; `timeout`.
        Raises `ValueError` without a key.
        """
        require(credentials, "a Braintree", "merchant_id", "public_key", "api_key")
        return cls(
            credentials["merchant_id"],
            credentials["public_key"],
            credentials["api_key"],
            api_base=credentials.get("api_base") or "production",
            timeout=read_timeout(credentials),
            merchant_accounts=find_merchant_accounts(credentials),
            several_captures=is_true(credentials, "several_captures"),
        )

    # --- money ----------------------------------------------------------------------------------------------

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        """A nonce that the browser authenticated brings its 3-D Secure along; there is no redirect.

        Asked for with a nonce that was not authenticated, it is a decline with the advice `authenticate`.
        """
        params = build_charge(request, self._merchant_accounts)
        return movements.authorize(self._sdk, request, params)

    def capture(self, request: CaptureRequest) -> ChargeResult:
        """A final capture of less than the hold releases the rest; several need the account's permission.

        Raises `InvalidRequestError` for `final=False` on an account that may capture once.
        """
        if request.final and (whole := movements.capture_whole(self._sdk, request)):
            return whole
        if not self.capabilities.several_captures:
            raise InvalidRequestError(
                f"{request.reference} can be captured once only: capture it with final=True; nothing was sent"
            )
        return movements.capture_part(self._sdk, request)

    def void(self, request: VoidRequest) -> ChargeResult:
        """Asks first: Braintree would also void what is captured and not yet settled.

        After captures of parts the rest is released by voiding their parent; after one capture of less than the
        hold it is released already. Raises `InvalidRequestError` when it is captured.
        """
        return movements.void(self._sdk, request)

    def refund(self, request: RefundRequest) -> RefundResult:
        """Braintree refunds what has settled, usually the night after. Before that, the whole of a capture is voided.

        Raises `NotSettledError` (send it again later) for a part of what has not settled.
        """
        return movements.refund(self._sdk, request)

    # --- questions ------------------------------------------------------------------------------------------

    def fetch(self, request: FetchRequest) -> ChargeResult | RefundResult | None:
        """What became of an operation: by the transaction's id, else by its order id, which is ours."""
        return fetch(self._sdk, request)

    # --- disputes -------------------------------------------------------------------------------------------

    def fetch_dispute(self, reference: str) -> DisputeFact | None:
        with translated("fetch_dispute", reference):
            dispute = find_dispute(self._sdk, reference)
            return read_dispute(dispute, source="poll") if dispute else None

    def submit_evidence(self, request: EvidenceRequest) -> DisputeFact:
        """Texts as comments under their kind, files as uploaded documents, then the answer is closed.

        What an earlier try has added is not added again. Raises `InvalidRequestError` when it is decided.
        """
        with translated("submit_evidence", request.key):
            dispute = self._get_dispute(request.reference)
            if dispute["status"] != "open":
                return read_answered(dispute, request)
            evidence.send_evidence(self._sdk, dispute, request)
            return read_dispute(self._get_dispute(request.reference), source="answer")

    def accept_dispute(self, reference: str, *, key: str) -> DisputeFact:
        with translated("accept_dispute", key):
            answer = self._sdk.dispute.accept(reference)
            fact = read_dispute(self._get_dispute(reference), source="answer")
            if fact.state is not DisputeState.ACCEPTED:
                check(answer, f"accept_dispute {reference}")
            return fact

    def _get_dispute(self, reference: str) -> Doc:
        dispute = find_dispute(self._sdk, reference)
        if dispute is None:
            raise InvalidRequestError(f"Braintree knows no dispute {reference}: nothing was sent")
        return dispute

    # --- saved payment methods ------------------------------------------------------------------------------

    def forget_payment_method(self, saved: SavedToken) -> None:
        with translated("forget_payment_method"):
            try:
                self._sdk.payment_method.delete(saved.token.removeprefix(wire.VAULT))
            except NotFoundError:
                prove_address(self._sdk, "none")

    # --- events ---------------------------------------------------------------------------------------------

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[Fact]:
        """Raises `InvalidRequestError` for a notification that lacks what its kind promises."""
        with readable(f"Braintree's {payload.get('kind', 'notification')}"):
            return read_facts(payload)

    def list_events(
        self, *, since: datetime, until: datetime | None = None, types: Sequence[str] = ()
    ) -> Iterable[Mapping[str, Any]]:
        """Braintree keeps no list of its notifications."""
        return ()

    # --- reports --------------------------------------------------------------------------------------------

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        """The transactions whose settlement ended on a UTC day, as CSV in chunks of an hour.

        Braintree's own batch summary has sums only, so this is a format of ours, with the columns
        `reports.REPORT_COLUMNS`: sales and credits (refunds) that settled; captures that were voided before
        they settled (`voided`: never paid, and given back at once); and what the banks refused
        (`settlement_declined`, `settlement_failed`), of which Braintree sends no word for cards. Amounts are
        unsigned major units. Raises `ReportNotReadyError` before the day is over.
        """
        start = datetime.combine(day, day_time(), UTC)
        if self._clock() < start + timedelta(days=1):
            raise ReportNotReadyError(f"Braintree's day {day} is not over in UTC")
        return stream_report(self._sdk, start)


def find_merchant_accounts(credentials: Mapping[str, str]) -> dict[str, str]:
    """By currency."""
    return {
        name.removeprefix(MERCHANT_ACCOUNT).upper(): value
        for name, value in credentials.items()
        if name.startswith(MERCHANT_ACCOUNT) and value
    }


def read_answered(dispute: Doc, request: EvidenceRequest) -> DisputeFact:
    """An answer of ours that was closed already is a success; a decision is not."""
    fact = read_dispute(dispute, source="answer")
    is_ours = evidence.find_sent(dispute) >= set(evidence.read_texts(request).values())
    if fact.state is DisputeState.UNDER_REVIEW and is_ours:
        return fact
    raise InvalidRequestError(f"The dispute {fact.reference} is {dispute['status']}: nothing was sent")
