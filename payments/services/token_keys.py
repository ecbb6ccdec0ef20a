"""The keys that sign access tokens: made when the first is wanted, rotated without a gap, dropped when dead."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from joserfc.jwk import ECKey

from payments import ids
from payments.errors import BusyError
from payments.models import TokenKey

logger = structlog.stdlib.get_logger(__name__)

ALGORITHM = "ES256"  # RFC 7518, 3.4
_CURVE = "P-256"
LEEWAY = timedelta(seconds=5)  # for clocks of several machines that disagree
# A new key is published this long before it signs, so that whoever caches the key set has it by then.
PUBLISHED_AHEAD = timedelta(hours=1)
CACHED_FOR = timedelta(minutes=5)


def find_signing_key() -> TokenKey:
    """The key that signs now; the first one is made here."""
    found = TokenKey.objects.find_signing()
    if found is None:
        try:
            found = rotate_token_keys()
        except BusyError:
            found = TokenKey.objects.find_signing()
    assert found is not None, "whoever was quicker has made one that signs at once"
    return found


def rotate_token_keys(*, are_compromised: bool = False) -> TokenKey:
    """Make the next key, let the last one end once its tokens have, and delete those that are dead.

    The new key signs after `PUBLISHED_AHEAD`; at once when it is the first one or the others `are_compromised`,
    and then they verify nothing more. Raises `BusyError` when somebody else is rotating.
    """
    now = timezone.now()
    try:
        with transaction.atomic():
            newest = TokenKey.objects.order_by("-generation").first()
            has_signer = TokenKey.objects.find_signing() is not None
            signs_from = now if are_compromised or not has_signer else now + PUBLISHED_AHEAD
            made = _make_key(newest.generation + 1 if newest else 1, signs_from, now)
            last = TokenKey.objects.exclude(pk=made.pk)
            if are_compromised:
                last.update(verifies_until=now)
            last.filter(verifies_until__isnull=True).update(verifies_until=signs_from + _longest_life())
            last.filter(verifies_until__lte=now).delete()
    except IntegrityError:
        raise BusyError("The token keys are being rotated at this moment; nothing was changed.") from None
    logger.info("token_keys_rotated", key=made.pk, signs_from=signs_from, were_compromised=are_compromised)
    return made


def rotate_due_token_keys() -> bool:
    """Rotate when the newest key is older than TOKEN_KEY_DAYS; whether it was."""
    newest = TokenKey.objects.order_by("-generation").first()
    if newest is None or newest.created_at > timezone.now() - timedelta(days=settings.TOKEN_KEY_DAYS):
        return False
    rotate_token_keys()
    return True


def _longest_life() -> timedelta:
    return timedelta(seconds=settings.ACCESS_TOKEN_SECONDS) + 2 * LEEWAY


def _make_key(generation: int, signs_from: datetime, now: datetime) -> TokenKey:
    key_id = ids.new_id("tok")
    pair = ECKey.generate_key(_CURVE, {"kid": key_id, "use": "sig", "alg": ALGORITHM}, private=True)
    return TokenKey.objects.create(
        id=key_id,
        generation=generation,
        private_key=json.dumps(pair.as_dict(private=True)),
        public_key=pair.as_dict(private=False),
        signs_from=signs_from,
        created_at=now,
    )
