"""Several captures, disputes, customers with saved payment methods, and the evidence of every question asked."""
import django.db.models.deletion
import django.db.models.expressions
import payments.encryption
import payments.models.dispute
import payments.models.fields
import payments.models.gateway
from django.db import migrations, models


# What the holds that stand now may still capture; a payment was captured once, or not at all, until here.
OPEN_HOLDS = """
UPDATE payments_payment AS payment SET capturable = payment.authorized
WHERE payment.captured = 0 AND payment.authorized > 0
    AND EXISTS (SELECT FROM payments_attempt AS attempt WHERE attempt.payment_id = payment.id AND attempt.state = 'live')
"""


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0005_oncall_pages'),
    ]

    operations = [
        migrations.CreateModel(
            name='Customer',
            fields=[
                ('id', payments.models.fields.PrefixedIdField(editable=False, prefix='cus', primary_key=True, serialize=False)),
                ('storefront_id', models.CharField(help_text="The storefront's own id; a digest once erased.", max_length=100)),
                ('email', models.CharField(blank=True, max_length=254)),
                ('name', models.CharField(blank=True, max_length=200)),
                ('created_at', models.DateTimeField()),
                ('erased_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ['-id'],
                'permissions': [('erase_customer', 'Can erase a customer on request')],
            },
        ),
        migrations.CreateModel(
            name='Dispute',
            fields=[
                ('id', payments.models.fields.PrefixedIdField(editable=False, prefix='dp', primary_key=True, serialize=False)),
                ('gateway_reference', models.CharField(max_length=100)),
                ('stage', models.CharField(choices=[('inquiry', 'Inquiry'), ('chargeback', 'Chargeback'), ('pre_arbitration', 'Pre arbitration')], max_length=20)),
                ('state', models.CharField(choices=[('needs_response', 'Needs response'), ('under_review', 'Under review'), ('won', 'Won'), ('lost', 'Lost'), ('accepted', 'Accepted'), ('expired', 'Expired')], max_length=20)),
                ('amount', payments.models.fields.MinorUnitsField()),
                ('currency', payments.models.fields.CurrencyField(max_length=3)),
                ('fee', payments.models.fields.MinorUnitsField(default=0, help_text='What the dispute has cost so far, in minor units.')),
                ('fee_currency', models.CharField(blank=True, max_length=3)),
                ('is_withdrawn', models.BooleanField(default=False, help_text='The amount is out of our balance now.')),
                ('reason', models.CharField(blank=True, max_length=40)),
                ('network_code', models.CharField(blank=True, max_length=20)),
                ('due_by', models.DateTimeField(blank=True, null=True)),
                ('submitted_at', models.DateTimeField(blank=True, null=True)),
                ('submitted_by', models.CharField(blank=True, max_length=150)),
                ('warned_at', models.DateTimeField(blank=True, help_text='When its deadline was called out.', null=True)),
                ('last_fact_at', models.DateTimeField(blank=True, null=True)),
                ('opened_at', models.DateTimeField()),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ['-id'],
                'permissions': [('answer_dispute', 'Can add evidence, submit it, and accept a dispute')],
            },
        ),
        migrations.CreateModel(
            name='DisputeEvidence',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(help_text='One of payments.kinds.EVIDENCE_KINDS.', max_length=40)),
                ('text', models.TextField(blank=True)),
                ('file', models.FileField(blank=True, upload_to=payments.models.dispute.evidence_path)),
                ('file_name', models.CharField(blank=True, max_length=150)),
                ('content_type', models.CharField(blank=True, max_length=50)),
                ('size', models.PositiveIntegerField(default=0, help_text='Bytes.')),
                ('sha256', models.CharField(blank=True, max_length=64)),
                ('added_by', models.CharField(max_length=150)),
                ('added_at', models.DateTimeField()),
            ],
            options={
                'verbose_name_plural': 'dispute evidence',
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='Inquiry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('actor', models.CharField(default='system', max_length=150)),
                ('answer', models.CharField(help_text="What the gateway said, absent, or the error's code.", max_length=30)),
                ('detail', models.JSONField(blank=True, default=dict)),
                ('asked_at', models.DateTimeField()),
            ],
            options={
                'verbose_name_plural': 'inquiries',
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='SavedPaymentMethod',
            fields=[
                ('id', payments.models.fields.PrefixedIdField(editable=False, prefix='spm', primary_key=True, serialize=False)),
                ('token', payments.encryption.EncryptedTextField(help_text="The gateway's token; empty once removed.")),
                ('gateway_customer', models.CharField(blank=True, help_text="The gateway's own customer.", max_length=100)),
                ('brand', models.CharField(blank=True, max_length=30)),
                ('last4', models.CharField(blank=True, max_length=4)),
                ('exp_month', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('exp_year', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('fingerprint', models.CharField(blank=True, help_text="Keyed hash of the gateway's fingerprint.", max_length=64)),
                ('created_at', models.DateTimeField()),
                ('removed_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.AddField(
            model_name='attempt',
            name='route',
            field=models.CharField(blank=True, db_default='', help_text='Why it went to this account.', max_length=200),
        ),
        migrations.AddField(
            model_name='gatewayaccount',
            name='options',
            field=models.JSONField(blank=True, db_default={}, default=dict, help_text='What else the gateway needs, e.g. merchant_account; values may be env:NAME. No secrets.'),
        ),
        migrations.AddField(
            model_name='operation',
            name='asks',
            field=models.PositiveSmallIntegerField(db_default=0, default=0, help_text='Times that the schedule asked the gateway.'),
        ),
        migrations.AddField(
            model_name='operation',
            name='capture',
            field=models.ForeignKey(blank=True, db_index=False, help_text='Of a refund: the capture that it gives back.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='refunds', to='payments.operation'),
        ),
        migrations.AddField(
            model_name='operation',
            name='escalated_at',
            field=models.DateTimeField(blank=True, help_text="Since when it is a person's task.", null=True),
        ),
        migrations.AddField(
            model_name='operation',
            name='next_ask_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='operation',
            name='releases_rest',
            field=models.BooleanField(db_default=True, default=True, help_text='Of a capture: nothing more will be captured.'),
        ),
        migrations.AddField(
            model_name='payment',
            name='capturable',
            field=payments.models.fields.MinorUnitsField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='payment',
            name='disputed',
            field=payments.models.fields.MinorUnitsField(db_default=0, default=0, help_text='In disputes that nobody has decided yet.'),
        ),
        migrations.AddField(
            model_name='payment',
            name='is_merchant_initiated',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name='payment',
            name='payment_methods',
            field=models.JSONField(blank=True, db_default={}, default=dict, help_text='Tokens for other gateways or accounts, for failover: name to token.'),
        ),
        migrations.AddField(
            model_name='payment',
            name='save_method',
            field=models.BooleanField(db_default=False, default=False, help_text='The customer wants to pay with it again.'),
        ),
        migrations.AlterField(
            model_name='gatewayaccount',
            name='gateway',
            field=models.CharField(choices=payments.models.gateway.known_gateways, max_length=20),
        ),
        migrations.AddIndex(
            model_name='operation',
            index=models.Index(condition=models.Q(('next_ask_at__isnull', False)), fields=['next_ask_at'], name='operation_ask_due'),
        ),
        migrations.AddIndex(
            model_name='operation',
            index=models.Index(condition=models.Q(('escalated_at__isnull', False)), fields=['escalated_at'], name='operation_escalated'),
        ),
        migrations.AddField(
            model_name='customer',
            name='client',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='customers', to='payments.apiclient'),
        ),
        migrations.AddField(
            model_name='dispute',
            name='account',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='disputes', to='payments.gatewayaccount'),
        ),
        migrations.AddField(
            model_name='dispute',
            name='payment',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='disputes', to='payments.payment'),
        ),
        migrations.AddField(
            model_name='disputeevidence',
            name='dispute',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='evidence', to='payments.dispute'),
        ),
        migrations.AddField(
            model_name='inquiry',
            name='operation',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='inquiries', to='payments.operation'),
        ),
        migrations.AddField(
            model_name='savedpaymentmethod',
            name='account',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='saved_methods', to='payments.gatewayaccount'),
        ),
        migrations.AddField(
            model_name='savedpaymentmethod',
            name='customer',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='payment_methods', to='payments.customer'),
        ),
        migrations.AddField(
            model_name='payment',
            name='saved_method',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='payments', to='payments.savedpaymentmethod'),
        ),
        migrations.AddIndex(
            model_name='payment',
            index=models.Index(condition=models.Q(('capturable__gt', 0)), fields=['authorization_expires_at'], name='payment_hold_expiring'),
        ),
        migrations.RunSQL(OPEN_HOLDS, migrations.RunSQL.noop),
        migrations.AddConstraint(
            model_name='payment',
            constraint=models.CheckConstraint(condition=models.Q(('capturable__gte', 0), ('capturable__lte', django.db.models.expressions.CombinedExpression(models.F('authorized'), '-', models.F('captured'))), ('disputed__gte', 0)), name='payment_capturable_within_authorized'),
        ),
        migrations.AddIndex(
            model_name='customer',
            index=models.Index(fields=['email'], name='customer_email'),
        ),
        migrations.AddConstraint(
            model_name='customer',
            constraint=models.UniqueConstraint(fields=('client', 'storefront_id'), name='customer_once_per_storefront'),
        ),
        migrations.AddIndex(
            model_name='dispute',
            index=models.Index(condition=models.Q(('state', 'needs_response')), fields=['due_by'], name='dispute_due'),
        ),
        migrations.AddIndex(
            model_name='dispute',
            index=models.Index(fields=['state', '-id'], name='dispute_state_newest'),
        ),
        migrations.AddConstraint(
            model_name='dispute',
            constraint=models.CheckConstraint(condition=models.Q(('amount__gt', 0)), name='dispute_amount_positive'),
        ),
        migrations.AddConstraint(
            model_name='dispute',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['needs_response', 'under_review', 'won', 'lost', 'accepted', 'expired'])), name='dispute_state_known'),
        ),
        migrations.AddConstraint(
            model_name='dispute',
            constraint=models.CheckConstraint(condition=models.Q(('stage__in', ['inquiry', 'chargeback', 'pre_arbitration'])), name='dispute_stage_known'),
        ),
        migrations.AddConstraint(
            model_name='dispute',
            constraint=models.UniqueConstraint(fields=('account', 'gateway_reference'), name='dispute_gateway_reference'),
        ),
        migrations.AddConstraint(
            model_name='disputeevidence',
            constraint=models.UniqueConstraint(fields=('dispute', 'kind'), name='dispute_evidence_once_per_kind'),
        ),
        migrations.AddConstraint(
            model_name='disputeevidence',
            constraint=models.CheckConstraint(condition=models.Q(('file', ''), ('text', ''), _negated=True), name='dispute_evidence_not_empty'),
        ),
        migrations.AddConstraint(
            model_name='savedpaymentmethod',
            constraint=models.UniqueConstraint(condition=models.Q(('removed_at__isnull', True), models.Q(('fingerprint', ''), _negated=True)), fields=('customer', 'account', 'fingerprint'), name='saved_method_once_per_card'),
        ),
    ]
