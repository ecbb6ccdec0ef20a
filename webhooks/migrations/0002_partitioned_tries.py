"""Partitions the tries of storefront deliveries by month, while the site runs."""

from django.db import migrations

from payments.partitions import partition_by_month


def partition_tries(apps, schema_editor):
    partition_by_month("webhooks_deliveryattempt", "started_at")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("webhooks", "0001_webhooks"), ("payments", "0012_partitioned_diary")]

    operations = [migrations.RunPython(partition_tries, migrations.RunPython.noop, atomic=False)]
