"""Gives the role groups their permissions, exactly as payments.controls.roles says; run it after every migrate."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from payments.controls.roles import sync_roles


class Command(BaseCommand):
    help = "Gives the role groups exactly the permissions of payments/controls/roles.py."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            counts = sync_roles()
        except LookupError as error:
            raise CommandError(str(error)) from error
        for role, count in counts.items():
            self.stdout.write(f"{role}: {count} permissions")
