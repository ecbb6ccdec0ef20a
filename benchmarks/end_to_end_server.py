"""The site as it is, and a bare view beside it, each saying in a header of every answer where its time went.

The header `Bench-Time` holds seconds: `gateway` as the stack's own Timing sees its calls, `database` in execute,
commit and rollback, `cpu` of the thread that answered outside of both, `all` from the first to the last line of the
application.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application_of_the_site = get_wsgi_application()

import psycopg  # noqa: E402

from payments.gateways import get_gateway  # noqa: E402
from payments.gateways.base import CaptureRequest, ChargeRequest  # noqa: E402
from payments.gateways.resilience import Timing  # noqa: E402
from payments.models import GatewayAccount  # noqa: E402
from payments.money import Money  # noqa: E402

_spent = threading.local()
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The outermost counts: what the stack asks the database inside a gateway call is the gateway call's."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if getattr(_spent, "inside", False):
            return function(*args, **kwargs)
        _spent.inside, start, cpu = True, time.perf_counter(), time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            _spent.inside = False
            _spent.cpu = getattr(_spent, "cpu", 0.0) + time.thread_time() - cpu
            setattr(_spent, name, getattr(_spent, name, 0.0) + time.perf_counter() - start)

    return run


def watch() -> None:
    """Wrap what is to be timed, in this process only."""
    for owner, names in (
        (psycopg.Cursor, ("execute", "executemany")),
        (psycopg.Connection, ("commit", "rollback")),
    ):
        for name in names:
            setattr(owner, name, timed(getattr(owner, name), "database"))
    Timing.__call__ = timed(Timing.__call__, "gateway")  # type: ignore[method-assign]


def saying(application: Application) -> Application:
    """The application with the header."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        _spent.gateway = _spent.database = _spent.cpu = 0.0
        start, cpu = time.perf_counter(), time.thread_time()

        def respond(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            spent = {
                "gateway": _spent.gateway,
                "database": _spent.database,
                "cpu": time.thread_time() - cpu - _spent.cpu,
                "all": time.perf_counter() - start,
            }
            return start_response(status, [*headers, ("Bench-Time", json.dumps(spent))], *rest)

        return application(environ, respond)

    return answer


# --- the floor ----------------------------------------------------------------------------------------------


@cache
def find_gateway() -> Any:
    return get_gateway(GatewayAccount.objects.get(gateway="stripe", name="default"))


def charge(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The two gateway calls of a paid order, through the same stack, and nothing else."""
    body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    name, amount = uuid.uuid4().hex[:20], Money(body["amount"], body["currency"])
    authorized = find_gateway().authorize(
        ChargeRequest(
            key=f"{name}-a",
            operation_id=f"{name}-a",
            payment_id=name,
            order_id=name,
            amount=amount,
            payment_method=body["payment_method"],
        )
    )
    captured = find_gateway().capture(CaptureRequest(f"{name}-c", f"{name}-c", authorized.reference, amount))
    answer = json.dumps({"state": "paid" if captured.status == "captured" else "open"}).encode()
    start_response(
        "201 Created", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    )
    return [answer]


watch()
site = saying(application_of_the_site)
floor = saying(charge)
