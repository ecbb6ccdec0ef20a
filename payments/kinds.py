"""The four kinds of money movement, shared by the tables and the gateways."""

from __future__ import annotations

from enum import StrEnum


class OperationKind(StrEnum):
    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"
