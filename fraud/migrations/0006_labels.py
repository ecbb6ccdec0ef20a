"""Labels of orders with the view of those that count, what the measures keep, and the indexes that they read."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


# Of each order the label of the lowest precedence, and of these the newest. What was said is never changed.
VIEW = """
CREATE VIEW fraud_effective_label AS
    SELECT DISTINCT ON (order_id) order_id, is_fraud, source, at
    FROM fraud_label ORDER BY order_id, precedence, at DESC, id DESC;
CREATE TRIGGER fraud_label_append_only BEFORE UPDATE OR DELETE ON fraud_label
    FOR EACH ROW EXECUTE FUNCTION payments_refuse_change();
"""
UNDO = "DROP TRIGGER fraud_label_append_only ON fraud_label; DROP VIEW fraud_effective_label"


class Migration(migrations.Migration):

    dependencies = [
        ('fraud', '0005_back_tests'),
        ('payments', '0015_rotate_secret'),
    ]

    operations = [
        migrations.CreateModel(
            name='EffectiveLabel',
            fields=[
                ('order', models.OneToOneField(on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='effective_label', serialize=False, to='payments.order')),
                ('is_fraud', models.BooleanField()),
                ('source', models.CharField(choices=[('dispute', 'Dispute'), ('early_warning', 'Warning of the issuer'), ('refund_as_fraud', 'Refunded as fraud'), ('manual', 'By hand'), ('api', 'API'), ('decision', "Analyst's decision"), ('matured', 'No dispute in time')], max_length=16)),
                ('at', models.DateTimeField()),
            ],
            options={
                'db_table': 'fraud_effective_label',
                'managed': False,
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Label',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('is_fraud', models.BooleanField()),
                ('source', models.CharField(choices=[('dispute', 'Dispute'), ('early_warning', 'Warning of the issuer'), ('refund_as_fraud', 'Refunded as fraud'), ('manual', 'By hand'), ('api', 'API'), ('decision', "Analyst's decision"), ('matured', 'No dispute in time')], max_length=16)),
                ('reason', models.CharField(blank=True, max_length=200)),
                ('actor', models.CharField(default='system', max_length=150)),
                ('evidence', models.CharField(blank=True, max_length=80)),
                ('at', models.DateTimeField(help_text='When it became known.')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('precedence', models.GeneratedField(db_persist=True, expression=models.Case(models.When(source='dispute', then=models.Value(1)), models.When(source='early_warning', then=models.Value(2)), models.When(source='refund_as_fraud', then=models.Value(3)), models.When(source='manual', then=models.Value(4)), models.When(source='api', then=models.Value(4)), models.When(source='decision', then=models.Value(5)), models.When(source='matured', then=models.Value(6)), output_field=models.SmallIntegerField()), output_field=models.SmallIntegerField())),
                ('order', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='labels', to='payments.order')),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['order', 'precedence', '-at', '-id'], include=('is_fraud', 'source'), name='fraud_label_effective')],
                'constraints': [models.CheckConstraint(condition=models.Q(('source__in', ['dispute', 'early_warning', 'refund_as_fraud', 'manual', 'api', 'decision', 'matured'])), name='fraud_label_source_known'), models.UniqueConstraint(condition=models.Q(('evidence', ''), _negated=True), fields=('source', 'evidence'), name='fraud_label_evidence_once')],
            },
        ),
        migrations.CreateModel(
            name='RuleDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('rule', models.CharField(max_length=80)),
                ('day', models.DateField()),
                ('judged', models.PositiveIntegerField(help_text='Orders, each once.')),
            ],
            options={
                'ordering': ['day', 'rule'],
            },
        ),
        migrations.AddIndex(
            model_name='assessment',
            index=models.Index(fields=['created_at'], name='fraud_assessment_created'),
        ),
        migrations.AddIndex(
            model_name='verdict',
            index=models.Index(condition=models.Q(('status__in', ['hit', 'shadow', 'snoozed'])), fields=['assessment'], include=('rule_key', 'rule_kind', 'status'), name='fraud_verdict_hits'),
        ),
        migrations.AddConstraint(
            model_name='ruleday',
            constraint=models.UniqueConstraint(fields=('day', 'rule'), name='fraud_rule_day_once'),
        ),
        migrations.RunSQL(VIEW, UNDO),
    ]
