"""The tables of the floor, one noun a file."""

from payments.models.client import ApiClient, ApiKey
from payments.models.event import Event
from payments.models.fulfilment import Shipment, StockItem, StockReservation
from payments.models.gateway import GatewayAccount, GatewaySecret
from payments.models.idempotency import IdempotencyKey
from payments.models.ledger import LedgerAccount, LedgerEntry, Posting
from payments.models.oncall import OnCallPage
from payments.models.order import Order, OrderState
from payments.models.payment import (
    Attempt,
    AttemptState,
    Operation,
    OperationSource,
    OperationState,
    Payment,
    PaymentState,
)
from payments.models.saga import SagaEffect, SagaEvent, SagaRun, SagaSignal, SagaState

__all__ = [
    "ApiClient",
    "ApiKey",
    "Attempt",
    "AttemptState",
    "Event",
    "GatewayAccount",
    "GatewaySecret",
    "IdempotencyKey",
    "LedgerAccount",
    "LedgerEntry",
    "OnCallPage",
    "Operation",
    "OperationSource",
    "OperationState",
    "Order",
    "OrderState",
    "Payment",
    "PaymentState",
    "Posting",
    "SagaEffect",
    "SagaEvent",
    "SagaRun",
    "SagaSignal",
    "SagaState",
    "Shipment",
    "StockItem",
    "StockReservation",
]
