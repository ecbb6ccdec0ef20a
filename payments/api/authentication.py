"""Who calls the API and what for: bearer keys, hashed, scoped, expiring, each bound to one client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from django.db.models import Q
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from payments.models import ApiClient, ApiKey

# Writing the time of use on every request would make each read a write.
LAST_USED_RESOLUTION = timedelta(minutes=1)
_BEARER = re.compile(r"Bearer +([A-Za-z0-9]{1,16}\.[A-Za-z0-9]{1,128})\Z", re.IGNORECASE)


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <prefix>.<secret>`. `request.user` is the client, `request.auth` the key."""

    def authenticate(self, request: Request) -> tuple[ApiClient, ApiKey] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if not header:
            return None
        match = _BEARER.match(header)
        if not match:
            raise AuthenticationFailed("The Authorization header is not of the form: Bearer <key>.")
        key = find_key(match[1])
        _record_use(key)
        structlog.contextvars.bind_contextvars(client_id=key.client_id, key_id=key.prefix)
        return key.client, key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


def find_key(secret: str) -> ApiKey:
    """The live key with this secret. Raises `AuthenticationFailed`, which tells only its holder more."""
    prefix = secret.partition(".")[0]
    key: ApiKey | None = ApiKey.objects.select_related("client").filter(prefix=prefix).first()
    # An unknown prefix costs one hash too, so that its answer takes as long as a wrong secret's.
    matches = ApiKey.objects.key_generator.verify(secret, key.hashed_key if key else "sha512$$unknown")
    if key is None or not matches:
        raise AuthenticationFailed("The API key is unknown.")
    if key.revoked:
        raise AuthenticationFailed("The API key was revoked.")
    if key.has_expired:
        raise AuthenticationFailed("The API key has expired.")
    if not key.client.is_active:
        raise AuthenticationFailed("The API client is switched off.")
    return key


def _record_use(key: ApiKey) -> None:
    now = timezone.now()
    stale = now - LAST_USED_RESOLUTION
    if key.last_used_at is None or key.last_used_at < stale:
        unseen = Q(last_used_at__isnull=True) | Q(last_used_at__lt=stale)
        ApiKey.objects.filter(unseen, pk=key.pk).update(last_used_at=now)


class HasScope(BasePermission):
    """The key has the scope that the view's `required_scopes` names for the action; no name, no entry."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, ApiKey):
            return False
        action = getattr(view, "action", None)
        if action is None or (action == "metadata" and view.metadata_class is None):
            return True  # no handler for this method: it is answered 405 next
        scopes: Mapping[str, str] = getattr(view, "required_scopes", {})
        scope = scopes.get(action)
        if scope is None:
            return False
        if scope not in request.auth.scopes:
            raise PermissionDenied(f"The API key lacks the scope {scope}.")
        return True


def get_client(request: Request) -> ApiClient:
    """The client behind an authenticated request."""
    if not isinstance(request.auth, ApiKey):
        raise NotAuthenticated
    return request.auth.client
