"""Structured logs: one line per record, with the ids of its request and order, and without card data."""

from __future__ import annotations

import json as jsonlib
import logging
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from payments.redaction import RedactingFormatter, redact, redact_data

CONTEXT_KEYS = ("request_id", "order_id", "saga_id", "client_id")
_CHATTY = ("urllib3", "stripe", "asyncio", "kombu", "amqp", "faker", "factory")
# Control characters, the Unicode line breaks and the marks that turn the direction of writing.
_BREAKING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def logging_config(*, json: bool, level: str) -> dict[str, Any]:
    """Django's `LOGGING`; structlog and the hooks for uncaught exceptions are bound to the same masking.

    `json` writes one JSON object per line, else a plain line for people. Every handler masks card data on
    the rendered text, the last point before the stream. Raises `ValueError` for an unknown level.
    """
    if level not in logging.getLevelNamesMapping():
        raise ValueError(f"{level!r} is not a log level")
    configure_structlog()
    mask_uncaught_exceptions()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": make_formatter, "json": json}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        # These come with handlers of their own, which would mail tracebacks and write past the formatter.
        "loggers": {
            "django": {"handlers": [], "level": level, "propagate": True},
            "django.server": {"handlers": [], "level": "WARNING", "propagate": True},
            "gunicorn.error": {"handlers": [], "propagate": True},
            "gunicorn.access": {"handlers": [], "propagate": True},
            **{name: {"level": "WARNING"} for name in _CHATTY},
        },
    }


def configure_structlog() -> None:
    """Sends structlog's loggers through the standard library, so that one formatter sees every record."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def mask_uncaught_exceptions() -> None:
    """What nobody catches is printed by the interpreter itself, past every handler. Hooks of others stay."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = print_masked
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = print_masked_in_thread


def print_masked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The interpreter's traceback on stderr, without card data."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def print_masked_in_thread(args: threading.ExceptHookArgs) -> None:
    """As `print_masked`; a thread that exits on purpose says nothing, as in the interpreter's own hook."""
    if args.exc_value and not isinstance(args.exc_value, SystemExit):
        print_masked(args.exc_type, args.exc_value, args.exc_traceback)


def make_formatter(*, json: bool) -> logging.Formatter:
    """The formatter of every handler."""
    return RedactingFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *_shared_processors(),
                structlog.stdlib.ExtraAdder(allow=CONTEXT_KEYS),
                take_over_traces,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,  # the plain traceback: no local variables
                redact_event,
                render_json if json else render_line,
            ],
        )
    )


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def take_over_traces(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A standard record brings its stack, or a traceback that a filter has masked already, as ready text."""
    if stack := event.pop("stack_info", None):
        event["stack"] = stack
    if exception := event["_record"].exc_text:
        event.pop("exc_info", None)
        event["exception"] = exception
    return event


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Masks members by their names, while they still have names; the formatter masks the line once more."""
    masked: EventDict = redact_data(dict(event))
    return masked


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One JSON object on one line, the fixed members first."""
    ordered = {name: event.pop(name) for name in ("timestamp", "level", "logger", "event") if name in event}
    # Not ASCII alone: the detector must see foreign digits as digits, not as escapes.
    return escape_breaks(jsonlib.dumps({**ordered, **event}, default=_to_json, ensure_ascii=False))


def render_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """A line for people; a traceback follows, each line marked, so that no message can pose as a record."""
    head = " ".join(str(event.pop(name, "-")) for name in ("timestamp", "level", "logger", "event"))
    blocks = [str(event.pop(name)) for name in ("exception", "stack") if name in event]
    members = "".join(f" {name}={value}" for name, value in event.items())
    trace = [f"\n  | {escape_breaks(line)}" for block in blocks for line in re.split("[\r\n]+", block)]
    return escape_breaks(head + members) + "".join(trace)


def escape_breaks(text: str) -> str:
    """Writes what ends a line or steers a terminal as JSON escapes, so that no value forges a record."""
    return _BREAKING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _to_json(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # a broken __str__ must not cost the record
        return f"<{type(value).__name__}>"
