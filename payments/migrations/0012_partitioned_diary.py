"""Partitions the saga diary by month and finds a customer's orders by index, both while the site runs."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import Q

from payments.partitions import partition_by_month


def partition_diary(apps, schema_editor):
    partition_by_month("payments_sagaevent", "at")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("payments", "0011_datalife")]

    operations = [
        AddIndexConcurrently(
            "order",
            models.Index(condition=~Q(customer_id=""), fields=["customer_id"], name="order_customer_id"),
        ),
        # Back again there is nothing to do: older code works on the partitioned table as it is.
        migrations.RunPython(partition_diary, migrations.RunPython.noop, atomic=False),
    ]
