"""Erasure on request and the durable removal of saved tokens; the outbox lets a purge and an erasure pass."""

from pathlib import Path

from django.db import migrations, models
from django.db.models import Q

import payments.encryption

SQL = Path(__file__).parent / "sql" / "data_life.sql"


class Migration(migrations.Migration):
    dependencies = [("payments", "0010_ledger_in_full")]

    operations = [
        migrations.AddField("customer", "erasure_requested_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField(
            "customer", "erasure_requested_by", models.CharField(blank=True, db_default="", max_length=150)
        ),
        migrations.AddField(
            "customer", "erasure_reason", models.CharField(blank=True, db_default="", max_length=200)
        ),
        migrations.AddField(
            "customer",
            "erasing_id",
            payments.encryption.EncryptedTextField(
                blank=True,
                db_default="",
                help_text="The storefront's id while their orders are being blanked.",
            ),
        ),
        migrations.AddIndex(
            "customer",
            models.Index(
                condition=Q(erasure_requested_at__isnull=False, erased_at__isnull=True),
                fields=["erasure_requested_at"],
                name="customer_being_erased",
            ),
        ),
        migrations.AddField(
            "savedpaymentmethod",
            "forget_at",
            models.DateTimeField(
                blank=True,
                help_text="When the gateway is told next to delete the token; empty once it has.",
                null=True,
            ),
        ),
        migrations.AddField(
            "savedpaymentmethod", "forget_tries", models.PositiveSmallIntegerField(db_default=0, default=0)
        ),
        migrations.AddConstraint(
            "savedpaymentmethod",
            models.CheckConstraint(
                condition=Q(token="") | Q(removed_at__isnull=True) | Q(forget_at__isnull=False),
                name="saved_method_removed_is_forgotten",
            ),
        ),
        migrations.AddIndex(
            "savedpaymentmethod",
            models.Index(
                condition=Q(forget_at__isnull=False), fields=["forget_at"], name="saved_method_to_forget"
            ),
        ),
        migrations.RunSQL(SQL.read_text(), migrations.RunSQL.noop),
    ]
