"""Makes the sequence that tells every process when velocity was counted without Redis."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("fraud", "0001_rules_reviews_and_lists")]

    # It begins with the time, so that a new database never trusts what Redis counted for an older one.
    operations = [
        migrations.RunSQL(
            [
                "CREATE SEQUENCE fraud_velocity_epoch",
                "SELECT setval('fraud_velocity_epoch', (extract(epoch FROM clock_timestamp()) * 1000)::bigint)",
            ],
            "DROP SEQUENCE fraud_velocity_epoch",
        ),
    ]
