"""What every test stands on: the servers of the session, and a browser for who asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from django.db import connection, transaction
from django.db.backends.postgresql.operations import DatabaseOperations
from playwright.sync_api import Browser, Playwright, expect, sync_playwright
from pytest_django import DjangoDbBlocker

from config import embedded
from fraud.live import forget_plan
from payments.api import throttling
from payments.gateways import resilience

# A limit costs time only where something is broken: none may fail what is slow on a busy machine.
PATIENCE_SECONDS = 60.0
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
expect.set_options(timeout=PATIENCE_SECONDS * 1000)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# As root the sandbox of Chromium does not start; the rest keeps it from calling its maker.
BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NO_BROWSER = (
    "There is no Chromium for the browser tests. On Debian: apt install chromium. "
    "Elsewhere: .venv/bin/playwright install chromium. Without them: pytest -m 'not browser'."
)


# To truncate a hundred tables takes half a second, most of it for those that a test never touched.
SWOLLEN_BYTES = 4_000_000  # of one table's dead rows: then all are truncated after all
DELETE_ROWS = """
CREATE FUNCTION migrated.delete_rows(tables text[], swollen bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text;
    has_rows boolean;
BEGIN
    -- As TRUNCATE does: whoever still writes comes to an end first, and its rows go too.
    EXECUTE (SELECT 'LOCK TABLE ' || string_agg(quote_ident(each), ', ') FROM unnest(tables) each);
    FOREACH name IN ARRAY tables LOOP
        IF pg_relation_size(quote_ident(name)) > swollen THEN
            RETURN false;
        END IF;
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', name) INTO has_rows;
        IF has_rows THEN
            EXECUTE format('DELETE FROM %I', name);
        END IF;
    END LOOP;
    RETURN true;
END $$
"""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Tell .ci/run which tests failed, but only when every test was run."""
    file, reporter = (
        os.environ.get("FAILED_TESTS_FILE"),
        session.config.pluginmanager.get_plugin("terminalreporter"),
    )
    if file and reporter and exitstatus == pytest.ExitCode.TESTS_FAILED:
        failed = [*reporter.stats.get("failed", []), *reporter.stats.get("error", [])]
        Path(file).write_text("".join(f"{name}\n" for name in dict.fromkeys(one.nodeid for one in failed)))


@pytest.fixture(scope="session", autouse=True)
def servers() -> Iterator[None]:
    """PostgreSQL and Redis for this session, where the environment named none (see tests/settings.py)."""
    postgres = os.environ["DATABASE_URL"] == embedded.database_url(fast=True)
    redis = os.environ["REDIS_URL"] == embedded.redis_url(fast=True)
    if not (postgres or redis):
        yield
        return
    with embedded.running(fast=True, postgres=postgres, redis=redis):
        yield


@pytest.fixture(scope="session", autouse=True)
def patient_redis() -> Iterator[None]:
    """A Redis that is slow to answer is not given up for the counters of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throttling, "REDIS_TIMEOUT_SECONDS", PATIENCE_SECONDS)
        waits = dict.fromkeys(resilience.REDIS_PATIENCE, PATIENCE_SECONDS)
        patch.setattr(resilience, "REDIS_PATIENCE", waits)
        yield


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let tests with real commits start with the rows that the migrations made, and no others.

    Django empties all tables after such a test. Here the ledger's guard against TRUNCATE is passed, and
    the migrations' rows (roles, the default account, rules) come back.
    """
    with django_db_blocker.unblock():
        tables = save_migrated_rows()
        every = connection.introspection.django_table_names(only_existing=True, include_views=False)
    flush = DatabaseOperations.execute_sql_flush

    def flush_and_restore(self: DatabaseOperations, statements: list[str]) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")  # no triggers
            cursor.execute("SELECT migrated.delete_rows(%s, %s)", [every, SWOLLEN_BYTES])
            if not cursor.fetchone()[0]:
                flush(self, statements)
            for table in tables:
                cursor.execute(f'INSERT INTO "{table}" SELECT * FROM migrated."{table}"')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseOperations, "execute_sql_flush", flush_and_restore)
        yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:  # or the database could not be dropped
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def save_migrated_rows() -> list[str]:
    """Copy every table that has rows after the migrations to a schema of its own."""
    saved = []
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS migrated CASCADE")
        cursor.execute("CREATE SCHEMA migrated")
        cursor.execute(DELETE_ROWS)
        for table in set(connection.introspection.table_names(cursor)) - {"django_migrations"}:
            cursor.execute(f'SELECT EXISTS (SELECT FROM "{table}")')
            if cursor.fetchone() == (True,):
                cursor.execute(f'CREATE TABLE migrated."{table}" AS TABLE "{table}"')
                saved.append(table)
    return saved


@pytest.fixture(autouse=True)
def _look_at_the_rules_again() -> Iterator[None]:
    """A process keeps the rule set in force for two seconds: longer than a test's own rules live."""
    yield
    forget_plan()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, or else Playwright's own; the tests fail when there is neither."""
    # Playwright leaves its event loop in this thread, and Django would refuse every query beside one.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(playwright), args=BROWSER_FLAGS, timeout=180_000
        )
        yield browser
        browser.close()


def find_browser(playwright: Playwright) -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None) or playwright.chromium.executable_path
    if not Path(found).exists():
        pytest.fail(NO_BROWSER, pytrace=False)
    return found
