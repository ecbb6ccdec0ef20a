"""How long the archive of webhooks and the book of deliveries keep what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from payments.models import Order
from payments.retention import DAYS_90, MONTHS_13, MONTHS_25, Deed, Rule
from webhooks.models import DONE_STATES, DeliveryAttempt, InboundPayload

_DONE = "('processed', 'ignored')"


class WebhooksData:
    """See payments.retention.DataKeeper."""

    rules: Sequence[Rule] = (
        Rule(
            "webhooks_inboundpayload",
            Deed.DROP,
            DAYS_90,
            "received_at",
            "A gateway sends again for days; after that the payload only repeats what payments have become.",
            condition="NOT EXISTS (SELECT FROM webhooks_inboundwebhook webhook WHERE webhook.received_at < %(until)s "
            "AND webhook.state IN ('received', 'parked', 'failed', 'quarantined'))",
            key="webhook_id",
        ),
        Rule(
            "webhooks_inboundwebhook",
            Deed.DELETE,
            MONTHS_13,
            "received_at",
            "The event's id keeps it from counting twice; no gateway sends one of last year again.",
            condition=f"row.state IN {_DONE} AND NOT EXISTS (SELECT FROM webhooks_inboundwebhook other "
            "WHERE other.conflict_of_id = row.id)",
        ),
        Rule(
            "webhooks_rejecteddelivery",
            Deed.DELETE,
            DAYS_90,
            "last_at",
            "Counted traces of forged deliveries, with an IP address.",
        ),
        Rule(
            "webhooks_deliveryattempt",
            Deed.DROP,
            DAYS_90,
            "started_at",
            "What a storefront's endpoint answered, up to 8 KiB each time.",
        ),
        Rule(
            "webhooks_delivery",
            Deed.DELETE,
            MONTHS_13,
            "created_at",
            "That an endpoint was told; with its last status.",
            condition="row.state <> 'pending' AND NOT EXISTS "
            "(SELECT FROM webhooks_deliveryattempt try WHERE try.delivery_id = row.id)",
        ),
        Rule(
            "webhooks_endpointnotice",
            Deed.DELETE,
            MONTHS_13,
            "created_at",
            "That somebody was told of an endpoint's end.",
            condition="row.sent_at IS NOT NULL",
        ),
        # Declared here, since only here is it known what is still to be told.
        Rule(
            "payments_event",
            Deed.DELETE,
            MONTHS_25,
            "created_at",
            "The timeline of an order; what people did, and signed, is kept.",
            condition="row.actor NOT LIKE 'user:%%' AND row.id < "
            "(SELECT settled_until FROM webhooks_outboxposition) AND NOT EXISTS "
            "(SELECT FROM webhooks_delivery delivery WHERE delivery.event_id = row.id)",
            is_guarded=True,
        ),
    )
    kept: Mapping[str, str] = {
        "webhooks_endpoint": "Master data.",
        "webhooks_endpointsecret": "Master data, with their dates.",
        "webhooks_outboxposition": "One row.",
        "webhooks_gapcheck": "One row for each gateway account.",
    }

    def erase_order(self, order: Order) -> None:
        """What the gateway sent about the order, and what its storefront's endpoints answered.

        A payload that is still to be processed stays until it is; the purge has it after 90 days.
        """
        InboundPayload.objects.filter(webhook__order=order, webhook__state__in=DONE_STATES).delete()
        DeliveryAttempt.objects.filter(delivery__event__order=order).update(answer="")
