"""The admin of the floor, one noun a file."""

from payments.admin import client, gateway, ledger, order, payment, records, saga

__all__ = ["client", "gateway", "ledger", "order", "payment", "records", "saga"]
