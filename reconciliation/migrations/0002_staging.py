"""The scratch table that reports are copied into."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("reconciliation", "0001_initial")]

    operations = [
        migrations.RunSQL((SQL / "staging.sql").read_text(), "DROP TABLE reconciliation_staging"),
    ]
