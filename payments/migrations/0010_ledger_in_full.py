"""Days for entries and postings, accounting periods, and the triggers that keep a closed one closed."""
from pathlib import Path

import django.db.models.deletion
import payments.models.ledger
from django.db import migrations, models

SQL = Path(__file__).parent / "sql"


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0009_routing'),
    ]

    operations = [
        migrations.CreateModel(
            name='LedgerPeriod',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('first_day', models.DateField()),
                ('last_day', models.DateField()),
                ('closed_at', models.DateTimeField()),
                ('closed_by', models.CharField(max_length=150)),
                ('note', models.CharField(blank=True, max_length=200)),
                ('postings', models.BigIntegerField(default=0, editable=False)),
                ('digest', models.DecimalField(decimal_places=0, default=0, editable=False, max_digits=40)),
                ('reopened_at', models.DateTimeField(blank=True, null=True)),
                ('reopened_by', models.CharField(blank=True, max_length=150)),
                ('reopen_reason', models.CharField(blank=True, max_length=200)),
            ],
            options={
                'verbose_name': 'accounting period',
                'ordering': ['-last_day', '-id'],
                'permissions': [('close_ledgerperiod', 'Can close an accounting period'), ('reopen_ledgerperiod', 'Can reopen a closed accounting period')],
            },
        ),
        migrations.AlterModelOptions(
            name='ledgerentry',
            options={'ordering': ['-id'], 'permissions': [('export_ledgerentry', 'Can export the trial balance and statements')], 'verbose_name_plural': 'ledger entries'},
        ),
        migrations.AddField(
            model_name='ledgerentry',
            name='actor',
            field=models.CharField(blank=True, db_default='', help_text='Who decided it, where a person did.', max_length=150),
        ),
        migrations.AddField(
            model_name='ledgerentry',
            name='booked_on',
            field=models.DateField(db_default=payments.models.ledger.UtcToday(), help_text='The day that it belongs to.'),
        ),
        migrations.AddField(
            model_name='posting',
            name='booked_on',
            field=models.DateField(db_default=payments.models.ledger.UtcToday(), editable=False, help_text="Its entry's, written by a trigger."),
        ),
        migrations.RunSQL((SQL / "ledger_days.sql").read_text(), migrations.RunSQL.noop),
        migrations.AlterField(
            model_name='ledgerentry',
            name='external_id',
            field=models.CharField(max_length=200),
        ),
        migrations.AlterField(
            model_name='ledgerentry',
            name='gateway_account',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='ledger_entries', to='payments.gatewayaccount'),
        ),
        migrations.AlterField(
            model_name='posting',
            name='account',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='postings', to='payments.ledgeraccount'),
        ),
        migrations.AddIndex(
            model_name='ledgerentry',
            index=models.Index(fields=['gateway_account', 'booked_on'], name='ledger_entry_booked'),
        ),
        migrations.AddIndex(
            model_name='posting',
            index=models.Index(fields=['account', 'booked_on', 'id'], include=('amount',), name='posting_statement'),
        ),
        migrations.AddField(
            model_name='ledgerperiod',
            name='gateway_account',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='ledger_periods', to='payments.gatewayaccount'),
        ),
        migrations.AddIndex(
            model_name='ledgerperiod',
            index=models.Index(fields=['gateway_account', 'last_day'], name='ledger_period_last'),
        ),
        migrations.AddConstraint(
            model_name='ledgerperiod',
            constraint=models.CheckConstraint(condition=models.Q(('first_day__lte', models.F('last_day'))), name='ledger_period_in_order'),
        ),
        migrations.AddConstraint(
            model_name='ledgerperiod',
            constraint=models.CheckConstraint(condition=models.Q(('closed_by', ''), _negated=True), name='ledger_period_closed_by_somebody'),
        ),
        migrations.AddConstraint(
            model_name='ledgerperiod',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('reopen_reason', ''), ('reopened_at__isnull', True), ('reopened_by', '')), models.Q(('reopened_at__isnull', False), models.Q(('reopened_by', ''), _negated=True), models.Q(('reopen_reason', ''), _negated=True)), _connector='OR'), name='ledger_period_reopened_with_reason'),
        ),
        migrations.RunSQL((SQL / "ledger_periods.sql").read_text(), migrations.RunSQL.noop),
    ]
