"""Who may do what: the one truth of role, model and action, given to the groups by `manage.py sync_roles`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from django.contrib.auth.models import Group, Permission
from django.db import transaction

# What everybody who works here may see: an order, and what became of its money.
_SEE_ORDERS = (
    "payments.view_order",
    "payments.view_payment",
    "payments.view_operation",
    "payments.view_sagarun",
    "payments.view_event",
)
_SEE_BOOKS = ("payments.view_ledgerentry", "payments.view_ledgeraccount", "payments.view_ledgerperiod")
_SEE_WEBHOOKS = ("webhooks.view_*",)
_SEE_FRAUD = ("fraud.view_assessment", "fraud.view_review")

# Names are app_label.codename; a pattern stands for every permission that it fits. Deny by default.
ROLES: dict[str, tuple[str, ...]] = {
    "Finance": (
        *_SEE_ORDERS,
        *_SEE_BOOKS,
        *_SEE_FRAUD,
        "payments.capture_order",
        "payments.cancel_order",
        "payments.refund_order",
        "payments.note_order",
        "payments.view_customer",
        "payments.view_dispute",
        "payments.answer_dispute",
        "payments.view_gatewayaccount",
        "payments.export_ledgerentry",
        "payments.close_ledgerperiod",
        "payments.reopen_ledgerperiod",
        "reconciliation.view_*",
        "reconciliation.assign_discrepancy",
        "reconciliation.resolve_discrepancy",
        "reconciliation.export_discrepancy",
        "reconciliation.start_run",
        "reconciliation.upload_report",
    ),
    "Fraud analyst": (
        *_SEE_ORDERS,
        "payments.note_order",
        "fraud.view_*",
        "fraud.claim_review",
        "fraud.decide_review",
        "fraud.*_listentry",
        "fraud.draft_ruleset",
        "fraud.publish_ruleset",
        "fraud.run_backtest",
        "fraud.add_label",
    ),
    # An analyst who also decides what others escalate, and is the second of four eyes.
    "Fraud supervisor": (
        *_SEE_ORDERS,
        "payments.note_order",
        "fraud.view_*",
        "fraud.claim_review",
        "fraud.decide_review",
        "fraud.decide_escalated_review",
        "fraud.confirm_review",
        "fraud.*_listentry",
        "fraud.draft_ruleset",
        "fraud.publish_ruleset",
        "fraud.run_backtest",
        "fraud.add_label",
    ),
    "On-call": (
        *_SEE_ORDERS,
        *_SEE_WEBHOOKS,
        "payments.view_customer",
        "payments.view_dispute",
        "payments.view_gatewayaccount",
        "payments.switch_gatewayaccount",
        "payments.view_routingrule",
        "payments.view_routingtarget",
        "payments.view_idempotencykey",
        "payments.view_oncallpage",
        "payments.view_stockitem",
        "payments.note_order",
        "payments.operate_saga",
        "payments.force_saga",
        "payments.view_forcerequest",
        "payments.decide_forcerequest",
        "payments.resolve_operation",
        "payments.decide_operation",
        "webhooks.replay_inboundwebhook",
        "webhooks.resend_delivery",
        "webhooks.enable_endpoint",
        "webhooks.recover_endpoint",
        "reconciliation.view_run",
        "reconciliation.start_run",
        "django_celery_beat.view_*",
    ),
    "Auditor": (
        "payments.view_*",
        "payments.export_ledgerentry",
        "fraud.view_*",
        "reconciliation.view_*",
        "webhooks.view_*",
        "reconciliation.export_discrepancy",
        "auth.view_user",
        "auth.view_group",
        "django_celery_beat.view_*",
    ),
    "Integrator": (
        "payments.view_order",
        "payments.view_payment",
        "payments.view_event",
        "payments.view_idempotencykey",
        "payments.view_apiclient",
        "payments.add_apiclient",
        "payments.change_apiclient",
        "payments.view_apikey",
        "payments.add_apikey",
        "payments.revoke_apikey",
        *_SEE_WEBHOOKS,
        "webhooks.*_endpoint",
        "webhooks.resend_delivery",
    ),
    # Runs the house, and moves no money: who needs both gets both roles.
    "Admin": (
        "auth.view_user",
        "auth.add_user",
        "auth.change_user",
        "auth.view_group",
        "payments.view_*",
        "fraud.view_*",
        "reconciliation.view_*",
        "webhooks.view_*",
        "payments.*_gatewayaccount",
        "payments.*_gatewaysecret",
        "payments.add_routingrule",
        "payments.change_routingrule",
        "payments.*_routingtarget",
        "payments.decide_forcerequest",
        "payments.change_stockitem",
        "payments.add_stockitem",
        "payments.add_apiclient",
        "payments.change_apiclient",
        "payments.add_apikey",
        "payments.revoke_apikey",
        "payments.erase_customer",
        "webhooks.*_endpoint",
        "fraud.publish_ruleset",
        "reconciliation.*_tolerance",
        "django_celery_beat.*",
    ),
}


def sync_roles() -> dict[str, int]:
    """Give every role's group exactly what this file says, in one commit; returns how many permissions each has.

    Raises `LookupError`, and changes nothing, when a line of this file fits no permission of the database.
    """
    known = {
        _name(permission): permission for permission in Permission.objects.select_related("content_type")
    }
    with transaction.atomic():
        for role, wanted in ROLES.items():
            group, _ = Group.objects.get_or_create(name=role)
            group.permissions.set([known[name] for name in expand(role, wanted, known)])
    return {role: len(expand(role, wanted, known)) for role, wanted in ROLES.items()}


def expand(role: str, wanted: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names of the known permissions that a role's lines fit. Raises `LookupError` for one that fits none."""
    known = list(known)
    found: set[str] = set()
    for pattern in wanted:
        fitting = {name for name in known if fnmatchcase(name, pattern)}
        if not fitting:
            raise LookupError(
                f"The role {role} wants {pattern}, which no permission fits; no role was changed."
            )
        found |= fitting
    return sorted(found)


def _name(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"
