"""Run the sandbox gateway: a card gateway on this machine, with its own books."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from payments.sandbox.__main__ import add_arguments, run


class Command(BaseCommand):
    """`manage.py sandbox [--port] [--data DIR] [--webhook-url] [--webhook-secret]`."""

    help = "Runs the sandbox gateway alone, until Ctrl-C."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        raise SystemExit(run(argparse.Namespace(**options)))
