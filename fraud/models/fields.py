"""The column type of everything that orders are counted and linked by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.expressions import Combinable

HASH_LENGTH = 32  # hex digits, see payments.encryption.keyed_hash

if TYPE_CHECKING:  # Django's fields are generic for the type checker only
    _CharField = models.CharField[str | Combinable, str]
else:
    _CharField = models.CharField


class KeyHashField(_CharField):
    """A keyed hash of a personal value; empty: the order has no such value."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": HASH_LENGTH, "blank": True, "default": "", **kwargs})

    def db_type(self, connection: Any) -> str:
        # Spelt out, so that Django makes no second index for LIKE: hashes are looked up whole.
        return f"character varying({self.max_length})"
