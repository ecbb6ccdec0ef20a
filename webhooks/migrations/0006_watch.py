"""On-call is told once of a webhook that stands still, and of those that never came."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0014_api'),
        ('webhooks', "0005_fair_deliveries"),
    ]

    operations = [
        migrations.CreateModel(
            name='GapCheck',
            fields=[
                ('account', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='gap_check', serialize=False, to='payments.gatewayaccount')),
                ('checked_until', models.DateTimeField(blank=True, help_text='What the gateway lists from before then is in the archive.', null=True)),
                ('checked_at', models.DateTimeField(blank=True, help_text='When the gateway last answered.', null=True)),
                ('missing', models.PositiveIntegerField(default=0, help_text='Events that only the list had, of all time.')),
                ('told_missing', models.PositiveIntegerField(default=0, help_text='Of these, how many on-call knows of.')),
                ('missing_at', models.DateTimeField(blank=True, help_text='When one was last found.', null=True)),
                ('last_error', models.CharField(blank=True, max_length=300)),
                ('failing_since', models.DateTimeField(blank=True, null=True)),
                ('silent_since', models.DateTimeField(blank=True, help_text='It charges, and nothing was heard: when on-call was told.', null=True)),
            ],
            options={
                'ordering': ['account'],
            },
        ),
        migrations.AddField(
            model_name='inboundwebhook',
            name='alarmed_at',
            field=models.DateTimeField(blank=True, help_text='When on-call was told that it stands still.', null=True),
        ),
        migrations.AddIndex(
            model_name='inboundwebhook',
            index=models.Index(condition=models.Q(('alarmed_at__isnull', True), ('state__in', ['parked', 'failed', 'quarantined'])), fields=['state'], name='inbound_untold'),
        ),
    ]
