"""Logs: one masked line per record on every handler, under the ids of its request."""

from __future__ import annotations

import json
import logging
import logging.config
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from config.logging import logging_config, mask_uncaught_exceptions
from config.middleware import RequestIdMiddleware, choose_request_id
from payments.ids import is_id
from payments.redaction import PCIRedactionFilter, RedactingFormatter

VISA = "4111111111111111"


class Log:
    """What the configured root handler wrote."""

    def __init__(self, stream: StringIO) -> None:
        self.stream = stream

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def configure(*, json: bool) -> Iterator[Log]:
    """The site's own configuration, with a stream in place of stderr; what was there comes back."""
    root, stream = logging.getLogger(), StringIO()
    before = (root.handlers[:], root.level)
    config = logging_config(json=json, level="INFO")
    config["handlers"]["stderr"]["stream"] = stream
    logging.config.dictConfig(config)
    clear_contextvars()
    yield Log(stream)
    clear_contextvars()
    root.handlers[:], root.level = before


@pytest.fixture
def log() -> Iterator[Log]:
    yield from configure(json=True)


@pytest.fixture
def plain_log() -> Iterator[Log]:
    yield from configure(json=False)


def test_a_line_has_a_utc_time_a_level_a_logger_and_an_event(log: Log) -> None:
    logging.getLogger("payments.services").info("captured %s", "pay_1")
    [record] = log.records
    assert datetime.fromisoformat(record.pop("timestamp")).tzinfo == UTC
    assert record == {"level": "info", "logger": "payments.services", "event": "captured pay_1"}


def test_the_ids_of_the_context_are_on_every_line(log: Log) -> None:
    bind_contextvars(request_id="req_1", order_id="ord_1", saga_id="sag_1", client_id="cli_1")
    logging.getLogger("a").info("standard")
    structlog.stdlib.get_logger("b").info("structured", amount=1999)
    ids = {"request_id": "req_1", "order_id": "ord_1", "saga_id": "sag_1", "client_id": "cli_1"}
    assert [record | ids for record in log.records] == log.records
    assert log.records[1]["amount"] == 1999


def test_ids_given_with_a_standard_record_are_kept(log: Log) -> None:
    logging.getLogger("a").info("x", extra={"order_id": "ord_2", "request": object()})
    assert log.records[0]["order_id"] == "ord_2"
    assert "request" not in log.records[0]


def log_everywhere(number: str) -> None:
    """The number in a message, in arguments, under names, in a chained exception, in a stack."""
    standard, structured = logging.getLogger("a"), structlog.stdlib.get_logger("b")
    standard.warning("card %s", number)
    standard.warning("card %s", int(number))
    standard.warning("from elsewhere", extra={"order_id": number})
    structured.warning("card", card={"number": number, "cvv": "987"}, note=f"n {number}", n=int(number))
    try:
        secret_local = number + ""
        try:
            raise ValueError(f"bad card {secret_local}")
        except ValueError as error:
            raise RuntimeError("charge failed") from error
    except RuntimeError:
        standard.exception("failed", stack_info=True)
        structured.exception("failed", stack_info=True)


def test_a_card_number_is_masked_wherever_it_ends(log: Log) -> None:
    log_everywhere(VISA)
    assert VISA not in log.text
    assert "987" not in log.text
    assert log.text.count("411111******1111") == 8
    assert len(log.records) == 6  # every line is JSON still


def test_the_plain_lines_for_people_are_masked_as_well(plain_log: Log) -> None:
    log_everywhere(VISA)
    assert VISA not in plain_log.text
    assert "987" not in plain_log.text
    assert plain_log.text.count("411111******1111") == 8


def test_a_number_in_foreign_digits_is_masked_in_json(log: Log) -> None:
    logging.getLogger("a").warning("card ٤١١١ ١١١١ ١١١١ ١١١١")
    assert log.records[0]["event"] == "card 411111******1111"


def test_tracebacks_show_no_local_variables(log: Log) -> None:
    def charge() -> None:
        harmless_local = "visible-value"
        raise ValueError(len(harmless_local))

    try:
        charge()
    except ValueError:
        logging.getLogger("a").exception("failed")
        structlog.stdlib.get_logger("b").exception("failed")
    for record in log.records:
        assert "Traceback (most recent call last)" in record["exception"]
        assert "ValueError: 13" in record["exception"]
    assert "visible-value" not in log.text


@pytest.mark.parametrize(
    "breaker", ["\n", "\r", "\r\n", "\x1b[2J", "\x0b", "\x85", "\u2028", "\u2029", "\u202e", "\x00"]
)
def test_no_value_can_forge_a_line(log: Log, breaker: str) -> None:
    logging.getLogger("a").warning("first%sforged", breaker)
    structlog.stdlib.get_logger("b").warning("x", **{"value": f"1{breaker}2", f"key{breaker}": 1})
    assert len(log.text.splitlines()) == 2
    raw = log.text.replace("\n", "")
    assert [char for char in breaker if char in raw and not char.isprintable()] == []
    assert log.records[0]["event"] == f"first{breaker}forged"


@pytest.mark.parametrize("breaker", ["\n", "\r", "\x1b[2J", "\u2028"])
def test_no_value_can_forge_a_plain_line(plain_log: Log, breaker: str) -> None:
    logging.getLogger("a").warning("first%sforged", breaker)
    structlog.stdlib.get_logger("b").warning("x", value=f"1{breaker}2")
    try:
        raise ValueError(f"message{breaker}2026-11-20 forged")
    except ValueError:
        logging.getLogger("a").exception("failed")
    lines = plain_log.text.splitlines()
    assert [line for line in lines if not re.match(r"\d{4}-\d\d-\d\dT\S+ |  \| ", line)] == []
    assert "\x1b" not in plain_log.text


def test_values_that_are_not_json_are_written_as_text(log: Log) -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError(VISA)

    structlog.stdlib.get_logger("b").warning(
        "x", when=datetime(2026, 11, 20, tzinfo=UTC), broken=Broken(), odd={1: {2}}
    )
    assert log.records[0]["when"] == "2026-11-20 00:00:00+00:00"
    assert log.records[0]["broken"] == "<Broken>"
    assert log.records[0]["odd"] == {"1": [2]}


def test_an_object_that_prints_a_card_number_is_masked(log: Log) -> None:
    structlog.stdlib.get_logger("b").warning("x", card=SimpleNamespace(number=VISA))
    assert VISA not in log.text
    assert "411111******1111" in log.text


def test_a_record_that_a_filter_masked_before_keeps_its_traceback(log: Log) -> None:
    handler = logging.getLogger().handlers[0]
    handler.addFilter(PCIRedactionFilter())
    try:
        raise ValueError(f"bad card {VISA}")
    except ValueError:
        logging.getLogger("a").exception("failed")
    assert "ValueError: bad card 411111******1111" in log.records[0]["exception"]


def test_every_handler_of_the_configuration_masks(log: Log) -> None:
    config = logging_config(json=True, level="INFO")
    assert {handler["formatter"] for handler in config["handlers"].values()} == {"line"}
    loggers = [logging.getLogger(name) for name in (None, *config["loggers"])]
    ours = [h for logger in loggers for h in logger.handlers if getattr(h, "stream", None) is log.stream]
    assert [type(handler.formatter) for handler in ours] == [RedactingFormatter]


@pytest.mark.parametrize("name", ["django", "django.server", "gunicorn.error", "gunicorn.access"])
def test_servers_with_handlers_of_their_own_write_through_ours(name: str) -> None:
    stream = StringIO()
    logging.getLogger(name).addHandler(logging.StreamHandler(stream))
    for log in configure(json=True):
        logging.getLogger(name).error("GET /pay?card=%s", VISA)
        assert log.records[0]["event"] == "GET /pay?card=411111******1111"
    assert stream.getvalue() == ""


def test_uncaught_exceptions_are_masked_in_every_thread(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    mask_uncaught_exceptions()

    def fail() -> None:
        raise ValueError(f"bad card {VISA}")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    printed = capsys.readouterr().err
    assert printed.count("ValueError: bad card 411111******1111") == 2
    assert VISA not in printed


def test_an_unknown_level_stops_the_start() -> None:
    with pytest.raises(ValueError, match="'LOUD' is not a log level"):
        logging_config(json=True, level="LOUD")


# --- the request id -----------------------------------------------------------------------------------------
def answer(**headers: str) -> tuple[HttpResponse, HttpRequest]:
    request = RequestFactory().get("/orders/4111", headers=headers)

    def view(request: HttpRequest) -> HttpResponse:
        request.resolver_match = SimpleNamespace(route="orders/<id>")  # type: ignore[assignment]
        logging.getLogger("view").info("inside")
        return HttpResponse(status=201)

    return RequestIdMiddleware(view)(request), request


@pytest.mark.parametrize("offered", ["abcdefgh", "7c0f2b1a-4111-4111-8111-111111111111", "A_b-9" * 12])
def test_a_well_formed_request_id_is_kept(log: Log, offered: str) -> None:
    response, request = answer(x_request_id=offered)
    assert response.headers["X-Request-ID"] == request.request_id == offered  # type: ignore[attr-defined]
    assert {record["request_id"] for record in log.records} == {offered}


@pytest.mark.parametrize(
    "offered",
    [
        "",
        "short",
        "x" * 65,
        "with space",
        "line\nbreak1",
        "ünicode-id",
        VISA,
        "4111-1111-1111-1111",
        f"req_{VISA}",
        "cvv-is-123",
    ],
)
def test_any_other_request_id_is_replaced(offered: str) -> None:
    assert is_id(choose_request_id(offered), "req")


def test_one_line_tells_how_a_request_ended(log: Log) -> None:
    answer()
    finished = log.records[-1]
    assert finished["event"] == "request_finished"
    assert (finished["method"], finished["route"], finished["status"]) == ("GET", "orders/<id>", 201)
    assert finished["duration_ms"] >= 0
    assert "/orders/4111" not in log.text


def test_nothing_is_left_for_the_next_request(log: Log) -> None:
    bind_contextvars(order_id="ord_of_another")
    answer()
    assert get_contextvars() == {}
    assert "ord_of_another" not in log.text


def test_the_context_is_cleared_when_the_request_fails(log: Log) -> None:
    def fail(_request: HttpRequest) -> HttpResponse:
        raise RuntimeError

    middleware: Callable[[HttpRequest], HttpResponse] = RequestIdMiddleware(fail)
    with pytest.raises(RuntimeError):
        middleware(RequestFactory().get("/"))
    assert get_contextvars() == {}
