"""Contract: the table of calls of reconciliation's own has no reader any more."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("reconciliation", "0003_one_table_of_calls")]

    operations = [
        migrations.RemoveField(model_name="discrepancy", name="page"),
        migrations.DeleteModel(name="Page"),
    ]
