"""Secrets at rest: encrypted with the first of settings.ENCRYPTION_KEYS, readable with any of them."""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models

if TYPE_CHECKING:  # Django's fields are generic for the type checker only
    _TextField = models.TextField[str, str]
else:
    _TextField = models.TextField


def encrypt(text: str) -> str:
    return _fernet().encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """Raises `ImproperlyConfigured` when none of the keys fits."""
    return _decrypt(token, tuple(settings.ENCRYPTION_KEYS))


@lru_cache(maxsize=256)  # a gateway account is loaded several times for each order
def _decrypt(token: str, keys: tuple[str, ...]) -> str:
    try:
        return MultiFernet([Fernet(key.encode()) for key in keys]).decrypt(token.encode()).decode()
    except InvalidToken:
        raise ImproperlyConfigured(
            "a stored secret cannot be decrypted: is its key missing from ENCRYPTION_KEYS?"
        ) from None


def keyed_hash(value: str, *, purpose: str) -> str:
    """A stable HMAC-SHA256 of a personal value (PCI DSS 3.5.1.1 asks for keyed hashes), 32 hex digits.

    The last key of ENCRYPTION_KEYS signs, so that adding a new first key does not change old hashes.
    """
    key = settings.ENCRYPTION_KEYS[-1].encode()
    return hmac.new(key, f"{purpose}:{value}".encode(), hashlib.sha256).hexdigest()[:32]


def resolve_secret(value: str) -> str:
    """The secret itself: `env:NAME` is read from the environment's settings, anything else is returned as it is."""
    if not value.startswith("env:"):
        return value
    name = value.removeprefix("env:")
    return str(getattr(settings, name, "") or os.environ.get(name, ""))


class EncryptedTextField(_TextField):
    """A text column that is encrypted in the database and plain in Python."""

    def from_db_value(self, value: str | None, *_: Any) -> str | None:
        return decrypt(value) if value else value

    def get_prep_value(self, value: Any) -> Any:
        return encrypt(str(value)) if value else value


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key.encode()) for key in settings.ENCRYPTION_KEYS])
