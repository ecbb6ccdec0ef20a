"""`manage.py sweep_sagas`: drives every due saga, for ever; needs nothing but the database."""

from __future__ import annotations

import signal
import threading
from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, close_old_connections

from payments import services

log = structlog.get_logger(__name__)
PERIOD_SECONDS = 5.0


class Command(BaseCommand):
    help = "Drive due sagas every five seconds until stopped; with --once, once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true")
        parser.add_argument(
            "--period", type=float, default=PERIOD_SECONDS, help="Seconds between two sweeps."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["once"]:
            self.stdout.write(f"{services.sweep_sagas()} sagas driven")
            return
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        while not stopping.is_set():
            stopping.wait(0 if self._sweep() else options["period"])

    def _sweep(self) -> int:
        """One round; a database that is away is waited for."""
        try:
            return services.sweep_sagas()
        except DatabaseError:
            log.exception("sweep_failed")
            close_old_connections()
            return 0
