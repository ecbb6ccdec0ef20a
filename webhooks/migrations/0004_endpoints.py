"""Endpoints get a rate, an order, a pause and a probe; deliveries a lease of their own."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0003_payloads")]

    operations = [
        migrations.AlterModelOptions(
            name='endpoint',
            options={'ordering': ['-id'], 'permissions': [('test_endpoint', 'Can send a test event'), ('recover_endpoint', 'Can resend what an endpoint has missed'), ('rotate_endpoint', "Can rotate an endpoint's secret"), ('enable_endpoint', 'Can enable and disable endpoints')], 'verbose_name': 'webhook endpoint'},
        ),
        migrations.RemoveIndex(
            model_name='delivery',
            name='delivery_due',
        ),
        migrations.AddField(
            model_name='delivery',
            name='is_probe',
            field=models.BooleanField(default=False, help_text='Asks a disabled endpoint whether it is there again.'),
        ),
        migrations.AddField(
            model_name='delivery',
            name='leased_until',
            field=models.DateTimeField(blank=True, help_text='While it is being sent: when another worker may take it.', null=True),
        ),
        migrations.AddField(
            model_name='deliveryattempt',
            name='headers',
            field=models.JSONField(db_default={}, default=dict, help_text='What was sent beside the body.'),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='is_ordered',
            field=models.BooleanField(default=False, help_text='One at a time, in order: one that fails holds up the ones behind it.'),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='notify_email',
            field=models.EmailField(blank=True, help_text='Who is told when deliveries there are stopped, or go on.', max_length=254),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='paused_until',
            field=models.DateTimeField(blank=True, help_text='Nothing is tried before: it asked for time, or does not answer.', null=True),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='probe_at',
            field=models.DateTimeField(blank=True, help_text='When a disabled endpoint is tried again by itself.', null=True),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='rate_per_second',
            field=models.PositiveSmallIntegerField(blank=True, help_text='At most so many deliveries a second; empty means as fast as it answers.', null=True),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='removed_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='silences',
            field=models.PositiveSmallIntegerField(default=0, help_text='Tries in a row that were not answered in time.'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(condition=models.Q(('state', 'pending')), fields=['endpoint', 'next_try_at'], name='delivery_due'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=models.Index(fields=['endpoint', 'state', '-id'], name='delivery_of_endpoint'),
        ),
        migrations.AddConstraint(
            model_name='endpoint',
            constraint=models.CheckConstraint(condition=models.Q(('rate_per_second__isnull', True), ('rate_per_second__gt', 0), _connector='OR'), name='endpoint_rate_positive'),
        ),
        migrations.AddConstraint(
            model_name='endpoint',
            constraint=models.CheckConstraint(condition=models.Q(('removed_at__isnull', True), ('is_enabled', False), _connector='OR'), name='endpoint_removed_is_disabled'),
        ),
    ]
