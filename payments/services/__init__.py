"""The door of the floor: everything that the API, the admin, the workers and the neighbours may ask of payments."""

from payments.facts import FactOutcome
from payments.services.customers import (
    ChosenMethod,
    find_customer,
    find_or_create_customer,
    forget_removed_methods,
    list_payment_methods,
    remove_payment_method,
    resolve_payment_method,
    save_payment_method,
)
from payments.services.disputes import (
    accept_dispute,
    add_evidence,
    check_evidence,
    refresh_dispute,
    remove_evidence,
    submit_evidence,
    watch_disputes,
)
from payments.services.doubts import ask_due_operations, decide_operation, resolve_unknown
from payments.services.erasure import Erasure, continue_erasures, erase_customer, find_customer_to_erase
from payments.services.forced_ends import approve_force, explain_decision, propose_force, reject_force
from payments.services.gateway_facts import apply_gateway_fact, find_fact_order
from payments.services.holds import watch_holds
from payments.services.operations import (
    LegalAction,
    cancel_order,
    capture_order,
    legal_actions,
    refund_order,
    refundable_captures,
)
from payments.services.orders import (
    OrderDraft,
    add_note,
    confirm_order,
    find_order,
    place_order,
    resume_order,
)
from payments.services.periods import close_period, reopen_period
from payments.services.reviews import reject_review, release_review
from payments.services.sagas import (
    RetryOutcome,
    add_saga_note,
    compensate_saga,
    explain_tool,
    extend_deadline,
    find_doubt,
    latest_deadline,
    retry_saga,
    retry_sagas,
    skip_step,
    sweep_sagas,
)
from payments.services.token_keys import find_signing_key, rotate_due_token_keys, rotate_token_keys

__all__ = [
    "ChosenMethod",
    "Erasure",
    "FactOutcome",
    "LegalAction",
    "OrderDraft",
    "RetryOutcome",
    "accept_dispute",
    "add_evidence",
    "add_note",
    "add_saga_note",
    "apply_gateway_fact",
    "approve_force",
    "ask_due_operations",
    "cancel_order",
    "capture_order",
    "check_evidence",
    "close_period",
    "compensate_saga",
    "confirm_order",
    "continue_erasures",
    "decide_operation",
    "erase_customer",
    "explain_decision",
    "explain_tool",
    "extend_deadline",
    "find_customer",
    "find_customer_to_erase",
    "find_doubt",
    "find_fact_order",
    "find_or_create_customer",
    "find_order",
    "find_signing_key",
    "forget_removed_methods",
    "latest_deadline",
    "legal_actions",
    "list_payment_methods",
    "place_order",
    "propose_force",
    "refresh_dispute",
    "refund_order",
    "refundable_captures",
    "reject_force",
    "reject_review",
    "release_review",
    "remove_evidence",
    "remove_payment_method",
    "reopen_period",
    "resolve_payment_method",
    "resolve_unknown",
    "resume_order",
    "retry_saga",
    "retry_sagas",
    "rotate_due_token_keys",
    "rotate_token_keys",
    "save_payment_method",
    "skip_step",
    "submit_evidence",
    "sweep_sagas",
    "watch_disputes",
    "watch_holds",
]
