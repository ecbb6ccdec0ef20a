"""Answers whether the process lives and whether the site can work, for load balancers and on-call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from config.metrics import measure_queue_ages

logger = structlog.stdlib.get_logger(__name__)


@never_cache
@require_safe
def show_liveness(request: HttpRequest) -> HttpResponse:
    """The process answers. Asks nothing of anybody, so that a database failure restarts no web process."""
    return HttpResponse("ok", content_type="text/plain")


@never_cache
@require_safe
def show_readiness(request: HttpRequest) -> JsonResponse:
    """200 when requests can be served, else 503. Old queues are shown, but do not take the web server out."""
    checks = {name: _run(check) for name, check in _CHECKS.items()}
    is_ready = all(outcome["ok"] for outcome in checks.values())
    status = "ok" if is_ready else "unavailable"
    return JsonResponse({"status": status, "checks": checks}, status=200 if is_ready else 503)


def _run(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"ok": True, **check()}
    except (DatabaseError, NotReadyError) as error:
        logger.error("not_ready", check=check.__name__, exc_info=error)
        # The text of a database error names hosts and users: it is for the log.
        return {
            "ok": False,
            "reason": str(error) if isinstance(error, NotReadyError) else type(error).__name__,
        }


class NotReadyError(Exception):
    """The site cannot work yet; the message is public."""


def check_database() -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return {}


def check_migrations() -> dict[str, Any]:
    """Raises `NotReadyError` when the code is ahead of the database."""
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    if missing:
        raise NotReadyError(f"{missing} migrations are not applied")
    return {}


def check_queues() -> dict[str, Any]:
    """Seconds that the oldest due item of each queue has waited; null when none waits."""
    return {"oldest_seconds": measure_queue_ages()}


_CHECKS: dict[str, Callable[[], dict[str, Any]]] = {
    "database": check_database,
    "migrations": check_migrations,
    "queues": check_queues,
}
