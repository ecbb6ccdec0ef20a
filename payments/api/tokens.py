"""Access tokens: short-lived JWTs by RFC 9068, bound to the API key that they were exchanged for."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet
from rest_framework.exceptions import AuthenticationFailed

from payments import services
from payments.models import TokenKey
from payments.services.token_keys import ALGORITHM, LEEWAY

TOKEN_TYPES = ("at+jwt", "application/at+jwt")  # RFC 9068, 2.1
MAX_TOKEN_LENGTH = 4096


def audience() -> str:
    """Whom the tokens are for: this API, by its address."""
    return f"{settings.SITE_URL}/api/v1/"


def load_signing_key() -> KeySet:
    """The private key that signs now, as a set, so that its `kid` comes into the token's header."""
    return KeySet([ECKey.import_key(json.loads(services.find_signing_key().private_key))])


def describe_public_keys() -> dict[str, Any]:
    """The key set (RFC 7517) that verifies our tokens; the key that signs next is in it already."""
    services.find_signing_key()
    return {"keys": list(TokenKey.objects.published().values_list("public_key", flat=True))}


def read_claims(token: str) -> dict[str, Any]:
    """The claims of a token that we signed for this API and that lives. Raises `AuthenticationFailed`."""
    try:
        decoded = jwt.decode(token, _find_public_key, algorithms=[ALGORITHM])
        if str(decoded.header.get("typ", "")).lower() not in TOKEN_TYPES:
            raise AuthenticationFailed("The access token is not valid.")
        _claims_registry().validate(decoded.claims)
        if not all(_is_text(decoded.claims[name]) for name in ("client_id", "key", "scope")):
            raise AuthenticationFailed("The access token is not valid.")
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        raise AuthenticationFailed("The access token is not valid, or has expired.") from None
    return decoded.claims


def _find_public_key(token: Any) -> ECKey:
    """By the `kid` of the header, which is all of it that is believed: a key that comes with a token is nothing."""
    kid = token.headers().get("kid")
    found = TokenKey.objects.published().filter(pk=kid).first() if _is_text(kid) else None
    if found is None:
        raise ValueError("unknown kid")
    return ECKey.import_key(found.public_key)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value and value.isascii()


def _claims_registry() -> jwt.JWTClaimsRegistry:
    needed: jwt.ClaimsOption = {"essential": True}
    return jwt.JWTClaimsRegistry(
        leeway=int(LEEWAY.total_seconds()),
        iss={"essential": True, "value": settings.SITE_URL},
        aud={"essential": True, "value": audience()},
        exp=needed,
        iat=needed,
        sub=needed,
        client_id=needed,
        jti=needed,
        key=needed,
        scope={"essential": True, "allow_blank": True},
    )
