"""Expand: calls about missing money move into the table of all calls, the unsent ones still to be sent."""

import django.db.models.deletion
from django.db import migrations, models

COPY = """
INSERT INTO payments_oncallpage (cause, hour, text, detail, path, count, created_at, leased_until, tries, sent_at,
    posted_at, error, mail_error)
SELECT 'reconciliation.missing_gateway:' || page.run_id || '/' || page.attempt, date_trunc('hour', page.created_at),
    page.count || CASE page.count WHEN 1 THEN ' payment or refund' ELSE ' payments or refunds' END
        || ' that we hold for done are not in the settlement report of ' || account.gateway || '/' || account.name
        || ' for ' || run.day,
    jsonb_build_object('run', page.run_id, 'account', account.gateway || '/' || account.name, 'day', run.day,
        'count', page.count, 'amounts', page.amounts),
    '/admin/reconciliation/run/' || page.run_id || '/change/', 1, page.created_at, NULL, page.tries, page.sent_at,
    page.sent_at, page.error, ''
FROM reconciliation_page AS page
JOIN reconciliation_run AS run ON run.id = page.run_id
JOIN payments_gatewayaccount AS account ON account.id = run.account_id
ORDER BY page.id
ON CONFLICT (cause, hour) DO NOTHING
"""
LINK = """
UPDATE reconciliation_discrepancy AS discrepancy SET oncall_page_id = call.id
FROM reconciliation_page AS page
JOIN payments_oncallpage AS call
    ON call.cause = 'reconciliation.missing_gateway:' || page.run_id || '/' || page.attempt
WHERE discrepancy.page_id = page.id
"""


def drop_its_bell(apps, schema_editor):
    """Its task is gone: a schedule that rings for it would only fill the worker's log."""
    task = "reconciliation.tasks.send_unsent_pages"
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(task=task).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("reconciliation", "0002_staging"),
        ("payments", "0013_saga_tools"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]

    operations = [
        migrations.AddField(
            model_name="discrepancy",
            name="oncall_page",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="discrepancies",
                to="payments.oncallpage",
            ),
        ),
        migrations.RunSQL(COPY, migrations.RunSQL.noop),
        migrations.RunSQL(LINK, migrations.RunSQL.noop),
        migrations.RunPython(drop_its_bell, migrations.RunPython.noop),
    ]
