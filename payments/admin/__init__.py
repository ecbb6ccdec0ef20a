"""The admin of the floor, one noun a file."""

from payments.admin import (
    client,
    customer,
    dispute,
    force,
    gateway,
    ledger,
    oncall,
    order,
    payment,
    period,
    records,
    routing,
    saga,
)

__all__ = [
    "client",
    "customer",
    "dispute",
    "force",
    "gateway",
    "ledger",
    "oncall",
    "order",
    "payment",
    "period",
    "records",
    "routing",
    "saga",
]
