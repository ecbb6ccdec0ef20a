"""Block, allow and review lists: how a value is normalised, hashed, masked and looked up."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime

from fraud.facts import ListMatch
from fraud.models import ListEntry
from payments.encryption import keyed_hash
from payments.errors import ConflictError, InvalidRequestError


def normalise(kind: str, value: str) -> str:
    """The one spelling under which a value is matched. Raises `InvalidRequestError` when it cannot be one."""
    text = value.strip()
    if kind == ListEntry.Kind.EMAIL:
        return _normalise_email(text)
    if kind == ListEntry.Kind.IP:
        return _normalise_ip(text)
    if kind == ListEntry.Kind.COUNTRY:
        if len(text) != 2 or not text.isalpha():
            raise InvalidRequestError(f"{value!r} is not a country; use its two letters, such as DE.")
        return text.upper()
    if not text:
        raise InvalidRequestError("An empty value cannot be put on a list.")
    return text


def _normalise_email(text: str) -> str:
    local, at, domain = text.casefold().rpartition("@")
    if not (local and at and domain):
        raise InvalidRequestError(f"{text!r} is not an e-mail address.")
    return f"{local}@{domain.rstrip('.')}"


def _normalise_ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidRequestError(f"{text!r} is not an IP address.") from None


def hash_value(kind: str, value: str) -> str:
    """The keyed hash by which a value is found; `value` is normalised first."""
    return keyed_hash(normalise(kind, value), purpose=f"fraud:{kind}")


def mask_value(kind: str, value: str) -> str:
    """What may be shown: `b***@example.com`, `198.51.100.x`, `d_ab…`; countries in full."""
    text = normalise(kind, value)
    if kind == ListEntry.Kind.COUNTRY:
        return text
    if kind == ListEntry.Kind.EMAIL:
        return mask_email(text)
    if kind == ListEntry.Kind.IP:
        head, separator, _ = text.rpartition("." if "." in text else ":")
        return f"{head}{separator}x"
    return f"{text[:4]}…"


def mask_email(email: str) -> str:
    local, at, domain = email.rpartition("@")
    return f"{local[:1]}***@{domain}" if at else ""


def find_matches(values: Mapping[str, set[str]]) -> tuple[ListMatch, ...]:
    """The valid entries for these values by kind, in one query; a malformed value fits no entry."""
    hashes = {digest for kind, texts in values.items() for text in texts if (digest := _try_hash(kind, text))}
    if not hashes:
        return ()
    rows = ListEntry.objects.matching(hashes).values_list("list", "kind", "value_masked")
    return tuple(ListMatch(*row) for row in rows)


def _try_hash(kind: str, text: str) -> str:
    try:
        return hash_value(kind, text) if text else ""
    except InvalidRequestError:
        return ""


def add_to_list(
    list_name: str,
    kind: str,
    value: str,
    *,
    reason: str,
    created_by: str = "",
    expires_at: datetime | None = None,
) -> ListEntry:
    """Put a value on a list; only its keyed hash and a masked form are kept.

    Raises `InvalidRequestError` for a malformed value, `ConflictError` when it is on that list already.
    An entry that has expired is renewed.
    """
    digest, masked = hash_value(kind, value), mask_value(kind, value)
    fields = {"reason": reason, "expires_at": expires_at, "created_by": created_by}
    entry, is_new = ListEntry.objects.get_or_create(
        list=list_name, value_hash=digest, defaults={"kind": kind, "value_masked": masked, **fields}
    )
    if is_new:
        return entry
    if ListEntry.objects.valid().filter(pk=entry.pk).exists():
        raise ConflictError(f"{masked} is on the {list_name} list already; nothing was changed.")
    ListEntry.objects.filter(pk=entry.pk).update(**fields)
    entry.refresh_from_db()
    return entry
