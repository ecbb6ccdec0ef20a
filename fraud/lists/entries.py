"""Putting a value on a list, renewing it, changing it, ending it: every change leaves a line of history."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.utils import timezone

from fraud.lists.values import read_value
from fraud.models import ListChange, ListEntry
from payments import ids
from payments.errors import ConflictError, InvalidRequestError
from payments.models import ApiClient
from payments.redaction import redact

MAX_REASON_LENGTH = 200
Did = ListChange.Action


def add_to_list(
    list_name: str,
    kind: str,
    value: str,
    *,
    reason: str,
    created_by: str = "",
    expires_at: datetime | None = None,
    owner: str = "",
    client: ApiClient | None = None,
) -> ListEntry:
    """Put a value on a list; only its keyed hash and a masked form are kept.

    Each client has its own entries, and the house has its own. An entry that has ended is renewed. Raises
    `InvalidRequestError` for a malformed value, `ConflictError` when it is on that list already.
    """
    reason = clean_reason(reason)
    found = read_value(kind, value)
    fields = {"reason": reason, "expires_at": expires_at, "created_by": created_by, "owner": owner}
    with transaction.atomic():
        entry, is_new = ListEntry.objects.select_for_update().get_or_create(
            list=list_name,
            value_hash=found.hash,
            client=client,
            defaults={
                "kind": kind,
                "value_masked": found.masked,
                "public_id": ids.new_id("lst") if client else None,
                **fields,
            },
        )
        if not is_new:
            if not entry.has_ended:
                raise ConflictError(
                    f"{found.masked} is on the {list_name} list already; nothing was changed."
                )
            _write(entry, **fields)
        _note(entry, Did.ADDED if is_new else Did.RENEWED, reason=reason, actor=created_by)
    return entry


def renew_entry(entry_id: int, *, expires_at: datetime | None, reason: str, actor: str) -> ListEntry:
    """Let an entry last until another moment, or for ever (None); one that has ended begins again.

    Raises `InvalidRequestError` for a moment that has passed or a missing reason.
    """
    reason = clean_reason(reason)
    check_future(expires_at)
    with transaction.atomic():
        entry = _lock(entry_id)
        _write(entry, expires_at=expires_at)
        _note(entry, Did.RENEWED, reason=reason, actor=actor)
    return entry


def change_entry(entry_id: int, *, reason: str, owner: str, actor: str) -> ListEntry:
    """Say anew why an entry is there, and who answers for it. Raises `InvalidRequestError`."""
    reason = clean_reason(reason)
    with transaction.atomic():
        entry = _lock(entry_id)
        _write(entry, reason=reason, owner=owner.strip())
        _note(entry, Did.CHANGED, reason=reason, actor=actor)
    return entry


def end_entry(entry_id: int, *, reason: str, actor: str) -> ListEntry:
    """Take a value off its list: the entry ends now, and stays with its history.

    Raises `ConflictError` when it has ended already, `InvalidRequestError` without a reason.
    """
    reason = clean_reason(reason)
    with transaction.atomic():
        entry = _lock(entry_id)
        if entry.has_ended:
            raise ConflictError(f"{entry} has ended already; nothing was changed.")
        _write(entry, expires_at=timezone.now())
        _note(entry, Did.ENDED, reason=reason, actor=actor)
    return entry


def clean_reason(reason: str) -> str:
    """Without card data. Raises `InvalidRequestError` for an empty or too long one."""
    text = redact(reason.strip())
    if not text:
        raise InvalidRequestError("A list wants a reason; nothing was changed.")
    if len(text) > MAX_REASON_LENGTH:
        raise InvalidRequestError(
            f"A reason has at most {MAX_REASON_LENGTH} characters; nothing was changed."
        )
    return text


def check_future(moment: datetime | None) -> None:
    """Raises `InvalidRequestError` for a moment that has passed."""
    if moment is not None and moment <= timezone.now():
        raise InvalidRequestError("The end must be in the future; nothing was changed.")


def _lock(entry_id: int) -> ListEntry:
    entry = ListEntry.objects.select_for_update().filter(pk=entry_id).first()
    if entry is None:
        raise InvalidRequestError("There is no such list entry; nothing was changed.")
    return entry


def _write(entry: ListEntry, **fields: object) -> None:
    for name, value in fields.items():
        setattr(entry, name, value)
    entry.save(update_fields=list(fields))


def _note(entry: ListEntry, action: str, *, reason: str, actor: str) -> None:
    ListChange.objects.create(
        entry=entry, action=action, reason=reason, expires_at=entry.expires_at, actor=actor
    )
