"""Column types that the models share: prefixed ids, minor units, currency codes, masked JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.expressions import Combinable

from payments import ids
from payments.redaction import redact_data

if TYPE_CHECKING:  # Django's fields are generic for the type checker only
    _CharField = models.CharField[str | Combinable, str]
    _BigIntegerField = models.BigIntegerField[int | Combinable, int]
    _JSONField = models.JSONField[Any, Any]
else:
    _CharField = models.CharField
    _BigIntegerField = models.BigIntegerField
    _JSONField = models.JSONField


class PrefixedIdField(_CharField):
    """A primary key such as `ord_01k9...`, made in Python so that it is known before the insert."""

    def __init__(self, prefix: str = "", **kwargs: Any) -> None:
        self.prefix = prefix
        kwargs.setdefault("primary_key", True)
        kwargs.setdefault("editable", False)
        kwargs["max_length"] = ids.MAX_LENGTH
        if prefix:
            kwargs["default"] = partial(ids.new_id, prefix)
        super().__init__(**kwargs)

    def db_type(self, connection: Any) -> str:
        # Spelt out, so that Django makes no second index per key and reference for LIKE: ids are looked up whole.
        return f"character varying({self.max_length})"

    def rel_db_type(self, connection: Any) -> str:
        return self.db_type(connection)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("default", None)
        kwargs.pop("max_length", None)
        return name, path, args, {**kwargs, "prefix": self.prefix}


class MaskedJSONField(_JSONField):
    """JSON from outside, such as a gateway's error: card data in it is masked before it is stored."""

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        masked = redact_data(value) if isinstance(value, dict | list) else value
        return super().get_db_prep_value(masked, connection, prepared)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs  # the column is the same


class CurrencyField(_CharField):
    """An ISO 4217 code."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs["max_length"] = 3
        super().__init__(**kwargs)


class MinorUnitsField(_BigIntegerField):
    """An amount in minor units of the row's currency."""
