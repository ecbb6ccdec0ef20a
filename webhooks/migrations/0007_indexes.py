"""Finds the last webhook of a quiet account at once, and drops two indexes that others begin with."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0015_rotate_secret'),
        ('webhooks', '0006_watch'),
    ]

    operations = [
        migrations.AlterField(
            model_name='delivery',
            name='endpoint',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='deliveries', to='webhooks.endpoint'),
        ),
        migrations.AlterField(
            model_name='inboundwebhook',
            name='account',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='inbound_webhooks', to='payments.gatewayaccount'),
        ),
        migrations.AddIndex(
            model_name='inboundwebhook',
            index=models.Index(fields=['account', '-id'], name='inbound_of_account'),
        ),
    ]
