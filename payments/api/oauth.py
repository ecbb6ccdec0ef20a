"""OAuth 2.0 client credentials (RFC 6749, 4.4): a live API key is exchanged for a short-lived access token."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidRequestError, OAuth2Error
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6749.util import extract_basic_authorization, scope_to_list
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from joserfc.jwk import KeySet
from rest_framework.exceptions import AuthenticationFailed, ParseError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from payments.api.authentication import KEY_FORM, find_key
from payments.api.errors import describe_error
from payments.api.parsers import CardDataError
from payments.api.projections import TokenErrorProjection, TokenProjection
from payments.api.requests import TokenRequest
from payments.api.throttling import AddressThrottle, CountedView
from payments.api.tokens import audience, describe_public_keys, load_signing_key
from payments.models import ApiKey
from payments.models.client import Scope
from payments.redaction import contains_card_data
from payments.services.token_keys import ALGORITHM, CACHED_FOR

GRANT_TYPE = "client_credentials"
MAX_FORM_BYTES = 8 * 1024
MAX_FORM_FIELDS = 20
AUTH_METHODS = ["client_secret_basic", "client_secret_post"]
# The library's own descriptions repeat what was sent.
_DESCRIPTIONS = {
    "invalid_client": "The client is unknown, or its API key is wrong, expired or revoked.",
    "invalid_request": "A parameter is missing, comes twice or is malformed: send a form (RFC 6749, 4.4.2).",
    "invalid_scope": "The API key does not have every scope that was asked for.",
    "unsupported_grant_type": "The grant_type is client_credentials.",
    "temporarily_unavailable": "Send the same request again after Retry-After.",
    "server_error": "The request failed. Quote the X-Request-ID when you ask about it.",
}

logging.getLogger("authlib").setLevel(logging.INFO)  # its DEBUG lines tell the tokens


class FormParser(BaseParser):
    """A small form in UTF-8, as a list of values per name. Raises `ParseError`, `CardDataError`."""

    media_type = "application/x-www-form-urlencoded"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, list[str]]:
        body = stream.read(MAX_FORM_BYTES + 1)
        if len(body) > MAX_FORM_BYTES:
            raise ParseError("The form is too large.")
        try:
            form = parse_qs(
                body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
            )
        except ValueError:
            raise ParseError("The form is not readable.") from None
        if (pointer := contains_card_data(form)) is not None:
            raise CardDataError(pointer)
        return form


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """An API key as the library wants its clients."""

    key: ApiKey

    def get_client_id(self) -> str:
        return str(self.key.client_id)

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """What was asked for, if the key has all of it (None refuses); the key's own when nothing was."""
        wanted = set(scope_to_list(scope) or self.key.scopes)
        return " ".join(sorted(wanted)) if wanted <= set(self.key.scopes) else None

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == GRANT_TYPE

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in AUTH_METHODS


class FormRequest(OAuth2Request):  # type: ignore[misc]
    """A token request as the library wants it, whose parameters come once each (RFC 6749, 3.2)."""

    def __init__(self, request: Request) -> None:
        # TLS is SecurityMiddleware's matter, and loopback needs none: the library gets the address by which we go.
        super().__init__("POST", f"https://token.invalid{request.path}", headers=request.headers)
        form = request.data if isinstance(request.data, dict) else {}
        self.payload = BasicOAuth2Payload({name: values[0] for name, values in form.items()})
        if any(len(values) > 1 for values in form.values()):
            raise InvalidRequestError
        if "client_secret" in form and "Authorization" in request.headers:  # RFC 6749, 2.3: one method alone
            raise InvalidRequestError


class KeyGrant(ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS


class TokenGenerator(JWTBearerTokenGenerator):  # type: ignore[misc]
    """Tokens of one client for this API. `key` names the API key, whose end is the token's too."""

    def get_jwks(self) -> KeySet:
        return load_signing_key()

    def get_audiences(self, client: KeyHolder, user: None, scope: str) -> str:
        return audience()

    def get_extra_claims(self, client: KeyHolder, grant_type: str, user: None, scope: str) -> dict[str, str]:
        return {"key": client.key.prefix}


class TokenServer(AuthorizationServer):  # type: ignore[misc]
    """Authlib's server over our keys; it keeps no token."""

    def query_client(self, client_id: str) -> None:
        return None  # the methods below know the client by its secret

    def save_token(self, token: Any, request: Any) -> None:
        return None

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        return None

    def create_oauth2_request(self, request: Request) -> FormRequest:
        return FormRequest(request)

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Response:
        return Response(body, status=status)

    def handle_error_response(self, request: Any, error: OAuth2Error) -> Response:
        return make_error(error.error, error.status_code)


@cache
def get_server() -> TokenServer:
    server = TokenServer()
    server.register_grant(KeyGrant)
    server.register_token_generator(
        "default", TokenGenerator(settings.SITE_URL, ALGORITHM, None, _read_lifetime)
    )
    server.register_client_auth_method("client_secret_basic", _authenticate_basic)
    server.register_client_auth_method("client_secret_post", _authenticate_form)
    return server


def _read_lifetime(client: KeyHolder, grant_type: str) -> int:
    return int(settings.ACCESS_TOKEN_SECONDS)


def _authenticate_basic(_: Any, request: FormRequest) -> KeyHolder | None:
    try:
        client_id, secret = extract_basic_authorization(request.headers)
    except ValueError:  # bytes that are no text
        return None
    return _find_holder(client_id, secret)


def _authenticate_form(_: Any, request: FormRequest) -> KeyHolder | None:
    return _find_holder(request.payload.client_id, request.payload.data.get("client_secret"))


def _find_holder(client_id: str | None, secret: str | None) -> KeyHolder | None:
    """By the client's id or the key's prefix, and the whole key; one look and one hash, whatever is wrong."""
    if not client_id or not secret:
        return None
    try:
        key = find_key(secret if KEY_FORM.fullmatch(secret) else "unknown.unknown")
    except AuthenticationFailed:
        return None
    return KeyHolder(key) if client_id in (key.client_id, key.prefix) else None


def make_error(error: str, status: int, **headers: str) -> Response:
    """An error in the form of RFC 6749, 5.2."""
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="api"'
    body = {"error": error, "error_description": _DESCRIPTIONS[error]}
    return Response(body, status=status, headers=headers)


class TokenView(CountedView):
    """The token endpoint. Nothing of a request is logged or kept."""

    authentication_classes = []
    permission_classes = []
    parser_classes = [FormParser]
    throttle_classes = [AddressThrottle]
    metadata_class = None
    sample = 'curl "$SHOP/api/v1/oauth/token" -u "${KEY%%.*}:$KEY" -d grant_type=client_credentials'
    answers_problems = False  # for the schema: its errors have the form of RFC 6749

    @extend_schema(
        operation_id="oauth_token",
        summary="Exchange an API key for an access token",
        tags=["oauth"],
        auth=[{"clientBasic": []}, {}],  # type: ignore[list-item]
        request={FormParser.media_type: TokenRequest},
        responses={
            200: TokenProjection,
            400: OpenApiResponse(TokenErrorProjection, description="RFC 6749, 5.2."),
            401: OpenApiResponse(TokenErrorProjection, description="`invalid_client`."),
            406: OpenApiResponse(TokenErrorProjection, description="Only JSON can be answered."),
            429: OpenApiResponse(TokenErrorProjection, description="Wait for `Retry-After`."),
            500: OpenApiResponse(TokenErrorProjection, description="Our fault."),
            503: OpenApiResponse(TokenErrorProjection, description="Not available now."),
        },
        examples=[
            OpenApiExample("All scopes", request_only=True, value={"grant_type": "client_credentials"}),
        ],
    )
    def post(self, request: Request) -> Response:
        """The client is the API client's id or the key's prefix, its secret the whole API key: by HTTP Basic,
        or as `client_id` and `client_secret` in the form. A token can do at most what its key can, and ends with it."""
        try:
            answer: Response = get_server().create_token_response(request)
        except OAuth2Error as error:
            return make_error(error.error, error.status_code)
        return answer

    def handle_exception(self, exc: Exception) -> Response:
        problem = describe_error(exc)
        status = {413: 400, 415: 400, 422: 400}.get(problem["status"], problem["status"])
        if status in (429, 503):
            wait = str(self.quota.seconds_left) if self.quota and status == 429 else "1"
            return make_error("temporarily_unavailable", status, **{"Retry-After": wait})
        return make_error("server_error" if status >= 500 else "invalid_request", status)


@require_safe
def show_key_set(request: HttpRequest) -> JsonResponse:
    """The public keys of our access tokens (RFC 7517)."""
    seconds = int(CACHED_FOR.total_seconds())
    return JsonResponse(describe_public_keys(), headers={"Cache-Control": f"public, max-age={seconds}"})


@require_safe
def show_metadata(request: HttpRequest) -> JsonResponse:
    """What this authorization server can do (RFC 8414)."""
    seconds = int(CACHED_FOR.total_seconds())
    metadata = {
        "issuer": settings.SITE_URL,
        "token_endpoint": f"{settings.SITE_URL}/api/v1/oauth/token",
        "jwks_uri": f"{settings.SITE_URL}/.well-known/jwks.json",
        "grant_types_supported": [GRANT_TYPE],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": AUTH_METHODS,
        "scopes_supported": sorted(Scope.values),
        "service_documentation": f"{settings.SITE_URL}/api/docs/",
    }
    return JsonResponse(metadata, headers={"Cache-Control": f"public, max-age={seconds}"})
