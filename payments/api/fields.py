"""Serializer fields that take exactly one JSON type and say nothing back of what was sent."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from payments.money import MAX_MINOR_UNITS, exponent

_COUNTRY = re.compile(r"[A-Z]{2}\Z")
_TOKEN = re.compile(r"[A-Za-z0-9._:/+=-]+\Z")
_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,40}\Z")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ClosedSerializer(serializers.Serializer[Any]):
    """An object whose unknown members are errors, on the way in and in the schema."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [name for name in data if name not in self.fields]
            if unknown:
                message = serializers.ErrorDetail("There is no such member.", code="unknown_field")
                raise serializers.ValidationError({name: [message] for name in unknown})
        return super().to_internal_value(data)


class TextField(serializers.CharField):
    """A JSON string; numbers are not turned into one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class WholeNumberField(serializers.IntegerField):
    """A JSON integer; no boolean, no string, no 1.0."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return super().to_internal_value(data)


class TrueOrFalseField(serializers.BooleanField):
    """A JSON boolean; no string, no number."""

    def to_internal_value(self, data: Any) -> bool:
        if type(data) is not bool:
            self.fail("invalid")
        return data


class AmountField(WholeNumberField):
    """Minor units, more than zero, at most 18 digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, max_value=MAX_MINOR_UNITS, **kwargs)


class FlagField(serializers.BooleanField):
    """JSON true or false; no "yes", no 1."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class ChoiceNameField(serializers.ChoiceField):
    """One of a few names; the refusal does not repeat what was sent."""

    default_error_messages = {"invalid_choice": "This is not one of the allowed values."}


class CurrencyCodeField(TextField):
    """A payable ISO 4217 code in capitals."""

    default_error_messages = {"currency": "This is not a payable ISO 4217 code."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=3, min_length=3, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        code = super().to_internal_value(data)
        try:
            exponent(code)
        except ValueError:
            self.fail("currency")
        return code


class CountryField(TextField):
    """The form of ISO 3166-1 alpha-2."""

    default_error_messages = {"country": "Two capital letters by ISO 3166-1 alpha-2."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=2, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        code = super().to_internal_value(data)
        if not _COUNTRY.match(code):
            self.fail("country")
        return code


class PaymentMethodField(TextField):
    """A gateway's token, never a card number."""

    default_error_messages = {"token": "This is not a gateway's token."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=200, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        token = super().to_internal_value(data)
        if token and not _TOKEN.match(token):
            self.fail("token")
        return token


@extend_schema_field(
    {
        "type": "object",
        "maxProperties": 10,
        "propertyNames": {"minLength": 1, "maxLength": 61},
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 200},
    }
)
class PaymentMethodsField(serializers.DictField):
    """The same card at several gateways: `gateway`, or `gateway/account name`, and its token there."""

    child = PaymentMethodField()
    default_error_messages = {
        "too_many": "At most 10 members.",
        "gateway": "Names are a gateway, or a gateway and an account: `stripe`, `stripe/main`.",
        "saved": "A saved payment method is at one gateway: name it as payment_method.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("not_a_dict", input_type=type(data).__name__)
        if len(data) > 10:
            self.fail("too_many")
        if not all(_is_gateway_name(name) for name in data):
            self.fail("gateway")
        tokens: dict[str, Any] = super().to_internal_value(data)
        if any(token.startswith("spm_") for token in tokens.values()):
            self.fail("saved")
        return tokens


def _is_gateway_name(name: str) -> bool:
    gateway, slash, account = name.partition("/")
    return gateway in settings.PAYMENT_GATEWAYS and (not slash or _ACCOUNT.match(account) is not None)


class RedirectResultField(TextField):
    """What a gateway added to the return address; opaque, so only its letters are looked at."""

    default_error_messages = {"redirect_result": "Printable ASCII without blanks."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=4000, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if not text.isascii() or not text.isprintable() or " " in text:
            self.fail("redirect_result")
        return text


class ReturnUrlField(TextField):
    """Where the customer comes back to: https, or http on this machine."""

    default_error_messages = {"url": "An https address without user name (http for localhost only)."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=500, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        address = super().to_internal_value(data)
        if address and not _is_return_url(address):
            self.fail("url")
        return address


def _is_return_url(address: str) -> bool:
    if not address.isascii() or not address.isprintable() or " " in address or "\\" in address:
        return False
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


class EmailField(serializers.EmailField):
    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class TimestampField(serializers.DateTimeField):
    """RFC 3339 with an offset."""

    default_error_messages = {"offset": "Give the offset to UTC, for instance Z."}

    def to_internal_value(self, value: Any) -> Any:
        if not isinstance(value, str):
            self.fail("invalid", format="RFC 3339")
        return super().to_internal_value(value)

    def enforce_timezone(self, value: Any) -> Any:
        if value.tzinfo is None:
            self.fail("offset")
        return super().enforce_timezone(value)


class IpAddressField(TextField):
    """IPv4 or IPv6, written as Python writes it."""

    default_error_messages = {"ip": "This is not an IP address."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=45, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            return str(ipaddress.ip_address(text)) if text else ""
        except ValueError:
            self.fail("ip")


@extend_schema_field(
    {
        "type": "object",
        "maxProperties": 20,
        "propertyNames": {"maxLength": 40},
        "additionalProperties": {"type": "string", "maxLength": 500},
    }
)
class MetadataField(serializers.DictField):
    """Up to 20 strings of the storefront's own."""

    child = TextField(max_length=500, allow_blank=True)
    default_error_messages = {
        "too_many": "At most 20 members.",
        "name_too_long": "Names have 1 to 40 characters.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("not_a_dict", input_type=type(data).__name__)
        if len(data) > 20:
            self.fail("too_many")
        if any(not 1 <= len(name) <= 40 for name in data):
            self.fail("name_too_long")
        values: dict[str, Any] = super().to_internal_value(data)
        return values


@extend_schema_field(OpenApiTypes.OBJECT)
class OpenObjectField(serializers.JSONField):
    """A JSON object whose members the gateway decides."""
