"""Adyen's errors, references and amounts, and the checking of its JSON."""

import secrets
from datetime import UTC, datetime
from typing import Any

from payments.sandbox.wire import ApiError, Doc, decimals

__all__ = ["ApiError", "Doc"]

ALPHABET = "BCDFGHKLMNPQRSTVWXZ23456789"
ODD_DIGITS = {"CLP": 2, "CVE": 0, "IDR": 0, "ISK": 2}  # where Adyen differs from the standard


class AdyenError(ApiError):
    """An error in Adyen's shape."""

    def __init__(self, status: int, code: str, message: str, kind: str = "validation") -> None:
        super().__init__(status, kind, message)
        self.body = {
            "status": status,
            "errorCode": code,
            "message": message,
            "errorType": kind,
            "pspReference": new_reference(),
        }


def refuse(code: str, message: str, *, status: int = 422) -> AdyenError:
    return AdyenError(status, code, message)


def new_reference() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(16))


def text(body: Doc, name: str) -> str:
    """Raises ApiError 422 when it is not there."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise refuse("130" if name == "reference" else "702", f"Required field '{name}' is not provided.")
    return value


def amount(body: Doc) -> tuple[int, str]:
    """Minor units and currency. Raises ApiError 422."""
    given = body.get("amount")
    value = given.get("value") if isinstance(given, dict) else None
    currency = given.get("currency") if isinstance(given, dict) else None
    if not isinstance(given, dict) or type(value) is not int or value < 0:
        raise refuse("137", "Invalid amount specified")
    if not isinstance(currency, str) or len(currency) != 3 or not currency.isupper():
        raise refuse("138", f"Unsupported currency specified: {currency}")
    return value, currency


def show_amount(value: int, currency: str) -> Doc:
    return {"currency": currency, "value": value}


def digits(currency: str) -> int:
    return ODD_DIGITS.get(currency, decimals(currency.lower()))


def format_major(value: int, currency: str) -> str:
    """`-5.00`, as in Adyen's reports."""
    places = digits(currency)
    whole, minor = divmod(abs(value), 10**places)
    return ("-" if value < 0 else "") + str(whole) + (f".{minor:0{places}d}" if places else "")


def format_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def public(doc: dict[str, Any]) -> Doc:
    return {name: value for name, value in doc.items() if not name.startswith("_")}
