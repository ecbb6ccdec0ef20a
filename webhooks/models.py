"""The archive of what gateways told us, and the book of what we told the storefronts."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.db.models import Q
from django.utils import timezone

from payments.encryption import EncryptedTextField
from payments.models import ApiClient, Event, GatewayAccount, Order
from payments.models.fields import PrefixedIdField

# --- in -----------------------------------------------------------------------------------------------------


class InboundState(models.TextChoices):
    RECEIVED = "received", "Received"
    PARKED = "parked", "Parked"
    FAILED = "failed", "Failed"
    PROCESSED = "processed", "Processed"
    IGNORED = "ignored", "Ignored"
    QUARANTINED = "quarantined", "Quarantined"


# A worker takes these when they are due; in the others nothing moves but by an operator.
OPEN_STATES = (InboundState.RECEIVED, InboundState.PARKED, InboundState.FAILED)
TROUBLED_STATES = (InboundState.PARKED, InboundState.FAILED, InboundState.QUARANTINED)
UNFINISHED_STATES = (InboundState.RECEIVED, *TROUBLED_STATES)
DONE_STATES = (InboundState.PROCESSED, InboundState.IGNORED)


class InboundSource(models.TextChoices):
    WEBHOOK = "webhook", "Webhook"
    GATEWAY_LIST = "gateway_list", "Gateway's event list"


class InboundWebhookQuerySet(models.QuerySet["InboundWebhook"]):
    def open(self) -> InboundWebhookQuerySet:
        """Not finished yet, whether or not a worker has tried."""
        return self.filter(state__in=OPEN_STATES)

    def troubled(self) -> InboundWebhookQuerySet:
        """Tried at least once without success."""
        return self.filter(state__in=TROUBLED_STATES)

    def about(self, account: GatewayAccount, references: list[str]) -> InboundWebhookQuerySet:
        """What the account said of these payments."""
        return self.filter(account=account, subject__in=references)


class InboundWebhook(models.Model):
    """One verified event of a gateway account; a second delivery only counts up `duplicates`.

    This table is what keeps an event from counting twice, so it is small and never partitioned; what was sent is
    in `stored`. A delivery with a known event id but other content is a row of its own with `conflict_of` set.
    """

    id = PrefixedIdField(prefix="inb")
    account = models.ForeignKey(
        GatewayAccount, on_delete=models.PROTECT, related_name="inbound_webhooks", db_index=False
    )
    event_id = models.CharField(max_length=100, help_text="The gateway's id of the event.")
    event_type = models.CharField(max_length=100)
    subject = models.CharField(
        max_length=100, blank=True, help_text="The gateway's reference of the payment."
    )
    source = models.CharField(max_length=12, choices=InboundSource.choices, default=InboundSource.WEBHOOK)
    sha256 = models.CharField(max_length=64, help_text="Of the body as received.")
    verified_with = models.CharField(
        max_length=40, blank=True, help_text="Which of the account's secrets signed it."
    )
    received_at = models.DateTimeField()
    duplicates = models.PositiveIntegerField(default=0)
    conflict_of = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="conflicts", db_index=False
    )
    state = models.CharField(max_length=12, choices=InboundState.choices, default=InboundState.RECEIVED)
    attempts = models.PositiveSmallIntegerField(
        default=0, help_text="Tries since it came or was last replayed."
    )
    epoch = models.PositiveIntegerField(
        default=0, help_text="Counts every claim; a stale worker writes nothing."
    )
    next_try_at = models.DateTimeField(null=True, blank=True, help_text="When it is due, or its lease ends.")
    last_error = models.TextField(blank=True)
    outcome = models.JSONField(default=dict, blank=True, help_text="What it did.")
    order = models.ForeignKey(
        Order,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="inbound_webhooks",
        db_index=False,
    )
    processed_at = models.DateTimeField(null=True, blank=True)
    replayed_by = models.CharField(max_length=150, blank=True)
    replayed_at = models.DateTimeField(null=True, blank=True)
    alarmed_at = models.DateTimeField(
        null=True, blank=True, help_text="When on-call was told that it stands still."
    )

    objects = InboundWebhookQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name = "inbound webhook"
        permissions = [("replay_inboundwebhook", "Can replay inbound webhooks")]
        constraints = [
            # The dedup key: the receipt's ON CONFLICT names this very index.
            models.UniqueConstraint(
                fields=["account", "event_id"],
                condition=Q(conflict_of__isnull=True),
                name="inbound_once_per_event",
            ),
            models.UniqueConstraint(
                fields=["account", "event_id", "sha256"],
                condition=Q(conflict_of__isnull=False),
                name="inbound_conflict_once",
            ),
            models.CheckConstraint(condition=Q(state__in=InboundState.values), name="inbound_state_known"),
            models.CheckConstraint(
                condition=~Q(state__in=["received", "parked", "failed"]) | Q(next_try_at__isnull=False),
                name="inbound_open_is_scheduled",
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_try_at"],
                condition=Q(state__in=["received", "parked", "failed"]),
                name="inbound_due",
            ),
            models.Index(fields=["state", "-id"], name="inbound_state_newest"),
            models.Index(fields=["account", "-id"], name="inbound_of_account"),  # when it was last heard
            models.Index(fields=["account", "subject"], condition=~Q(subject=""), name="inbound_subject"),
            models.Index(fields=["order"], condition=Q(order__isnull=False), name="inbound_order"),
            models.Index(
                fields=["state"],
                condition=Q(state__in=["parked", "failed", "quarantined"], alarmed_at__isnull=True),
                name="inbound_untold",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id}"

    @property
    def lag(self) -> timedelta:
        """From receipt to the effect, or to now while there is none."""
        return (self.processed_at or timezone.now()) - self.received_at

    @property
    def payload(self) -> bytes:
        """The event as JSON; b"" when it is not kept any more."""
        return bytes(self.stored.body) if hasattr(self, "stored") else b""


class InboundPayload(models.Model):
    """What a webhook said, compressed, in months that are dropped whole.

    The table is partitioned by `received_at`, which is the webhook's own.
    """

    webhook = models.OneToOneField(
        InboundWebhook,
        on_delete=models.DO_NOTHING,
        primary_key=True,
        db_constraint=False,
        related_name="stored",
    )
    received_at = models.DateTimeField()
    body = models.BinaryField(help_text="As received, or redacted when it held card data.")
    headers = models.JSONField(default=dict)
    is_redacted = models.BooleanField(default=False)

    def __str__(self) -> str:
        return f"payload of {self.webhook_id}"


class GapCheck(models.Model):
    """What the search for webhooks that never came has found at one account, and how far it has come."""

    account = models.OneToOneField(
        GatewayAccount, on_delete=models.CASCADE, primary_key=True, related_name="gap_check"
    )
    checked_until = models.DateTimeField(
        null=True, blank=True, help_text="What the gateway lists from before then is in the archive."
    )
    checked_at = models.DateTimeField(null=True, blank=True, help_text="When the gateway last answered.")
    missing = models.PositiveIntegerField(default=0, help_text="Events that only the list had, of all time.")
    told_missing = models.PositiveIntegerField(default=0, help_text="Of these, how many on-call knows of.")
    missing_at = models.DateTimeField(null=True, blank=True, help_text="When one was last found.")
    last_error = models.CharField(max_length=300, blank=True)
    failing_since = models.DateTimeField(null=True, blank=True)
    silent_since = models.DateTimeField(
        null=True, blank=True, help_text="It charges, and nothing was heard: when on-call was told."
    )

    class Meta:
        ordering = ["account"]

    def __str__(self) -> str:
        return f"gap check of {self.account_id}"


class RejectedDelivery(models.Model):
    """The counted trace of deliveries that were refused: never their body.

    One row per hour, account, reason and body; when an hour is full, the rest share one row without a hash.
    """

    account = models.ForeignKey(GatewayAccount, on_delete=models.CASCADE, related_name="rejected_deliveries")
    hour = models.DateTimeField()
    reason = models.CharField(max_length=40)
    detail = models.CharField(max_length=200, blank=True)
    sha256 = models.CharField(
        max_length=64, blank=True, help_text="Of the body; empty for the rest of an hour."
    )
    size = models.PositiveIntegerField(help_text="Bytes.")
    ip = models.GenericIPAddressField(null=True, blank=True, help_text="Of the last one.")
    times = models.PositiveIntegerField(default=1)
    last_at = models.DateTimeField()

    class Meta:
        ordering = ["-last_at"]
        verbose_name_plural = "rejected deliveries"
        constraints = [
            models.UniqueConstraint(
                fields=["hour", "account", "reason", "sha256"], name="rejected_once_per_hour"
            )
        ]

    def __str__(self) -> str:
        return f"{self.reason} ({self.times})"


# --- out ----------------------------------------------------------------------------------------------------


class EndpointQuerySet(models.QuerySet["Endpoint"]):
    def locked(self, endpoint_id: str) -> Endpoint:
        """The endpoint under a row lock; after an order's, when both are taken."""
        return self.select_for_update(of=("self",)).get(pk=endpoint_id)

    def listed(self) -> EndpointQuerySet:
        """Those that were not removed."""
        return self.filter(removed_at__isnull=True)


class Endpoint(models.Model):
    """Where a storefront wants to hear of its events."""

    id = PrefixedIdField(prefix="whe")
    client = models.ForeignKey(ApiClient, on_delete=models.PROTECT, related_name="webhook_endpoints")
    url = models.URLField(max_length=500)
    description = models.CharField(max_length=200, blank=True)
    event_types = models.JSONField(
        default=list, blank=True, help_text="Only these event types; empty means all."
    )
    notify_email = models.EmailField(
        blank=True, help_text="Who is told when deliveries there are stopped, or go on."
    )
    rate_per_second = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        help_text="At most so many deliveries a second; empty means as fast as it answers.",
    )
    is_ordered = models.BooleanField(
        default=False, help_text="One at a time, in order: one that fails holds up the ones behind it."
    )
    is_enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=200, blank=True)
    failing_since = models.DateTimeField(
        null=True, blank=True, help_text="The first failure after the last success."
    )
    paused_until = models.DateTimeField(
        null=True, blank=True, help_text="Nothing is tried before: it asked for time, or does not answer."
    )
    paced_until = models.DateTimeField(
        null=True, blank=True, help_text="Its rate allows the next delivery then."
    )
    silences = models.PositiveSmallIntegerField(
        default=0, help_text="Tries in a row that were not answered in time."
    )
    probe_at = models.DateTimeField(
        null=True, blank=True, help_text="When a disabled endpoint is tried again by itself."
    )
    removed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = EndpointQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name = "webhook endpoint"
        constraints = [
            models.CheckConstraint(
                condition=Q(rate_per_second__isnull=True) | Q(rate_per_second__gt=0),
                name="endpoint_rate_positive",
            ),
            models.CheckConstraint(
                condition=Q(removed_at__isnull=True) | Q(is_enabled=False),
                name="endpoint_removed_is_disabled",
            ),
        ]
        permissions = [
            ("test_endpoint", "Can send a test event"),
            ("recover_endpoint", "Can resend what an endpoint has missed"),
            ("rotate_endpoint", "Can rotate an endpoint's secret"),
            ("enable_endpoint", "Can enable and disable endpoints"),
        ]

    def __str__(self) -> str:
        return self.url


class EndpointSecretQuerySet(models.QuerySet["EndpointSecret"]):
    def valid(self) -> EndpointSecretQuerySet:
        """Those that sign now, newest first; two while one is being rotated."""
        return self.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now())).order_by("-pk")


class EndpointSecret(models.Model):
    """A signing secret of an endpoint: encrypted, shown once, with an end once it has a successor."""

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="secrets")
    value = EncryptedTextField()
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects = EndpointSecretQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"secret {self.pk} of {self.endpoint_id}"


class EndpointNotice(models.Model):
    """A mail that is owed to whom an endpoint belongs: written with what it tells of, sent until it is taken."""

    endpoint = models.ForeignKey(Endpoint, on_delete=models.PROTECT, related_name="notices")
    subject = models.CharField(max_length=200)
    text = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    next_try_at = models.DateTimeField(default=timezone.now, help_text="When it is due, or its lease ends.")
    tries = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["next_try_at"], condition=Q(sent_at__isnull=True), name="notice_owed")
        ]

    def __str__(self) -> str:
        return self.subject


class DeliveryState(models.TextChoices):
    PENDING = "pending", "Pending"
    DELIVERED = "delivered", "Delivered"
    FAILED = "failed", "Failed"
    ABANDONED = "abandoned", "Abandoned"


class Delivery(models.Model):
    """One event on its way to one endpoint. Without an event it is the endpoint's test message, or a probe."""

    id = PrefixedIdField(prefix="dlv")
    endpoint = models.ForeignKey(
        Endpoint, on_delete=models.PROTECT, related_name="deliveries", db_index=False
    )
    event = models.ForeignKey(
        Event, on_delete=models.PROTECT, null=True, blank=True, related_name="deliveries"
    )
    is_probe = models.BooleanField(
        default=False, help_text="Asks a disabled endpoint whether it is there again."
    )
    state = models.CharField(max_length=10, choices=DeliveryState.choices, default=DeliveryState.PENDING)
    attempts = models.PositiveSmallIntegerField(
        default=0, help_text="Tries since it was made or last resent."
    )
    epoch = models.PositiveIntegerField(
        default=0, help_text="Counts every claim; a stale worker writes nothing."
    )
    next_try_at = models.DateTimeField(null=True, blank=True, help_text="When it is due.")
    leased_until = models.DateTimeField(
        null=True, blank=True, help_text="While it is being sent: when another worker may take it."
    )
    last_status = models.PositiveSmallIntegerField(null=True, blank=True)
    last_error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        permissions = [("resend_delivery", "Can resend deliveries")]
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "event"], name="delivery_once_per_endpoint"),
            models.CheckConstraint(condition=Q(state__in=DeliveryState.values), name="delivery_state_known"),
            models.CheckConstraint(
                condition=~Q(state="pending") | Q(next_try_at__isnull=False),
                name="delivery_pending_is_scheduled",
            ),
        ]
        indexes = [
            # Per endpoint, so that one with a long backlog costs the others nothing.
            models.Index(
                fields=["endpoint", "next_try_at"], condition=Q(state="pending"), name="delivery_due"
            ),
            models.Index(
                fields=["endpoint", "event"], condition=Q(state="pending"), name="delivery_in_order"
            ),
            models.Index(
                fields=["endpoint", "leased_until"],
                condition=Q(leased_until__isnull=False),
                name="delivery_in_flight",
            ),
            models.Index(fields=["endpoint", "state", "-id"], name="delivery_of_endpoint"),
            models.Index(fields=["state", "-id"], name="delivery_state_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} to {self.endpoint_id}"

    @property
    def event_type(self) -> str:
        if self.event:
            return self.event.type
        return "endpoint.probe" if self.is_probe else "endpoint.test"

    @property
    def message_id(self) -> str:
        """The same on every try, so that the storefront can tell a repetition."""
        return self.event_id or self.id


class DeliveryAttempt(models.Model):
    """One POST and its answer."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="tries")
    started_at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    headers = models.JSONField(default=dict, db_default={}, help_text="What was sent beside the body.")
    answer = models.TextField(blank=True, help_text="The first 8 KiB, redacted.")
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.status or self.error} after {self.duration_ms} ms"


class OutboxPosition(models.Model):
    """How far the outbox has been read: every public event before `settled_until` has its deliveries."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    settled_until = models.CharField(max_length=32, default="evt_")

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="outbox_position_is_one_row")]

    def __str__(self) -> str:
        return self.settled_until
