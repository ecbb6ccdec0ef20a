"""Loads the triggers that hold the ledger, the outbox and the diary."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).parent / "sql"


class Migration(migrations.Migration):
    dependencies = [("payments", "0001_floor")]

    operations = [
        migrations.RunSQL((SQL / "ledger_guards.sql").read_text(), migrations.RunSQL.noop),
        migrations.RunSQL((SQL / "append_only.sql").read_text(), migrations.RunSQL.noop),
    ]
