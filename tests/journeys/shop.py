"""A whole shop of real processes, on a database of its own: gateway, web, worker with beat, and sweeper."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import requests
from django.conf import settings
from psycopg.conninfo import make_conninfo

from config.processes import Process
from tests.journeys.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
WEBHOOK_PATH = "/webhooks/stripe/default/"
READY_SECONDS = 180.0
PATIENCE = 120.0  # seconds: what a request may take, however busy the machine is
# For a web process that is to give a lost answer up soon: the others are as patient as in a real shop.
HASTE = {"GATEWAY_TIMEOUT_SECONDS": "2"}
WEB_THREADS = 16
# Short, so that a story does not wait for what takes minutes in a real shop.
HURRY = {
    "UNKNOWN_QUERY_SECONDS": "1,1,2",
    "CUSTOMER_ACTION_SECONDS": "600",
    "FRAUD_RULES_SECONDS": "0",
    "LOG_JSON": "true",
    "LOG_LEVEL": "INFO",
    "PYTHONUNBUFFERED": "1",
}
CHANGE_RULE = """
WITH source AS (SELECT ruleset_id FROM fraud_ruleactivation ORDER BY starts_at DESC, id DESC LIMIT 1),
draft AS (
    INSERT INTO fraud_ruleset (id, number, state, note, digest, editors, created_by, created_at, submitted_by,
        published_by, based_on_id)
    SELECT 'rset_test_' || max(number) + 1, max(number) + 1, 'draft', '', '', '[]', 'user:tester', now(), '', '',
        (SELECT ruleset_id FROM source) FROM fraud_ruleset
    RETURNING id
)
INSERT INTO fraud_rule (ruleset_id, key, name, code, expression, parameters, points, outcome, mode, share, on_error,
    position)
SELECT draft.id, key, name, code, expression, parameters, points, outcome, mode, share, on_error, position
FROM fraud_rule rule, draft WHERE rule.ruleset_id = (SELECT ruleset_id FROM source);
UPDATE fraud_rule SET {change} WHERE key = '{key}'
    AND ruleset_id IN (SELECT id FROM fraud_ruleset WHERE state = 'draft');
UPDATE fraud_ruleset SET state = 'submitted', digest = 'test', submitted_by = 'user:tester' WHERE state = 'draft';
UPDATE fraud_ruleset SET state = 'published', published_by = 'user:publisher' WHERE state = 'submitted';
INSERT INTO fraud_ruleactivation (ruleset_id, starts_at, is_rollback, note, created_by, created_at, cancelled_by)
SELECT id, now(), FALSE, '', 'user:publisher', now(), '' FROM fraud_ruleset ORDER BY number DESC LIMIT 1
"""
ORDER: dict[str, Any] = {
    "amount": 12950,
    "currency": "EUR",
    "payment_method": "pm_card_de",
    "capture": "automatic",
    "billing": {"country": "DE", "postal_code": "10115"},
    "shipping": {"country": "DE"},
    "lines": [{"sku": "MUG-1", "quantity": 2, "unit_amount": 6475}],
}


@dataclass
class Shop:
    """The addresses of a running shop, the storefront's requests to it, and the judge's look at its books."""

    url: str
    sandbox_url: str
    database: str
    folder: Path
    env: dict[str, str]
    webhook_secret: str
    api_key: str = ""
    passwords: dict[str, str] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)

    # --- the storefront -------------------------------------------------------------------------------------

    def place(self, *, key: str = "", url: str = "", prefer: str = "", **changes: Any) -> requests.Response:
        """Place an order of its own reference, card and customer, unless told otherwise."""
        name = secrets.token_hex(6)
        members: dict[str, Any] = {
            "reference": f"web-{name}",
            "payment_method": f"pm_card_de_{name}",
            "customer": {"id": f"cus_{name}", "email": f"{name}@example.com"},
        }
        headers = {"Prefer": prefer} if prefer else {}
        return self.post("orders", {**ORDER, **members, **changes}, key=key, url=url, headers=headers)

    def pay(self, **changes: Any) -> dict[str, Any]:
        """Place an order that must be paid, at once or after the gateway was asked again."""
        response = self.place(**changes)
        assert response.status_code in (201, 202), response.text
        return self.await_state(response.json()["id"], "paid")

    def post(
        self,
        path: str,
        body: Any = None,
        *,
        key: str = "",
        url: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        sent = {
            "Authorization": f"Bearer {self.api_key}",
            "Idempotency-Key": key or secrets.token_hex(16),
            **(headers or {}),
        }
        return requests.post(
            f"{url or self.url}/api/v1/{path}", json=body or {}, headers=sent, timeout=PATIENCE
        )

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        response = requests.get(f"{self.url}/api/v1/{path}", headers=headers, timeout=PATIENCE)
        assert response.status_code == 200, response.text
        return response.json()

    def await_state(self, order_id: str, *states: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            order: dict[str, Any] = self.get(f"orders/{order_id}")
            seen.append(order["state"])
            return order if order["state"] in states else None

        seen: list[str] = []
        found = wait_until(look, what=lambda: f"{order_id} is {seen[-1]}, not {states}")
        assert found is not None
        return found

    # --- the gateway ----------------------------------------------------------------------------------------

    def control(self, path: str, body: Any = None, *, method: str = "POST") -> Any:
        """One of the sandbox's own controls."""
        return self._ask_sandbox(method, path, json=body or {})

    def call_gateway(self, path: str, data: Mapping[str, str] | None = None, *, method: str = "POST") -> Any:
        """The gateway's API, as somebody in its dashboard would use it."""
        return self._ask_sandbox(method, f"/v1/{path}", data=data, auth=("sk_test_dashboard", ""))

    def _ask_sandbox(self, method: str, path: str, **arguments: Any) -> Any:
        response = requests.request(method, self.sandbox_url + path, timeout=PATIENCE, **arguments)
        assert response.status_code == 200, response.text
        return response.json()

    def intents(self, order_id: str) -> list[dict[str, Any]]:
        """What the gateway's books hold about an order: one entry for each payment intent."""
        books = self._ask_sandbox("GET", "/_books", params={"metadata[order_id]": order_id})
        return list(books["payment_intents"].values())

    def intent(self, order_id: str) -> dict[str, Any]:
        """The only payment intent of an order."""
        found = self.intents(order_id)
        assert len(found) == 1, found
        return found[0]

    # --- our own books --------------------------------------------------------------------------------------

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def change_rule(self, key: str, change: str) -> None:
        """Put a set in force that differs from the one before in this rule: `mode = 'on'`."""
        self.sql(CHANGE_RULE.format(key=key, change=change))

    def roll_rules_back(self) -> None:
        """Put the first set in force again."""
        self.sql(
            "INSERT INTO fraud_ruleactivation (ruleset_id, starts_at, is_rollback, note, created_by, created_at, "
            "cancelled_by) SELECT id, now(), TRUE, '', 'user:tester', now(), '' FROM fraud_ruleset WHERE number = 1"
        )

    def manage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(
            command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def assert_books_hold(self) -> None:
        """The ledger's proof; what is on its way may need a moment."""
        done = self.manage("prove_ledger", check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    # --- processes ------------------------------------------------------------------------------------------

    def start(self, name: str, *command: str, **env: str) -> Process:
        log = self.folder / f"{name}.log"
        process = Process(name, [sys.executable, *command], log=log, env=self.env | env)
        self.processes[name] = process
        process.start()
        return process

    def start_web(
        self, name: str = "web", *, url: str = "", application: str = "config.wsgi", **env: str
    ) -> Process:
        """A web process at the shop's address, or at another one; ready when this returns."""
        url = url or self.url
        bind = url.removeprefix("http://")
        gunicorn = [
            "-m",
            "gunicorn",
            application,
            "--bind",
            bind,
            "--workers",
            "1",
            "--worker-class",
            "gthread",
        ]
        threads = ["--threads", str(WEB_THREADS), "--access-logfile", "-", "--no-control-socket"]
        web = self.start(name, *gunicorn, *threads, **env)
        web.wait_until(lambda: is_alive(url), READY_SECONDS, every=0.25)
        return web

    def kill(self, name: str) -> None:
        """kill -9 of the process and all of its group."""
        child = self.processes[name].child
        assert child is not None
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.stop(5)


def free_url() -> str:
    """An address of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def is_alive(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=10).status_code == 200
    except requests.RequestException:
        return False


@contextmanager
def open_shop(name: str, folder: Path, **env: str) -> Iterator[Shop]:
    """Run a shop for the length of a block; of it only the logs in the folder are left afterwards."""
    with ExitStack() as stack:
        database_url, conninfo = stack.enter_context(own_database(name))
        secret = f"whsec_{secrets.token_hex(16)}"
        # DJANGO_SETTINGS_MODULE names the settings of the tests: these processes are the real site.
        base = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
        url = free_url()
        shop = Shop(
            url=url,
            sandbox_url="",
            database=conninfo,
            folder=folder,
            env=base | HURRY | {"PYTHONPATH": str(ROOT), "DATABASE_URL": database_url} | env,
            webhook_secret=secret,
        )
        shop.env |= {"REDIS_URL": settings.REDIS_URL, "SITE_URL": url, "MEDIA_ROOT": str(folder / "media")}
        stack.callback(shop.stop)
        start_processes(shop)
        yield shop


def start_processes(shop: Shop) -> None:
    ready = shop.folder / "sandbox.json"
    hook = ["--webhook-url", shop.url + WEBHOOK_PATH, "--webhook-secret", shop.webhook_secret]
    place = ["--port", "0", "--data", str(shop.folder / "books"), "--ready-file", str(ready)]
    (shop.folder / "books").mkdir()
    sandbox = shop.start("sandbox", "-m", "payments.sandbox", *place, *hook)
    sandbox.wait_until(ready.exists, READY_SECONDS)
    shop.sandbox_url = json.loads(ready.read_text())["url"]
    shop.env |= {
        "STRIPE_API_BASE": shop.sandbox_url,
        "STRIPE_API_KEY": "sk_test_sandbox",
        "STRIPE_WEBHOOK_SECRET": shop.webhook_secret,
    }
    prepare(shop)
    shop.start("sweeper", str(ROOT / "manage.py"), "sweep_sagas", "--period", "0.5")
    celery = [
        "-m",
        "celery",
        "-A",
        "config.celery",
        "worker",
        "--beat",
        "--pool",
        "threads",
        "--concurrency",
        "2",
    ]
    shop.start("worker", *celery, "--without-mingle", "--without-gossip", "--loglevel", "INFO")
    shop.start_web()


def prepare(shop: Shop) -> None:
    command = [sys.executable, "-m", "tests.journeys.prepare"]
    done = subprocess.run(command, env=shop.env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    prepared = json.loads(done.stdout.splitlines()[-1])
    shop.api_key, shop.passwords = prepared["api_key"], prepared["passwords"]


@contextmanager
def own_database(name: str) -> Iterator[tuple[str, str]]:
    """A new database on the server of the tests: its URL for Django, and its address for libpq."""
    database = f"countinghouse_{name}_{os.getpid()}"
    server = make_conninfo(settings.DATABASE_URL, dbname="postgres")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {database}".encode())
    try:
        url = urlunsplit(urlsplit(settings.DATABASE_URL)._replace(path=f"/{database}"))
        yield url, make_conninfo(settings.DATABASE_URL, dbname=database)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())


def run_together(count: int, work: Any) -> list[Any]:
    """Call `work(number)` from so many threads at once; the results in order."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))
