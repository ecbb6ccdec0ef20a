"""The one door through which every answer about money enters, and what follows from it."""

from payments.facts.adoption import adopt_operation, find_operation
from payments.facts.disputes import apply_dispute_fact
from payments.facts.inquiries import QUESTION_FIELDS, record_inquiry, schedule_question
from payments.facts.settling import FactOutcome, book_refund, close_operation, settle_operation
from payments.facts.totals import describe_order, record_event, save_totals
from payments.facts.warnings import FRAUD_WARNED, apply_fraud_warning

__all__ = [
    "FRAUD_WARNED",
    "QUESTION_FIELDS",
    "FactOutcome",
    "adopt_operation",
    "apply_dispute_fact",
    "apply_fraud_warning",
    "book_refund",
    "close_operation",
    "describe_order",
    "find_operation",
    "record_event",
    "record_inquiry",
    "save_totals",
    "schedule_question",
    "settle_operation",
]
