"""Writes screened orders with their labels as Parquet: manage.py export_training_data --out orders.parquet."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from fraud.scores.export import export_training_data

DAYS = 90


class Command(BaseCommand):
    help = "Export screened orders with facts, verdicts and labels, masked, for training a model."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--since", type=parse_day, help=f"The first UTC day; {DAYS} days ago by default.")
        parser.add_argument("--until", type=parse_day, help="The day after the last; now by default.")
        parser.add_argument("--out", type=Path, required=True, help="The Parquet file to write.")

    def handle(self, **options: Any) -> None:
        out, until = options["out"], options["until"] or timezone.now()
        since = options["since"] or until - timedelta(days=DAYS)
        if since >= until:
            raise CommandError(f"--since {since:%F} is not before --until {until:%F}; nothing was written.")
        if out.suffix != ".parquet":
            raise CommandError(f"--out {out} does not end in .parquet; nothing was written.")
        try:
            done = export_training_data(out, since=since, until=until)
        except OSError as error:
            raise CommandError(f"{out} cannot be written: {error.strerror}.") from error
        told = f"{done.rows} screenings, {done.labelled} with a label, {done.fraud} of them fraud: {out}"
        self.stdout.write(told)


def parse_day(text: str) -> datetime:
    """Raises `ValueError`, which argparse tells the user."""
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
