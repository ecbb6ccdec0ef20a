"""Makes the groups of the roles, and the permissions of the operators' actions.

What each role may do is given by `manage.py sync_roles`: permissions are rows only after all migrations.
"""

from django.db import migrations

ROLES = ["Finance", "Fraud analyst", "On-call", "Auditor", "Integrator", "Admin"]


def make_groups(apps, schema_editor):
    Group = apps.get_model("auth", "Group")
    for name in ROLES:
        Group.objects.get_or_create(name=name)


class Migration(migrations.Migration):
    dependencies = [("payments", "0003_default_account"), ("auth", "0012_alter_user_first_name_max_length")]

    operations = [
        migrations.AlterModelOptions(
            name="order",
            options={
                "ordering": ["-id"],
                "permissions": [
                    ("capture_order", "Can capture an order"),
                    ("cancel_order", "Can cancel an order"),
                    ("refund_order", "Can refund an order"),
                    ("note_order", "Can add a note to an order"),
                ],
            },
        ),
        migrations.AlterModelOptions(
            name="operation",
            options={
                "ordering": ["-id"],
                "permissions": [("resolve_operation", "Can ask the gateway about an operation")],
            },
        ),
        migrations.AlterModelOptions(
            name="sagarun",
            options={
                "ordering": ["-id"],
                "verbose_name": "saga",
                "permissions": [("operate_saga", "Can retry and compensate a saga")],
            },
        ),
        migrations.AlterModelOptions(
            name="apikey",
            options={
                "ordering": ("-created",),
                "verbose_name": "API key",
                "verbose_name_plural": "API keys",
                "permissions": [("revoke_apikey", "Can revoke an API key")],
            },
        ),
        migrations.RunPython(make_groups, migrations.RunPython.noop),
    ]
