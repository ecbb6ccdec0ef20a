"""Makes room for escalation, snooze and proposals of reviews, and for their history."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('fraud', '0006_labels'),
        ('payments', '0015_rotate_secret'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ReviewEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('escalated', 'Escalated'), ('snoozed', 'Snoozed'), ('handed_over', 'Handed over'), ('proposed', 'Approval proposed'), ('returned', 'Proposal returned'), ('confirmed', 'Approval confirmed'), ('approved', 'Approved'), ('rejected', 'Rejected'), ('expired', 'Expired'), ('listed', 'Put on a list')], max_length=12)),
                ('actor', models.CharField(max_length=150)),
                ('note', models.TextField(blank=True)),
                ('at', models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.AlterModelOptions(
            name='review',
            options={'ordering': ['expires_at', '-score', '-amount', 'id'], 'permissions': [('claim_review', 'Can claim a review'), ('decide_review', 'Can approve or reject a review'), ('decide_escalated_review', 'Can claim and decide an escalated review'), ('confirm_review', "Can confirm or return somebody else's proposal to approve")]},
        ),
        migrations.AddField(
            model_name='review',
            name='escalated_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='review',
            name='escalated_by',
            field=models.CharField(blank=True, db_default='', default='', max_length=150),
        ),
        migrations.AddField(
            model_name='review',
            name='escalation_note',
            field=models.TextField(blank=True, db_default='', default=''),
        ),
        migrations.AddField(
            model_name='review',
            name='proposed_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='review',
            name='proposed_by',
            field=models.CharField(blank=True, db_default='', default='', help_text='Who asks for a second approval.', max_length=150),
        ),
        migrations.AddField(
            model_name='review',
            name='snoozed_at_event',
            field=models.PositiveIntegerField(blank=True, help_text="The order's last event then; the next one ends the snooze.", null=True),
        ),
        migrations.AddField(
            model_name='review',
            name='snoozed_until',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddIndex(
            model_name='review',
            index=models.Index(condition=models.Q(('decided_at__isnull', False)), fields=['decided_at'], name='fraud_review_decided'),
        ),
        migrations.AddConstraint(
            model_name='review',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'approved'), _negated=True), ('proposed_by', ''), models.Q(('proposed_by', models.F('decided_by')), _negated=True), _connector='OR'), name='fraud_review_two_people'),
        ),
        migrations.AddField(
            model_name='reviewevent',
            name='review',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='events', to='fraud.review'),
        ),
        migrations.AddConstraint(
            model_name='reviewevent',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['escalated', 'snoozed', 'handed_over', 'proposed', 'returned', 'confirmed', 'approved', 'rejected', 'expired', 'listed'])), name='fraud_review_event_known'),
        ),
        migrations.RunSQL(
            "CREATE TRIGGER review_event_append_only BEFORE UPDATE OR DELETE ON fraud_reviewevent "
            "FOR EACH ROW EXECUTE FUNCTION payments_refuse_change()",
            "DROP TRIGGER review_event_append_only ON fraud_reviewevent",
        ),
    ]
