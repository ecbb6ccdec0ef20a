"""Run everything on this machine: servers, gateway, site and its workers, a shop's receiver, a history."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command, get_commands
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from config import demo_access, demo_receiver, demo_site, embedded
from config.processes import Process, ProcessError, Supervisor, end_on_signals

ROOT = Path(__file__).resolve().parents[3]
LOG = embedded.LOCAL / "log"
SANDBOX = embedded.LOCAL / "sandbox"
SANDBOX_READY = embedded.LOCAL / "sandbox.json"
READY_SECONDS = 120.0  # seconds on a free machine; a busy one needs longer
CURL = """\
curl -sS {url}/api/v1/orders \\
  -H 'Authorization: Bearer {key}' \\
  -H "Idempotency-Key: demo-order-$(date +%s)" -H 'Content-Type: application/json' \\
  -d '{{"reference": "demo-'$(date +%s)'", "amount": 12950, "currency": "EUR",
       "payment_method": "pm_card_visa", "capture": "automatic",
       "customer": {{"id": "cus_42", "email": "buyer@example.com"}},
       "billing": {{"country": "DE", "postal_code": "10115"}}, "shipping": {{"country": "DE"}},
       "lines": [{{"sku": "MUG-1", "quantity": 2, "unit_amount": 6475}}]}}'
"""


@dataclass
class History:
    """The background job that fills in the past; its lines are passed on as they come."""

    process: Process
    seen: int = 0

    def new_lines(self) -> list[str]:
        lines = self.process.log.read_text(errors="replace").split("\n")[:-1]
        fresh, self.seen = lines[self.seen :], len(lines)
        return fresh


class Command(BaseCommand):
    help = "Runs everything on this machine until Ctrl-C; prints the address, the logins and an order."
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="Of the site; 0 takes a free one.")
        parser.add_argument("--reset", action="store_true", help="Forget what earlier demos stored.")
        parser.add_argument("--days", type=int, default=14, help="How many days of history to make.")
        parser.add_argument("--no-history", action="store_true", help="Start with empty books.")

    def handle(self, *args: Any, **options: Any) -> None:
        self._refuse(history=not options["no_history"], reset=options["reset"])
        embedded.ensure_stopped()
        end_on_signals()
        port = free_port(options["port"])
        if options["reset"]:
            forget()
        try:
            self._run(port=port, days=0 if options["no_history"] else options["days"])
        except KeyboardInterrupt:
            self._say("Stopped.")
        except ProcessError as error:
            raise CommandError(str(error)) from error

    def _refuse(self, *, history: bool, reset: bool) -> None:
        if settings.PRODUCTION:
            raise CommandError("The demo does not run with DJANGO_ENV=production. Nothing was started.")
        if history and "seed_demo" not in get_commands():
            raise CommandError("There is no seed_demo command. Nothing was started; try --no-history.")
        if reset and os.environ.get("DATABASE_URL"):
            raise CommandError("--reset forgets embedded data only; emptying DATABASE_URL is yours to do.")

    def _run(self, *, port: int, days: int) -> None:
        database, redis = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
        started: list[Process] = []
        with embedded.running(postgres=not database, redis=not redis) as servers:
            urls = {"DATABASE_URL": database or servers.database_url, "REDIS_URL": redis or servers.redis_url}
            os.environ.update(urls)  # for every child
            demo_site.STATE.unlink(missing_ok=True)  # of a demo that was killed
            self._prepare_database()
            supervisor = Supervisor(self._say)
            supervisor.watch(servers.processes)
            try:
                self._run_site(supervisor, started, port=port, days=days)
            finally:
                demo_site.STATE.unlink(missing_ok=True)
                self._say("Stopping ...")
                supervisor.stop(started)

    def _prepare_database(self) -> None:
        if not os.environ["REDIS_URL"]:
            self._say("No Redis wheel for this platform: Celery passes its messages through .local/broker.")
        self._say("Migrating ...")
        call_command("migrate", interactive=False, verbosity=0)
        call_command("sync_roles", stdout=StringIO())
        if "sync_schedule" in get_commands():
            call_command("sync_schedule", stdout=StringIO())

    def _run_site(self, supervisor: Supervisor, started: list[Process], *, port: int, days: int) -> None:
        url, sandbox_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port(0)}"
        secret = "whsec_" + embedded.local_secret("stripe_webhook_secret")
        sandbox = sandbox_process(sandbox_url, site_url=url, secret=secret)
        started.append(supervisor.start(sandbox))
        sandbox.wait_until(SANDBOX_READY.exists, READY_SECONDS)
        env = base_env() | demo_site.site_settings(url=url, sandbox_url=sandbox_url, secret=secret)
        web, *others = site_processes(env, port=port)
        self._say("Starting the site ...")
        started.append(supervisor.start(web))
        web.wait_until(lambda: answers_200(f"{url}/healthz"), READY_SECONDS, every=0.25)
        for process in [receiver_process(), *others]:  # not earlier: the first page shall not wait for them
            started.append(supervisor.start(process))

        def ready() -> bool:
            supervisor.check()
            return answers_200(f"{url}/readyz")

        web.wait_until(ready, READY_SECONDS, every=0.25)
        access = demo_access.grant(
            url=url, sandbox_url=sandbox_url, webhook_secret=secret, file=demo_site.STATE
        )
        connections.close_all()
        self._welcome(access)
        history = self._start_history(started, env, sandbox_url=sandbox_url, days=days) if days else None
        supervisor.run(between=lambda: self._report(history))

    def _start_history(
        self, started: list[Process], env: dict[str, str], *, sandbox_url: str, days: int
    ) -> History:
        arguments = ["seed_demo", "--days", str(days), "--sandbox-url", sandbox_url]
        process = Process("history", manage(*arguments), log=fresh_log("history"), env=env)
        process.start()
        started.append(process)
        self._say(f"Filling in {days} days of history; the site can be used meanwhile.")
        return History(process)

    def _report(self, history: History | None) -> None:
        """Pass on the history's progress, and its end once."""
        if history is None or history.process.child is None:
            return
        code = history.process.ended()
        for line in history.new_lines():
            self._say(f"history | {line}")
        if code is not None:
            history.process.stop()
            done = (
                "The history is complete."
                if code == 0
                else f"The history ended with code {code}; the site goes on."
            )
            self._say(f"{done} Its log: {history.process.shown_log()}")

    def _welcome(self, access: demo_access.Access) -> None:
        self._say(f"\nCountinghouse runs at {access.url}/admin/\n")
        self._say(f"  {'role':<18}{'login':<18}password")
        for role, user in access.users.items():
            self._say(f"  {role:<18}{user.username:<18}{user.password}")
        self._say("\nPlace a paid order:\n\n" + CURL.format(url=access.url, key=access.api_key))
        self._say(f"Logs: tail -f {LOG.relative_to(ROOT)}/*.log   Ctrl-C stops everything.\n")

    def _say(self, text: str) -> None:
        self.stdout.write(f"{text}\n", ending="")  # Django would swallow the last of two line ends
        self.stdout.flush()


def free_port(wanted: int) -> int:
    """The wanted port, or a free one for 0.

    Raises CommandError when somebody else listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise CommandError(
                f"Port {wanted} is taken. Nothing was started; try `python3 manage.py demo --port 0`."
            ) from error
        return int(probe.getsockname()[1])


def forget() -> None:
    """Empty the books of the embedded servers and of the sandbox, which must not run."""
    embedded.reset()
    for folder in (SANDBOX, embedded.LOCAL / "broker", embedded.LOCAL / "media"):
        shutil.rmtree(folder, ignore_errors=True)


def sandbox_process(sandbox_url: str, *, site_url: str, secret: str) -> Process:
    """The gateway; it keeps its books in .local/sandbox, and its port when it is restarted."""
    SANDBOX_READY.unlink(missing_ok=True)
    SANDBOX.mkdir(parents=True, exist_ok=True)
    port = sandbox_url.rpartition(":")[2]
    arguments = ["--port", port, "--data", str(SANDBOX), "--ready-file", str(SANDBOX_READY)]
    webhooks = ["--webhook-url", site_url + demo_access.WEBHOOK_PATH, "--webhook-secret", secret]
    command = [sys.executable, "-m", "payments.sandbox", *arguments, *webhooks]
    return Process("sandbox", command, log=fresh_log("sandbox"), env=base_env())


def site_processes(env: dict[str, str], *, port: int) -> list[Process]:
    """Web first, then who works for it."""
    celery = [sys.executable, "-m", "celery", "-A", "config.celery"]
    gunicorn = [sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{port}"]
    workers = ["--workers", "2", "--worker-class", "gthread", "--threads", "8", "--no-control-socket"]
    commands = {
        "web": [*gunicorn, *workers, "--access-logfile", "-"],
        "worker": [*celery, "worker", "--concurrency", "2", "--loglevel", "INFO", "--without-mingle"],
        "beat": [*celery, "beat", "--loglevel", "INFO", "--pidfile="],
        "sweeper": manage("sweep_sagas"),
    }
    return [Process(name, command, log=fresh_log(name), env=env) for name, command in commands.items()]


def receiver_process() -> Process:
    """The shop that hears of its orders, on a free port at each start."""
    port = free_port(0)
    secrets = demo_access.endpoint_secrets(f"http://127.0.0.1:{port}{demo_receiver.PATH}")
    command = [sys.executable, "-m", "config.demo_receiver", "--port", str(port)]
    env = base_env() | {demo_receiver.SECRETS: " ".join(secrets)}
    return Process("receiver", command, log=fresh_log("receiver"), env=env)


def manage(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "manage.py"), *arguments]


def base_env() -> dict[str, str]:
    return os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}


def fresh_log(name: str) -> Path:
    path = LOG / f"{name}.log"
    path.unlink(missing_ok=True)
    return path


def answers_200(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own address
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
