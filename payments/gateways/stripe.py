"""Stripe through its official SDK: our requests in, our results out, every failure in our taxonomy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from typing import Any, NoReturn

import requests
import stamina
import stripe
import urllib3.exceptions

from payments.errors import (
    AmountTooLargeError,
    CardDeclinedError,
    GatewayTimeoutError,
    InvalidRequestError,
    NetworkError,
    PaymentError,
    RateLimitedError,
    ReportNotReadyError,
)
from payments.gateways import stripe_wire as wire
from payments.gateways.base import (
    Capabilities,
    CaptureRequest,
    ChargeRequest,
    ChargeResult,
    ChargeStatus,
    FetchRequest,
    GatewayFact,
    RefundRequest,
    RefundResult,
    VoidRequest,
)
from payments.kinds import OperationKind
from payments.money import Money
from payments.redaction import redact

Doc = dict[str, Any]
MoneyRequest = ChargeRequest | CaptureRequest | VoidRequest | RefundRequest

API_BASE = "https://api.stripe.com"
FILES_BASE = "https://files.stripe.com"
CONNECT_SECONDS = 3.0  # what is not connected by then is not going to be; nothing was sent
KEY_LIFETIME = timedelta(hours=24)  # Stripe forgets a key after it, so nothing is sent again later
CLOCK_SKEW = timedelta(minutes=5)  # between our clock and Stripe's, when objects are searched by their age
EXPAND_CHARGE = ["latest_charge"]
CANCELLATION_REASONS = frozenset({"abandoned", "duplicate", "fraudulent", "requested_by_customer"})
REFUND_REASONS = CANCELLATION_REASONS - {"abandoned"}
METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 50, 40, 500  # docs.stripe.com/metadata

# What changed the balance on a day, payouts excepted: the nightly run compares it with our own books.
REPORT_TYPE = "balance_change_from_activity.itemized.3"
REPORT_COLUMNS = [
    "balance_transaction_id",
    "source_id",
    "payment_intent_id",
    "charge_id",
    "created_utc",
    "available_on_utc",
    "automatic_payout_id",
    "automatic_payout_effective_at_utc",
    "currency",
    "gross",
    "fee",
    "net",
    "reporting_category",
    "customer_facing_amount",
    "customer_facing_currency",
    "description",
    f"payment_metadata[{wire.ORDER_ID}]",
    f"payment_metadata[{wire.PAYMENT_ID}]",
    f"payment_metadata[{wire.OPERATION_ID}]",
    f"refund_metadata[{wire.OPERATION_ID}]",
]
REPORT_PATIENCE = timedelta(minutes=8)  # below the task's own limit; a run usually takes a minute or two
CHUNK_BYTES = 64 * 1024
KEY_REUSED_CODES = frozenset({"idempotency_error", "idempotency_key_in_use"})
WRONG_STATE_CODES = frozenset({"payment_intent_unexpected_state", "charge_already_captured"})


class StripeGateway:
    """One Stripe account. Amounts in results are those that Stripe states, right or wrong."""

    capabilities = Capabilities(idempotency_key_hours=24, partial_capture=True, asynchronous_refunds=True)

    def __init__(self, api_key: str, *, api_base: str = API_BASE, timeout: float = 25.0) -> None:
        """`timeout` is the longest that one call may take, in seconds, connecting included."""
        connect = min(CONNECT_SECONDS, timeout / 2)
        self._timeout = (connect, timeout - connect)
        self._api_base = api_base.rstrip("/")
        self._api_key = api_key
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": self._api_base},
            max_network_retries=0,  # retries belong to the resilience stack
            http_client=stripe.RequestsClient(timeout=self._timeout),
        )

    @classmethod
    def from_account(cls, credentials: Mapping[str, str]) -> StripeGateway:
        """From `api_key`, and optionally `api_base` and `timeout`. Raises `ValueError` without a key."""
        if not credentials.get("api_key"):
            raise ValueError("a Stripe account needs the credential api_key")
        seconds = credentials.get("timeout") or os.environ.get("GATEWAY_TIMEOUT_SECONDS") or "25"
        return cls(
            credentials["api_key"],
            api_base=credentials.get("api_base") or API_BASE,
            timeout=float(seconds),
        )

    # --- money ----------------------------------------------------------------------------------------------

    def authorize(self, request: ChargeRequest) -> ChargeResult:
        params = build_charge(request)
        try:
            intent = self._send("authorize", request, self._client.v1.payment_intents.create, params)
        except StripeDeclinedError as declined:
            return declined.as_result(request.amount)
        return read_or_doubt(wire.read_authorization, intent)

    def capture(self, request: CaptureRequest) -> ChargeResult:
        """Raises `InvalidRequestError` for `final=False`: ordinary accounts capture an authorization once."""
        if not request.final:
            raise InvalidRequestError(
                f"{request.reference} can be captured once only: capture it with final=True; nothing was sent"
            )
        params = {
            "amount_to_capture": wire.to_wire(request.amount),
            "metadata": {wire.CAPTURE_OPERATION_ID: request.operation_id},
            "expand": EXPAND_CHARGE,
        }
        capture = self._client.v1.payment_intents.capture
        try:
            intent = self._send("capture", request, capture, request.reference, params)
        except StripeDeclinedError as declined:
            return declined.as_result(request.amount, reference=request.reference)
        except WrongStateError as refusal:
            return self._settle_refusal(refusal, OperationKind.CAPTURE, request)
        return read_or_doubt(wire.read_capture, intent)

    def void(self, request: VoidRequest) -> ChargeResult:
        params: Doc = {"expand": EXPAND_CHARGE}
        if request.reason in CANCELLATION_REASONS:
            params["cancellation_reason"] = request.reason
        cancel = self._client.v1.payment_intents.cancel
        try:
            intent = self._send("void", request, cancel, request.reference, params)
        except WrongStateError as refusal:
            return self._settle_refusal(refusal, OperationKind.VOID, request)
        return read_or_doubt(wire.read_void, intent)

    def refund(self, request: RefundRequest) -> RefundResult:
        params: Doc = {
            "payment_intent": request.reference,
            "amount": wire.to_wire(request.amount),
            "metadata": build_metadata({"reason": request.reason}, operation_id=request.operation_id),
        }
        if request.reason in REFUND_REASONS:
            params["reason"] = request.reason
        refund = self._send("refund", request, self._client.v1.refunds.create, params)
        with doubted():
            return wire.read_refund(refund)

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
                refund = self._find_refund(request)
                return wire.read_refund(refund) if refund else None
            intent = self._find_intent(request)
            if intent is None:
                return None
            return wire.read_intent(intent, kind=request.kind, operation_id=request.operation_id)

    def _find_intent(self, request: FetchRequest) -> Doc | None:
        if request.reference:
            return self._retrieve_intent(request.reference)
        name = wire.CAPTURE_OPERATION_ID if request.kind is OperationKind.CAPTURE else wire.OPERATION_ID
        query = f"metadata['{name}']:'{request.operation_id}'"
        hits = self._client.v1.payment_intents.search({"query": query, "limit": 2})
        found = [to_doc(hit) for hit in hits.data] or self._list_recent("payment_intents", request.since)
        match = wire.find_by_metadata(found, name, request.operation_id)
        return self._retrieve_intent(match["id"]) if match else None

    def _retrieve_intent(self, reference: str) -> Doc | None:
        try:
            return to_doc(self._client.v1.payment_intents.retrieve(reference, {"expand": EXPAND_CHARGE}))
        except stripe.InvalidRequestError as error:
            if is_missing(error):
                return None
            raise

    def _find_refund(self, request: FetchRequest) -> Doc | None:
        try:
            if request.refund_reference:
                return to_doc(self._client.v1.refunds.retrieve(request.refund_reference))
            if not request.reference:
                found = self._list_recent("refunds", request.since)
            else:
                page = self._client.v1.refunds.list({"payment_intent": request.reference, "limit": 100})
                found = [to_doc(refund) for refund in page.auto_paging_iter()]
        except stripe.InvalidRequestError as error:
            if is_missing(error):
                return None
            raise
        match = wire.find_by_metadata(found, wire.OPERATION_ID, request.operation_id)
        return dict(match) if match else None

    def _list_recent(self, kind: str, since: datetime | None) -> list[Doc]:
        """Objects as old as an operation begun at `since` can have made."""
        if since is None:
            return []
        window = {
            "gte": int((since - CLOCK_SKEW).timestamp()),
            "lte": int((since + KEY_LIFETIME).timestamp()),
        }
        service: Any = getattr(self._client.v1, kind)
        page = service.list({"created": window, "limit": 100})
        return [to_doc(item) for item in page.auto_paging_iter()]

    # --- events ---------------------------------------------------------------------------------------------

    def read_event(self, payload: Mapping[str, Any]) -> Sequence[GatewayFact]:
        """Raises `InvalidRequestError` for an event that lacks what its type promises."""
        try:
            return wire.read_facts(payload)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InvalidRequestError(
                f"Stripe's event {payload.get('id', '')} cannot be read ({type(error).__name__})"
            ) from error

    def list_events(self, *, since: datetime, types: Sequence[str] = ()) -> Iterable[Mapping[str, Any]]:
        """Oldest first; Stripe keeps events for 30 days and lists the newest first, so all are read."""
        params: Any = {"created": {"gte": int(since.timestamp())}, "limit": 100}
        if len(types) == 1:
            params["type"] = types[0]
        with translated("list_events"):
            page = self._client.v1.events.list(params)
            events = [to_doc(event) for event in page.auto_paging_iter()]
        return [event for event in reversed(events) if not types or event["type"] in types]

    # --- reports --------------------------------------------------------------------------------------------

    def settlement_report(self, *, day: date) -> Iterator[bytes]:
        """The day's balance activity as CSV in chunks. Raises `ReportNotReadyError` until complete."""
        start = datetime.combine(day, day_time(), UTC)
        end = start + timedelta(days=1)
        with translated("settlement_report"):
            kind = to_doc(self._client.v1.reporting.report_types.retrieve(REPORT_TYPE))
            if kind["data_available_end"] < end.timestamp():
                known = wire.read_time(kind["data_available_end"])
                raise ReportNotReadyError(
                    f"Stripe's data of {day} is not complete: it ends at {known:%F %T} UTC"
                )
            interval = {"interval_start": int(start.timestamp()), "interval_end": int(end.timestamp())}
            params: Any = {"report_type": REPORT_TYPE, "parameters": {**interval, "columns": REPORT_COLUMNS}}
            run = self._client.v1.reporting.report_runs.create(params)
            url = self._await_report(run.id, day)
        return self._download(url)

    def _await_report(self, run_id: str, day: date) -> str:
        """The address of the finished file. Raises `ReportNotReadyError` when it takes too long."""
        for attempt in stamina.retry_context(
            on=ReportNotReadyError,
            attempts=None,
            timeout=REPORT_PATIENCE,
            wait_initial=0.1,
            wait_max=15.0,
            wait_jitter=0.1,
        ):
            with attempt:
                run = to_doc(self._client.v1.reporting.report_runs.retrieve(run_id))
                if run["status"] == "pending":
                    raise ReportNotReadyError(f"Stripe's report run {run_id} of {day} is not finished")
        if run["status"] != "succeeded":
            reason = redact(str(run["error"]))
            raise InvalidRequestError(f"Stripe's report run {run_id} of {day} failed: {reason}")
        return str(run["result"]["url"])

    def _download(self, url: str) -> Iterator[bytes]:
        # The key goes where Stripe's files are, and nowhere else that an answer may name.
        if not url.startswith((f"{FILES_BASE}/", f"{self._api_base}/")):
            raise InvalidRequestError("Stripe's report file is not on its own servers: it was not fetched")
        with translated("settlement_report"):
            response = raise_or_return(
                requests.get(
                    url,
                    headers={"Authorization": f"Bearer {self._api_key}"},
                    timeout=self._timeout,
                    stream=True,
                    allow_redirects=False,
                )
            )
        return stream(response)


def raise_or_return(response: requests.Response) -> requests.Response:
    """Raises `PaymentError` for anything but 200."""
    if response.status_code == 200:
        return response
    response.close()
    raise error_for_status(response.status_code, f"Stripe's report file answered {response.status_code}")


def stream(response: requests.Response) -> Iterator[bytes]:
    """Raises `GatewayTimeoutError` when the file ends early."""
    with response, translated("settlement_report"):
        yield from response.iter_content(CHUNK_BYTES)


# --- building and reading -----------------------------------------------------------------------------------


def build_charge(request: ChargeRequest) -> Doc:
    """No `receipt_email`: Stripe would write to the customer in its own name."""
    params: Doc = {
        "amount": wire.to_wire(request.amount),
        "currency": request.amount.currency.lower(),
        "payment_method": request.payment_method,
        "payment_method_types": ["card"],
        "capture_method": "manual",
        "confirm": True,
        "metadata": build_metadata(
            request.metadata,
            operation_id=request.operation_id,
            payment_id=request.payment_id,
            order_id=request.order_id,
        ),
        "expand": EXPAND_CHARGE,
    }
    if request.request_three_d_secure:
        params["payment_method_options"] = {"card": {"request_three_d_secure": "any"}}
    if request.return_url:
        params["return_url"] = request.return_url
    return params


def build_metadata(extra: Mapping[str, str], **ours: str) -> dict[str, str]:
    """Our ids, and as much of the caller's own as Stripe takes; a label too long must not fail a payment."""
    room = METADATA_KEYS - len(ours) - 1  # one more comes with the capture
    fitting = [(key, value) for key, value in extra.items() if value and len(key) <= METADATA_KEY_LENGTH]
    return {**{key: str(value)[:METADATA_VALUE_LENGTH] for key, value in fitting[:room]}, **ours}


def to_doc(answer: stripe.StripeObject) -> Doc:
    return dict(answer.to_dict())


@contextmanager
def doubted() -> Iterator[None]:
    """An answer that cannot be read leaves the outcome unknown: it is not a refusal."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise GatewayTimeoutError(
            f"Stripe's answer cannot be read ({type(error).__name__}): the outcome is unknown"
        ) from error


def read_or_doubt(read: Callable[[Doc], ChargeResult | None], intent: Doc) -> ChargeResult:
    """Raises `GatewayTimeoutError` when an answer of success does not say that it was done."""
    with doubted():
        result = read(intent)
    if not isinstance(result, ChargeResult):
        raise GatewayTimeoutError(
            f"Stripe's answer leaves {intent['id']} in {intent['status']}: the outcome is unknown"
        )
    return result


def is_missing(error: stripe.InvalidRequestError) -> bool:
    """A bare 404 is not enough: behind a wrong address nothing would ever be found."""
    return error.code == "resource_missing"


# --- errors -------------------------------------------------------------------------------------------------


class StripeDeclinedError(CardDeclinedError):
    """Stripe answered 402."""

    def __init__(self, error: Doc) -> None:
        self.error = error
        self.decline = wire.read_decline(error)
        super().__init__(
            self.decline.message,
            decline_code=self.decline.code,
            gateway_code=self.decline.gateway_code,
            advice=self.decline.advice,
        )

    def as_result(self, asked: Money, *, reference: str = "") -> ChargeResult:
        """A decline is a result. The amount is the intent's; without one, what was asked."""
        intent = self.error.get("payment_intent") or {}
        amount = asked
        if intent and not reference:
            with doubted():
                amount = wire.from_wire(intent["amount"], intent["currency"])
        return ChargeResult(
            status=ChargeStatus.DECLINED,
            reference=reference or intent.get("id", ""),
            amount=amount,
            card=wire.read_refused_card(self.error),
            decline=self.decline,
            raw=wire.trim(self.error),
        )


class WrongStateError(InvalidRequestError):
    """Stripe refused because of the intent's state: perhaps it is done already."""


@contextmanager
def translated(operation: str, operation_id: str = "") -> Iterator[None]:
    """Every way in which a call can fail, in our own words."""
    subject = f"{operation} {operation_id}".strip()
    try:
        yield
    except stripe.CardError as error:
        raise StripeDeclinedError(error_body(error)) from error
    except stripe.StripeError as error:
        raise_translated(error, subject)
    except requests.RequestException as error:
        raise error_for_connection(error, subject) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise GatewayTimeoutError(
            f"Stripe's answer to {subject} cannot be read ({type(error).__name__}): the outcome is unknown"
        ) from error


def error_body(error: stripe.StripeError) -> Doc:
    body = error.json_body
    found = body.get("error") if isinstance(body, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def raise_translated(error: stripe.StripeError, subject: str) -> NoReturn:
    if isinstance(error, stripe.APIConnectionError):
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise error_for_connection(cause, subject) from error
    body = error_body(error)
    code = str(body.get("code") or body.get("type") or "")
    if error.http_status == 401:
        message = f"Stripe does not know the API key of this account: {subject} was not done"
    else:
        text = redact(str(body.get("message") or "no reason given"))
        message = f"Stripe answered {error.http_status} to {subject}: {text}"
    raise error_for_status(error.http_status, message, gateway_code=code) from error


def error_for_status(status: int | None, message: str, *, gateway_code: str = "") -> PaymentError:
    """A 409 means that the same key is being worked on, a 5xx that anything may have happened.

    So does a key that was used with other parameters: it did something, and not what we asked for now.
    """
    if status == 429 or gateway_code == "rate_limit":
        return RateLimitedError(message, gateway_code=gateway_code)
    is_reused = gateway_code in KEY_REUSED_CODES
    if status is None or status < 400 or status in (408, 409) or status >= 500 or is_reused:
        return GatewayTimeoutError(message, gateway_code=gateway_code)
    if gateway_code == "amount_too_large":
        return AmountTooLargeError(message, gateway_code=gateway_code)
    if gateway_code in WRONG_STATE_CODES:
        return WrongStateError(message, gateway_code=gateway_code)
    return InvalidRequestError(message, gateway_code=gateway_code)


def error_for_connection(error: Exception, subject: str) -> PaymentError:
    name = type(error).__name__
    if surely_not_sent(error):
        return NetworkError(f"Stripe was not reached ({name}): {subject} was not sent")
    if isinstance(error, ValueError) and isinstance(error, requests.RequestException):
        return InvalidRequestError(f"The address of Stripe's API is wrong ({name}): {subject} was not sent")
    return GatewayTimeoutError(f"Stripe did not answer {subject} ({name}): the outcome is unknown")


def surely_not_sent(error: Exception) -> bool:
    """Whether the connection itself failed: no address, nobody there, no handshake, no trust."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason: Any = error.args[0] if error.args else None
    reason = getattr(reason, "reason", reason)
    if isinstance(reason, urllib3.exceptions.ProxyError):
        reason = reason.original_error
    if isinstance(error, requests.exceptions.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" in str(error)
    return isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
