"""What an endpoint's requests are made of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from payments.api.fields import TextField, TimestampField
from payments.events import SUBSCRIBABLE
from payments.ids import EARLIEST


@extend_schema_field(
    {"type": "array", "items": {"type": "string", "enum": list(SUBSCRIBABLE)}, "maxItems": len(SUBSCRIBABLE)}
)
class EventTypesField(serializers.ListField):
    """Names of the catalogue; which ones, `check_event_types` says, and what was probably meant."""

    child = TextField(max_length=50)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=len(SUBSCRIBABLE), **kwargs)


class PastField(TimestampField):
    """A moment that has been."""

    default_error_messages = {"future": "This moment is yet to come."}

    def to_internal_value(self, value: Any) -> datetime:
        moment: datetime = super().to_internal_value(value)
        if moment > timezone.now():
            self.fail("future")
        return max(moment, EARLIEST)
