"""`manage.py prove_ledger`: exits 1 and names what differs when the books do not hold."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from payments.proof import prove_ledger


class Command(BaseCommand):
    help = "Re-derive every balance of the ledger from the operations."

    def handle(self, *args: Any, **options: Any) -> None:
        differences = prove_ledger()
        if differences:
            raise CommandError("the books do not hold:\n" + "\n".join(differences), returncode=1)
        self.stdout.write(self.style.SUCCESS("The books hold."))
