"""Rows for tests, made by factory-boy; each factory makes a whole and lawful row."""

from tests.factories.payments import (
    ApiClientFactory,
    ApiKeyFactory,
    AttemptFactory,
    EventFactory,
    GatewayAccountFactory,
    GatewaySecretFactory,
    OperationFactory,
    OrderFactory,
    PaidOrderFactory,
    PaymentFactory,
    SagaRunFactory,
    StockItemFactory,
)

__all__ = [
    "ApiClientFactory",
    "ApiKeyFactory",
    "AttemptFactory",
    "EventFactory",
    "GatewayAccountFactory",
    "GatewaySecretFactory",
    "OperationFactory",
    "OrderFactory",
    "PaidOrderFactory",
    "PaymentFactory",
    "SagaRunFactory",
    "StockItemFactory",
]
