"""`manage.py purge`: deletes and redacts what is older than the declaration of payments/retention.py lets it be."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from payments.purge import Tally
from payments.purge import purge as apply_rules
from payments.retention import Deed, list_kept

_DONE = {Deed.DELETE: "deleted", Deed.REDACT: "redacted", Deed.DROP: "partitions dropped"}
_WOULD = {Deed.DELETE: "to delete", Deed.REDACT: "to redact", Deed.DROP: "partitions to drop"}


class Command(BaseCommand):
    help = "Delete and redact what has been kept long enough, in small steps, while the site runs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count what would go, and change nothing")
        parser.add_argument("--table", default="", help="this table alone")
        parser.add_argument("--minutes", type=float, help="stop after this time; the next run goes on")
        parser.add_argument("--kept", action="store_true", help="list what is kept, and why; nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["kept"]:
            for table, why in sorted(list_kept().items()):
                self.stdout.write(f"{table:<36} {why}")
            return
        seconds = options["minutes"] * 60 if options["minutes"] else None
        try:
            tallies = apply_rules(table=options["table"], dry_run=options["dry_run"], seconds=seconds)
            failed = [tally for tally in tallies if self.tell(tally, dry_run=options["dry_run"])]
        except LookupError as error:
            raise CommandError(str(error)) from None
        if failed:
            names = ", ".join(tally.rule.name for tally in failed)
            raise CommandError(f"refused by the database: {names}; the rest is done", returncode=1)

    def tell(self, tally: Tally, *, dry_run: bool) -> str:
        """One line of a rule; returns what went wrong."""
        rule = tally.rule
        age = f"after {rule.after.days} days" if rule.after else "when expired"
        words = _WOULD if dry_run else _DONE
        notes = [tally.note, "" if tally.is_finished else "not finished", tally.error]
        rest = "".join(f"; {note}" for note in notes if note)
        self.stdout.write(f"{rule.table:<28} {age:<15} {tally.count:>8} {words[rule.deed]}{rest}")
        return tally.error
