"""Who calls the API and what for: API keys, or tokens exchanged for them, each bound to one client and its scopes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from django.db.models import Q
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from payments.api.tokens import MAX_TOKEN_LENGTH, read_claims
from payments.models import ApiClient, ApiKey

# Writing the time of use on every request would make each read a write.
LAST_USED_RESOLUTION = timedelta(minutes=1)
KEY_FORM = re.compile(r"[A-Za-z0-9]{1,16}\.[A-Za-z0-9]{1,128}", re.ASCII)
_TOKEN_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_BEARER = re.compile(rf"Bearer +(?:(?P<key>{KEY_FORM.pattern})|(?P<token>{_TOKEN_FORM.pattern}))\Z", re.I)


@dataclass(frozen=True, slots=True)
class Access:
    """What a request may do: its key, and the scopes of the key or the fewer ones of the token."""

    key: ApiKey
    scopes: frozenset[str]

    @property
    def client(self) -> ApiClient:
        return self.key.client


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key or access token>`. `request.user` is the client, `request.auth` the `Access`."""

    def authenticate(self, request: Request) -> tuple[ApiClient, Access] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if not header:
            return None
        match = _BEARER.match(header) if len(header) <= MAX_TOKEN_LENGTH else None
        if not match:
            raise AuthenticationFailed("The Authorization header is not of the form: Bearer <key or token>.")
        access = open_with_key(match["key"]) if match["key"] else open_with_token(match["token"])
        _record_use(access.key)
        structlog.contextvars.bind_contextvars(client_id=access.key.client_id, key_id=access.key.prefix)
        return access.client, access

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


def open_with_key(secret: str) -> Access:
    """Raises `AuthenticationFailed`."""
    key = find_key(secret)
    return Access(key, frozenset(key.scopes))


def open_with_token(token: str) -> Access:
    """As much as the token says and its key may still do. Raises `AuthenticationFailed`, as its key would."""
    claims = read_claims(token)
    key = ApiKey.objects.select_related("client").filter(prefix=str(claims["key"])).first()
    if key is None or claims["client_id"] != key.client_id or claims["sub"] != key.client_id:
        raise AuthenticationFailed("The API key behind the access token is unknown.")
    _check_alive(key)
    return Access(key, frozenset(str(claims["scope"]).split()) & frozenset(key.scopes))


def find_key(secret: str) -> ApiKey:
    """The live key with this secret. Raises `AuthenticationFailed`, which tells only its holder more."""
    prefix = secret.partition(".")[0]
    key: ApiKey | None = ApiKey.objects.select_related("client").filter(prefix=prefix).first()
    # An unknown prefix costs one hash too, so that its answer takes as long as a wrong secret's.
    matches = ApiKey.objects.key_generator.verify(secret, key.hashed_key if key else "sha512$$unknown")
    if key is None or not matches:
        raise AuthenticationFailed("The API key is unknown.")
    _check_alive(key)
    return key


def _check_alive(key: ApiKey) -> None:
    if key.revoked:
        raise AuthenticationFailed("The API key was revoked.")
    if key.has_expired:
        raise AuthenticationFailed("The API key has expired.")
    if not key.client.is_active:
        raise AuthenticationFailed("The API client is switched off.")


def _record_use(key: ApiKey) -> None:
    now = timezone.now()
    stale = now - LAST_USED_RESOLUTION
    if key.last_used_at is None or key.last_used_at < stale:
        unseen = Q(last_used_at__isnull=True) | Q(last_used_at__lt=stale)
        ApiKey.objects.filter(unseen, pk=key.pk).update(last_used_at=now)


class HasScope(BasePermission):
    """The caller has the scope that the view's `required_scopes` names for the action; no name, no entry."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, Access):
            return False
        action = getattr(view, "action", None)
        if action is None or (action == "metadata" and view.metadata_class is None):
            return True  # no handler for this method: it is answered 405 next
        scopes: Mapping[str, str] = getattr(view, "required_scopes", {})
        scope = scopes.get(action)
        if scope is None:
            return False
        if scope not in request.auth.scopes:
            raise PermissionDenied(f"The API key or token lacks the scope {scope}.")
        return True


def get_client(request: Request) -> ApiClient:
    """The client behind an authenticated request."""
    if not isinstance(request.auth, Access):
        raise NotAuthenticated
    return request.auth.client
