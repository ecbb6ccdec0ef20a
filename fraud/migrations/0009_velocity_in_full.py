"""Counts by seven dimensions in one wide row, four kinds and links; what was counted so far is carried over."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import fraud.models.fields
import payments.models.fields

DIMENSIONS = ("card", "email", "ip", "network", "device", "customer", "address")
KINDS = ["attempt", "decline", "approved", "chargeback"]
ORDER = {"on_delete": django.db.models.deletion.PROTECT, "to": "payments.order", "db_index": False, "db_constraint": False}

# The first row of an order carries its keys from here on. Customers were not told apart by shop: they begin anew.
CARRY_OVER = """
INSERT INTO fraud_velocityevent_wide
    (order_id, kind, amount, currency, at, card, email, ip, network, device, customer, address)
SELECT order_id, kind, min(amount), min(currency), min(at),
    coalesce(max(key_hash) FILTER (WHERE dimension = 'card'), ''),
    coalesce(max(key_hash) FILTER (WHERE dimension = 'email'), ''),
    coalesce(max(key_hash) FILTER (WHERE dimension = 'ip'), ''),
    '', coalesce(max(key_hash) FILTER (WHERE dimension = 'device'), ''), '', ''
FROM fraud_velocityevent GROUP BY order_id, kind ORDER BY min(id)
"""


class Migration(migrations.Migration):
    dependencies = [("fraud", "0008_lists")]

    operations = [
        migrations.CreateModel(
            name="EntityLink",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(choices=[(name, name.capitalize()) for name in DIMENSIONS], max_length=10)),
                ("value_hash", fraud.models.fields.KeyHashField()),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                ("order", models.ForeignKey(related_name="links", **ORDER)),
            ],
            options={
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(fields=("kind", "value_hash", "order"), name="fraud_link_once")
                ],
                "indexes": [models.Index(fields=["order"], name="fraud_link_order")],
            },
        ),
        migrations.CreateModel(
            name="EventPosition",
            fields=[
                ("name", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("settled_until", models.CharField(max_length=32)),
                ("consumed", models.JSONField(default=list)),
            ],
        ),
        migrations.CreateModel(
            name="VelocityEventWide",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[(kind, kind.capitalize()) for kind in KINDS], default="attempt", max_length=10
                    ),
                ),
                ("amount", payments.models.fields.MinorUnitsField()),
                ("currency", payments.models.fields.CurrencyField(max_length=3)),
                ("at", models.DateTimeField(help_text="By the database's clock.")),
                *((name, fraud.models.fields.KeyHashField()) for name in DIMENSIONS),
                ("order", models.ForeignKey(related_name="+", **ORDER)),
            ],
            options={"ordering": ["-id"], "db_table": "fraud_velocityevent_wide"},
        ),
        migrations.RunSQL(CARRY_OVER, migrations.RunSQL.noop),
        migrations.DeleteModel(name="VelocityEvent"),
        migrations.RenameModel("VelocityEventWide", "VelocityEvent"),
        migrations.AlterModelTable("VelocityEvent", None),
        migrations.AlterField(
            "VelocityEvent", "order", models.ForeignKey(related_name="velocity_events", **ORDER)
        ),
        migrations.AddConstraint(
            "VelocityEvent",
            models.UniqueConstraint(fields=("order", "kind", "card"), name="fraud_velocity_event_once"),
        ),
        migrations.AddConstraint(
            "VelocityEvent",
            models.CheckConstraint(condition=models.Q(kind__in=KINDS), name="fraud_velocity_kind_known"),
        ),
        *(
            migrations.AddIndex(
                "VelocityEvent",
                models.Index(
                    condition=models.Q((name, ""), _negated=True),
                    fields=[name, "kind", "at"],
                    name=f"fraud_velocity_by_{name}",
                ),
            )
            for name in DIMENSIONS
        ),
    ]
