"""Run the embedded PostgreSQL and Redis of this checkout until Ctrl-C."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config import embedded
from config.processes import ProcessError, Supervisor, end_on_signals


class Command(BaseCommand):
    help = "Runs the embedded PostgreSQL and Redis until Ctrl-C, for every other command of this checkout."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        end_on_signals()
        try:
            with embedded.running() as servers:
                self._serve(servers)
        except KeyboardInterrupt:
            self.stdout.write("Stopped.")
        except ProcessError as error:
            raise CommandError(str(error)) from error

    def _serve(self, servers: embedded.Servers) -> None:
        self.stdout.write(f"DATABASE_URL={servers.database_url}")
        self.stdout.write(f"REDIS_URL={servers.redis_url}")
        self.stdout.write("Ctrl-C stops them.")
        self.stdout.flush()
        supervisor = Supervisor(self.stderr.write)
        supervisor.watch(servers.processes)
        supervisor.run()
