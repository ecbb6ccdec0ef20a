"""Strict JSON: small, shallow, UTF-8, without duplicate names, odd numbers, or card data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from django.core.exceptions import SuspiciousOperation
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from prometheus_client import Counter
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError, UnsupportedMediaType
from rest_framework.parsers import BaseParser

from payments.redaction import contains_card_data

MAX_BODY_BYTES = 64 * 1024
MAX_UPLOAD_BYTES = 5 * 1024 * 1024  # one file and a few words; the file itself may have less
MAX_DEPTH = 32
MAX_NAMES = 1000
MAX_DIGITS = 18

REFUSED_BODIES = Counter("api_refused_bodies", "Request bodies refused before validation.", ["reason"])


class BodyTooLargeError(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = f"The body is larger than {MAX_BODY_BYTES} bytes."
    default_code = "body_too_large"

    def __init__(self, limit: int = MAX_BODY_BYTES) -> None:
        super().__init__(f"The body is larger than {limit} bytes.")


class CardDataError(APIException):
    """The request holds a card number or a CVV; `pointer` says where, nothing says what."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = "The request holds card data. Send the gateway's token instead; nothing was stored."
    default_code = "card_data_refused"

    def __init__(self, pointer: str, *, locator: str = "pointer") -> None:
        super().__init__()
        self.pointer = pointer
        self.locator = locator


class StrictJSONParser(BaseParser):
    """Reads one JSON object. Raises `ParseError` (400), 413, 415, or `CardDataError` (422)."""

    media_type = "application/json"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        meta = (parser_context or {})["request"].META
        _check_encoding(media_type or "", meta.get("HTTP_CONTENT_ENCODING", ""))
        value = parse_body(_read_body(stream, meta.get("CONTENT_LENGTH") or "0"))
        pointer = contains_card_data(value)
        if pointer is not None:
            REFUSED_BODIES.labels("card_data").inc()
            raise CardDataError(pointer)
        return value


class StrictFormParser(BaseParser):
    """Reads one multipart form: each name once, as a text or an upload. Raises as `StrictJSONParser` does."""

    media_type = "multipart/form-data"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        request = (parser_context or {})["request"]
        _check_encoding(media_type or "", request.META.get("HTTP_CONTENT_ENCODING", ""))
        if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_UPLOAD_BYTES:
            REFUSED_BODIES.labels("too_large").inc()
            raise BodyTooLargeError(MAX_UPLOAD_BYTES)
        meta = request.META | {"CONTENT_TYPE": media_type}
        try:
            texts, files = MultiPartParser(meta, stream, request.upload_handlers, "utf-8").parse()
        except (MultiPartParserError, SuspiciousOperation):
            raise ParseError("The body is not a multipart form, or has too many parts.") from None
        return _join_form(texts, files)


def _join_form(texts: Any, files: Any) -> dict[str, Any]:
    parts = [*texts.lists(), *files.lists()]
    form = {name: values[0] for name, values in parts}
    if len(form) != sum(len(values) for _, values in parts):
        raise ParseError("The form has the same name twice.")
    words = {name: form[name] if name in texts else str(form[name].name) for name in form}
    for text in _walk_texts(words):
        _check_text(text)
    pointer = contains_card_data(words)
    if pointer is not None:
        REFUSED_BODIES.labels("card_data").inc()
        raise CardDataError(pointer)
    return form


def parse_body(body: bytes) -> Any:
    """The value in the body. Raises `ParseError`."""
    names = _NameCounter()
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=names.collect,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError:
        raise ParseError("The body is not UTF-8.") from None
    except RecursionError:
        raise ParseError(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    except json.JSONDecodeError as error:
        raise ParseError(f"The body is not JSON: line {error.lineno}, column {error.colno}.") from None
    for text in _walk_texts(value):
        _check_text(text)
    return value


def _check_encoding(media_type: str, content_encoding: str) -> None:
    charset = dict(part.strip().lower().partition("=")[::2] for part in media_type.split(";")[1:]).get(
        "charset", "utf-8"
    )
    if charset.strip('"') not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(media_type, detail="Only UTF-8 is understood.")
    if content_encoding not in ("", "identity"):
        raise UnsupportedMediaType(media_type, detail="Compressed bodies are not understood.")


def _read_body(stream: Any, content_length: str) -> bytes:
    too_large = content_length.isdigit() and int(content_length) > MAX_BODY_BYTES
    body: bytes = b"" if too_large else stream.read(MAX_BODY_BYTES + 1)
    if too_large or len(body) > MAX_BODY_BYTES:
        REFUSED_BODIES.labels("too_large").inc()
        raise BodyTooLargeError
    return body


class _NameCounter:
    """Builds objects from pairs, refusing a name that comes twice and too many names in all."""

    def __init__(self) -> None:
        self.count = 0

    def collect(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self.count += len(pairs)
        if self.count > MAX_NAMES:
            raise ParseError(f"The body has more than {MAX_NAMES} member names.")
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ParseError("An object of the body has the same member name twice.")
        return members


def _parse_int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ParseError(f"An integer of the body has more than {MAX_DIGITS} digits.")
    return int(digits)


def _parse_float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ParseError("A number of the body is out of range.")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ParseError(f"{name} is not JSON.")


def _walk_texts(value: Any) -> Iterator[str]:
    """Every name and string, without recursion. Raises `ParseError` when the nesting is too deep."""
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ParseError(f"The body is nested deeper than {MAX_DEPTH} levels.")
        if isinstance(item, dict):
            yield from item
            pending.extend((member, depth + 1) for member in item.values())
        elif isinstance(item, list):
            pending.extend((member, depth + 1) for member in item)
        elif isinstance(item, str):
            yield item


def _check_text(text: str) -> None:
    """PostgreSQL stores neither NUL nor half a surrogate pair."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ParseError("A string of the body holds NUL or half a surrogate pair.")
