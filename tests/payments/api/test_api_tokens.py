"""Access tokens: what they are exchanged for, what they open, and whatever is not one of ours."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection
from django.test import Client
from django.utils import timezone
from joserfc import jwk, jws, jwt

from payments import services
from payments.api import throttling
from payments.api.tokens import audience
from payments.errors import BusyError
from payments.models import ApiKey, TokenKey
from payments.models.client import Scope
from payments.services import token_keys
from tests.factories import ApiKeyFactory
from tests.storefront import Storefront, assert_problem

CARD = "4111111111111111"
ADDRESS = "/api/v1/oauth/token"


def ask(key: Any = None, form: dict[str, Any] | None = None, **headers: str) -> Any:
    """Ask for a token, by HTTP Basic when there is a key."""
    if key is not None:
        headers["authorization"] = basic(key.client_id, key.secret)
    data = {"grant_type": "client_credentials"} if form is None else form
    return post_form(data, **headers)


def post_form(form: Any, **headers: str) -> Any:
    client, kind = Client(), "application/x-www-form-urlencoded"
    body = form if isinstance(form, bytes) else "&".join(f"{name}={value}" for name, value in form.items())
    return client.post(ADDRESS, data=body, content_type=kind, headers=headers)


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def get_token(key: Any, scope: str = "") -> str:
    form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
    token: str = ask(key, form).json()["access_token"]
    return token


class Bearer(Storefront):
    """A storefront with a token instead of its key."""

    def __init__(self, key: Any, token: str) -> None:
        super().__init__(key)
        self.token = token

    def _headers(self, extra: dict[str, str]) -> dict[str, str]:
        return super()._headers(extra) | {"Authorization": f"Bearer {self.token}"}


def assert_oauth_error(response: Any, status: int, error: str) -> None:
    """By RFC 6749, 5.2, and nothing of the request in it."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    body = response.json()
    assert set(body) == {"error", "error_description"}
    assert body["error"] == error
    assert body["error_description"].isascii()
    assert '"' not in body["error_description"]
    assert CARD not in response.content.decode()


# --- asking -------------------------------------------------------------------------------------------------


def test_a_key_is_exchanged_for_a_token(shop: Storefront, settings: Any) -> None:
    settings.ACCESS_TOKEN_SECONDS = 120
    response = ask(shop.key)
    assert (response.status_code, response["Cache-Control"]) == (200, "no-store")
    answer = response.json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 120)
    assert answer["scope"].split() == sorted(Scope.values)
    assert "refresh_token" not in answer
    assert Bearer(shop.key, answer["access_token"]).get("orders").status_code == 200


def test_the_token_is_as_rfc_9068_has_it(shop: Storefront) -> None:
    token = get_token(shop.key)
    keys = jwk.KeySet.import_key_set(Client().get("/.well-known/jwks.json").json())
    decoded = jwt.decode(token, keys, algorithms=["ES256"])
    signer = TokenKey.objects.get()
    assert decoded.header == {"alg": "ES256", "typ": "at+jwt", "kid": signer.pk}
    claims = decoded.claims
    assert claims["sub"] == claims["client_id"] == shop.client.pk
    assert claims["aud"] == audience()
    assert claims["exp"] - claims["iat"] == 600
    assert set(claims) == {"iss", "aud", "sub", "client_id", "iat", "exp", "jti", "scope", "key"}
    assert claims["jti"] != jwt.decode(get_token(shop.key), keys).claims["jti"]


@pytest.mark.parametrize("who", ["id", "prefix"])
@pytest.mark.parametrize("how", ["basic", "form"])
def test_the_client_is_named_by_id_or_prefix_in_header_or_form(who: str, how: str, shop: Storefront) -> None:
    name = shop.client.pk if who == "id" else shop.key.prefix
    form = {"grant_type": "client_credentials"}
    if how == "basic":
        response = ask(form=form, authorization=basic(name, shop.key.secret))
    else:
        response = ask(form=form | {"client_id": name, "client_secret": shop.key.secret})
    assert response.status_code == 200


WRONG: dict[str, Callable[[Any, Any], tuple[str, str]]] = {
    "unknown id": lambda key, other: ("cli_nobody", key.secret),
    "another client's id": lambda key, other: (other.client_id, key.secret),
    "another client's prefix": lambda key, other: (other.prefix, key.secret),
    "a wrong secret": lambda key, other: (key.client_id, f"{key.prefix}.{'x' * 32}"),
    "the prefix alone": lambda key, other: (key.client_id, key.prefix),
    "an unknown key": lambda key, other: (key.client_id, "aaaaaaaa." + "x" * 32),
    "no text": lambda key, other: (key.client_id, "\x00'; --"),
    "a card": lambda key, other: (CARD, CARD),
    "nothing": lambda key, other: ("", ""),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_client_gets_one_answer(wrong: str, shop: Storefront, other_shop: Storefront) -> None:
    name, secret = WRONG[wrong](shop.key, other_shop.key)
    by_header = ask(authorization=basic(name, secret))
    assert_oauth_error(by_header, 401, "invalid_client")
    assert by_header["WWW-Authenticate"] == 'Basic realm="api"'
    by_form = post_form({"grant_type": "client_credentials", "client_id": name, "client_secret": secret})
    if wrong == "a card":
        assert_oauth_error(by_form, 400, "invalid_request")
    else:
        assert_oauth_error(by_form, 401, "invalid_client")
        assert by_form.content == by_header.content


@pytest.mark.django_db
@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Basic /w==", "Bearer a.b", "Basic " + "A" * 5000]
)
def test_a_header_that_says_nothing_is_refused(header: str) -> None:
    assert_oauth_error(ask(authorization=header), 401, "invalid_client")


@pytest.mark.django_db
@pytest.mark.parametrize("end", ["revoked", "expired", "client off"])
def test_a_dead_key_gets_no_token_and_its_tokens_die_with_it(end: str) -> None:
    key: Any = ApiKeyFactory.create()
    token = get_token(key)
    assert Bearer(key, token).get("orders").status_code == 200
    if end == "revoked":
        ApiKey.objects.filter(pk=key.pk).update(revoked=True)
    elif end == "expired":
        ApiKey.objects.filter(pk=key.pk).update(expiry_date=timezone.now())
    else:
        type(key.client).objects.update(is_active=False)
    assert_oauth_error(ask(key), 401, "invalid_client")
    assert_problem(Bearer(key, token).get("orders"), 401, "unauthorized")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("orders:read", ["orders:read"]),
        ("orders:read+events:read", ["events:read", "orders:read"]),
        ("", None),
    ],
)
def test_a_token_has_the_scopes_asked_for(scope: str, granted: list[str] | None) -> None:
    key: Any = ApiKeyFactory.create(scopes=["orders:read", "events:read"])
    answer = ask(key, {"grant_type": "client_credentials", "scope": scope}).json()
    assert answer["scope"].split() == (granted or ["events:read", "orders:read"])


@pytest.mark.django_db
@pytest.mark.parametrize("scope", ["refunds:write", "orders:read+refunds:write", "everything", "*", CARD])
def test_a_scope_that_the_key_lacks_is_refused_never_dropped(scope: str) -> None:
    key: Any = ApiKeyFactory.create(scopes=["orders:read"])
    error = "invalid_request" if scope == CARD else "invalid_scope"
    assert_oauth_error(ask(key, {"grant_type": "client_credentials", "scope": scope}), 400, error)


def test_a_token_can_do_less_than_its_key_and_never_more(shop: Storefront) -> None:
    reader = Bearer(shop.key, get_token(shop.key, "orders:read"))
    assert reader.get("orders").status_code == 200
    assert_problem(reader.get("events"), 403, "insufficient_scope")
    everything = Bearer(shop.key, get_token(shop.key))
    ApiKey.objects.filter(pk=shop.key.pk).update(scopes=["events:read"])
    assert_problem(everything.get("orders"), 403, "insufficient_scope")
    assert everything.get("events").status_code == 200


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "unsupported_grant_type"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": CARD}, "invalid_request"),
        (b"grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
        (b"grant_type=client_credentials&scope=orders:read&scope=events:read", "invalid_request"),
        (b"grant_type=client_credentials&client_secret=x", "invalid_request"),  # and Basic: two methods
        (b"grant_type=%ff", "invalid_request"),
        (b"\xff\xfe", "invalid_request"),
        (b"a=" + b"x" * 9000, "invalid_request"),
        (b"&".join(b"a%d=1" % n for n in range(50)), "invalid_request"),
    ],
)
def test_a_wrong_form_is_refused(form: Any, error: str, shop: Storefront) -> None:
    assert_oauth_error(ask(shop.key, form), 400, error)


def test_other_methods_and_bodies_are_refused(shop: Storefront) -> None:
    assert_oauth_error(Client().get(ADDRESS), 405, "invalid_request")
    as_json = Client().post(ADDRESS, data="{}", content_type="application/json")
    assert_oauth_error(as_json, 400, "invalid_request")


def test_asking_is_limited_by_address(shop: Storefront, settings: Any) -> None:
    settings.TOKEN_RATE_LIMIT = "2/hour"
    throttling._counters.cache_clear()

    def call() -> Any:
        headers = {"authorization": basic(shop.client.pk, shop.key.secret)}
        data, kind = "grant_type=client_credentials", "application/x-www-form-urlencoded"
        return Client().post(ADDRESS, data=data, content_type=kind, headers=headers)

    throttling._counters().redis = None  # which remembers other tests
    assert [call().status_code for _ in range(2)] == [200, 200]
    refused = call()
    assert_oauth_error(refused, 429, "temporarily_unavailable")
    assert 1 <= int(refused["Retry-After"]) <= 3600
    assert refused["RateLimit-Policy"] == '"address";q=2;w=3600'


def test_nothing_of_a_key_is_logged(shop: Storefront, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        token = get_token(shop.key)
        ask(authorization=basic(shop.client.pk, shop.key.secret + "x"))
    secret = shop.key.secret.partition(".")[2]
    assert secret not in caplog.text
    assert token not in caplog.text


# --- what is not a token of ours ----------------------------------------------------------------------------


@pytest.fixture
def signer(shop: Storefront) -> TokenKey:
    return services.find_signing_key()


def sign(
    signer: TokenKey,
    holder: Any,
    *,
    header: dict[str, Any] | None = None,
    secret: jwk.Key | None = None,
    **claims: Any,
) -> str:
    """A token of ours, with parts of it replaced; None leaves a claim out."""
    now = int(time.time())
    whole = {
        "iss": "http://127.0.0.1:8000",
        "aud": audience(),
        "sub": holder.client_id,
        "client_id": holder.client_id,
        "iat": now,
        "exp": now + 600,
        "jti": "x",
        "scope": "orders:read",
        "key": holder.prefix,
    } | claims
    pair = secret or jwk.ECKey.import_key(json.loads(signer.private_key))
    parts = {"alg": "ES256", "typ": "at+jwt", "kid": signer.pk} | (header or {})
    registry = jws.JWSRegistry(algorithms=[parts["alg"]], strict_check_header=False)
    return jwt.encode(
        {name: value for name, value in parts.items() if value is not None},
        {name: value for name, value in whole.items() if value is not None},
        pair,
        registry=registry,
    )


def test_what_is_forged_below_would_be_good(shop: Storefront, signer: TokenKey, settings: Any) -> None:
    settings.SITE_URL = "http://127.0.0.1:8000"
    assert Bearer(shop.key, sign(signer, shop.key)).get("orders").status_code == 200


NOW = int(time.time())
FORGERIES: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "https://other.example/"},
    "no audience": {"aud": None},
    "expired": {"exp": NOW - 60},
    "never ends": {"exp": None},
    "the end is text": {"exp": "9999999999"},
    "from the future": {"iat": NOW + 3600},
    "no time": {"iat": None},
    "another client": {"client_id": "cli_other"},
    "another subject": {"sub": "cli_other"},
    "no key": {"key": None},
    "an unknown key": {"key": "aaaaaaaa"},
    "the key is a list": {"key": ["a"]},
    "the key holds NUL": {"key": "a\0"},
    "no scope": {"scope": None},
    "no id": {"jti": None},
    "an ID token": {"header": {"typ": "JWT"}},
    "no type": {"header": {"typ": None}},
    "an unknown kid": {"header": {"kid": "tok_unknown"}},
    "no kid": {"header": {"kid": None}},
    "a kid with SQL": {"header": {"kid": "' OR 1=1 --"}},
    "a kid with NUL": {"header": {"kid": "tok\0"}},
    "a critical extension": {"header": {"crit": ["b64"], "b64": False}},
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_token_with_a_wrong_part_is_refused(
    forgery: str, shop: Storefront, signer: TokenKey, settings: Any
) -> None:
    settings.SITE_URL = "http://127.0.0.1:8000"
    try:
        token = sign(signer, shop.key, **FORGERIES[forgery])
    except Exception:  # the library itself refuses to make it: by hand then
        token = resign(signer, sign(signer, shop.key), FORGERIES[forgery].get("header", {}))
    assert_problem(Bearer(shop.key, token).get("orders"), 401, "unauthorized")


def resign(signer: TokenKey, token: str, header: dict[str, Any]) -> str:
    first, payload, _ = token.split(".")
    parts = json.loads(base64.urlsafe_b64decode(first + "==")) | header
    signing = f"{encode(parts)}.{payload}"
    algorithm = jws.JWSRegistry.algorithms["ES256"]
    pair = jwk.ECKey.import_key(json.loads(signer.private_key))
    signature = algorithm.sign(signing.encode(), pair)
    return f"{signing}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def encode(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def swap(token: str, position: int, value: Any) -> str:
    parts = token.split(".")
    parts[position] = encode(value)
    return ".".join(parts)


def forge_by_algorithm(signer: TokenKey, key: Any) -> dict[str, str]:
    """Algorithm confusion and its kin."""
    token = sign(signer, key)
    header = {"alg": "ES256", "typ": "at+jwt", "kid": signer.pk}
    public = json.dumps(signer.public_key)
    stranger = jwk.ECKey.generate_key("P-256", private=True)
    return {
        "none": swap(token, 0, header | {"alg": "none"}).rpartition(".")[0] + ".",
        "none with a signature": swap(token, 0, header | {"alg": "none"}),
        "the public key as a password": sign(
            signer, key, header={"alg": "HS256"}, secret=jwk.OctKey.import_key(public)
        ),
        "RSA": sign(signer, key, header={"alg": "RS256"}, secret=jwk.RSAKey.generate_key(2048)),
        "a stranger's key under our kid": sign(signer, key, secret=stranger),
        "a stranger's key in the header": sign(
            signer, key, secret=stranger, header={"jwk": stranger.as_dict(private=False)}
        ),
        "a stranger's key by address": sign(
            signer, key, secret=stranger, header={"jku": "http://127.0.0.1:1/"}
        ),
        "other claims under the signature": swap(token, 1, {"scope": "refunds:write"}),
        "no signature": token.rpartition(".")[0] + ".AA",
        "no JSON": "e30.e30.e30",
        "deep JSON": encode(header)
        + "."
        + base64.urlsafe_b64encode(b"[" * 2000).decode().rstrip("=")
        + ".AA",
        "a header that is a list": swap(token, 0, ["alg"]),
        "a kid that is a list": swap(token, 0, header | {"kid": ["x"]}),
        "too long": token + "A" * 5000,
    }


@pytest.mark.parametrize(
    "forgery",
    [
        "none",
        "none with a signature",
        "the public key as a password",
        "RSA",
        "a stranger's key under our kid",
        "a stranger's key in the header",
        "a stranger's key by address",
        "other claims under the signature",
        "no signature",
        "no JSON",
        "deep JSON",
        "a header that is a list",
        "a kid that is a list",
        "too long",
    ],
)
def test_a_token_that_we_did_not_sign_is_refused(forgery: str, shop: Storefront, signer: TokenKey) -> None:
    token = forge_by_algorithm(signer, shop.key)[forgery]
    assert_problem(Bearer(shop.key, token).get("orders"), 401, "unauthorized")


def test_another_clients_token_sees_another_clients_orders(shop: Storefront, other_shop: Storefront) -> None:
    mine = Bearer(shop.key, get_token(other_shop.key))
    assert mine.get("orders").json()["results"] == []
    assert ApiKey.objects.get(pk=other_shop.key.pk).last_used_at is not None


def test_a_call_with_a_token_costs_two_look_ups(shop: Storefront, django_assert_num_queries: Any) -> None:
    caller = Bearer(shop.key, get_token(shop.key))
    caller.get("events")
    with django_assert_num_queries(3):  # the signing key, the API key, the events
        caller.get("events")


# --- the signing keys ---------------------------------------------------------------------------------------


def test_the_private_key_lies_encrypted(signer: TokenKey, django_assert_num_queries: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT private_key, public_key::text FROM payments_tokenkey")
        private, public = cursor.fetchone()
    secret = json.loads(signer.private_key)["d"]
    assert secret not in private + public
    assert "d" not in json.loads(public)
    assert '"d"' not in Client().get("/.well-known/jwks.json").content.decode()


def published() -> list[str]:
    return [key["kid"] for key in Client().get("/.well-known/jwks.json").json()["keys"]]


def move_clock(by: timedelta) -> None:
    """Age every key by so much."""
    for key in TokenKey.objects.all():
        key.signs_from -= by
        key.created_at -= by
        key.verifies_until = key.verifies_until and key.verifies_until - by
        key.save()


def test_a_new_key_is_published_before_it_signs_and_the_old_outlives_its_tokens(shop: Storefront) -> None:
    old = services.find_signing_key()
    token = get_token(shop.key)
    new = services.rotate_token_keys()
    assert published() == [new.pk, old.pk]
    assert services.find_signing_key() == old
    move_clock(token_keys.PUBLISHED_AHEAD)
    assert services.find_signing_key() == new
    assert Bearer(shop.key, token).get("orders").status_code == 200
    assert Bearer(shop.key, get_token(shop.key)).get("orders").status_code == 200
    move_clock(timedelta(seconds=600) + 2 * token_keys.LEEWAY)
    assert published() == [new.pk]
    assert_problem(Bearer(shop.key, token).get("orders"), 401, "unauthorized")
    services.rotate_token_keys()
    assert not TokenKey.objects.filter(pk=old.pk).exists()


def test_compromised_keys_end_at_once(shop: Storefront) -> None:
    services.find_signing_key()
    services.rotate_token_keys()
    token = get_token(shop.key)
    out = StringIO()
    call_command("rotate_token_keys", "--compromised", stdout=out)
    only = TokenKey.objects.get()
    assert only.pk in out.getvalue()
    assert_problem(Bearer(shop.key, token).get("orders"), 401, "unauthorized")
    assert Bearer(shop.key, get_token(shop.key)).get("orders").status_code == 200


@pytest.mark.django_db
def test_keys_are_rotated_when_they_are_old() -> None:
    assert not services.rotate_due_token_keys()
    services.find_signing_key()
    assert not services.rotate_due_token_keys()
    move_clock(timedelta(days=31))
    assert services.rotate_due_token_keys()
    assert not services.rotate_due_token_keys()
    assert TokenKey.objects.count() == 2


@pytest.mark.django_db
def test_two_who_rotate_at_once_make_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(**_: Any) -> None:
        raise IntegrityError("payments_tokenkey_generation_key")

    services.find_signing_key()
    monkeypatch.setattr(TokenKey.objects, "create", lose)
    with pytest.raises(BusyError, match="nothing was changed"):
        services.rotate_token_keys()
    with pytest.raises(CommandError, match="nothing was changed"):
        call_command("rotate_token_keys")


def test_the_metadata_names_what_is_there(shop: Storefront, settings: Any) -> None:
    settings.SITE_URL = "https://shop.example"
    metadata = Client().get("/.well-known/oauth-authorization-server").json()
    assert metadata["issuer"] == "https://shop.example"
    assert metadata["token_endpoint"] == "https://shop.example/api/v1/oauth/token"
    assert Client().get(metadata["jwks_uri"].removeprefix("https://shop.example")).json()["keys"]
    assert metadata["grant_types_supported"] == ["client_credentials"]
    assert metadata["scopes_supported"] == sorted(Scope.values)
    assert Client().post("/.well-known/jwks.json").status_code == 405
