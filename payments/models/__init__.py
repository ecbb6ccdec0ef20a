"""The tables of the floor, one noun a file."""

from payments.models.client import ApiClient, ApiKey, TokenKey
from payments.models.customer import Customer, SavedPaymentMethod
from payments.models.dispute import Dispute, DisputeEvidence
from payments.models.event import Event
from payments.models.fulfilment import Shipment, StockItem, StockReservation
from payments.models.gateway import GatewayAccount, GatewaySecret
from payments.models.idempotency import IdempotencyKey
from payments.models.ledger import LedgerAccount, LedgerEntry, LedgerPeriod, Posting
from payments.models.oncall import OnCallPage
from payments.models.order import Order, OrderState
from payments.models.payment import (
    Attempt,
    AttemptState,
    Inquiry,
    Operation,
    OperationSource,
    OperationState,
    Payment,
    PaymentState,
)
from payments.models.routing import RoutingRule, RoutingTarget
from payments.models.saga import ForceRequest, SagaEffect, SagaEvent, SagaRun, SagaSignal, SagaState

__all__ = [
    "ApiClient",
    "ApiKey",
    "Attempt",
    "AttemptState",
    "Customer",
    "Dispute",
    "DisputeEvidence",
    "Event",
    "ForceRequest",
    "GatewayAccount",
    "GatewaySecret",
    "IdempotencyKey",
    "Inquiry",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerPeriod",
    "OnCallPage",
    "Operation",
    "OperationSource",
    "OperationState",
    "Order",
    "OrderState",
    "Payment",
    "PaymentState",
    "Posting",
    "RoutingRule",
    "RoutingTarget",
    "SagaEffect",
    "SagaEvent",
    "SagaRun",
    "SagaSignal",
    "SagaState",
    "SavedPaymentMethod",
    "Shipment",
    "StockItem",
    "StockReservation",
    "TokenKey",
]
