"""What we sign is accepted by the official Standard Webhooks library."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from webhooks.signatures import generate_secret, sign_message

BODY = '{"type":"order.paid","data":{"name":"Zoë"}}'.encode()


def test_the_official_library_accepts_a_message() -> None:
    secret = generate_secret()
    headers = sign_message(
        message_id="evt_1", timestamp=int(time.time()), body=BODY, signing_secrets=[secret]
    )
    assert Webhook(secret).verify(BODY, headers)["type"] == "order.paid"


def test_both_secrets_of_a_rotation_verify_the_same_message() -> None:
    new, old = generate_secret(), generate_secret()
    headers = sign_message(
        message_id="evt_1", timestamp=int(time.time()), body=BODY, signing_secrets=[new, old]
    )
    for secret in (new, old):
        Webhook(secret).verify(BODY, headers)


@pytest.mark.parametrize("changed", ["body", "webhook-id", "webhook-timestamp"])
def test_the_official_library_refuses_a_message_with_a_changed_part(changed: str) -> None:
    secret = generate_secret()
    headers = sign_message(
        message_id="evt_1", timestamp=int(time.time()), body=BODY, signing_secrets=[secret]
    )
    body = BODY + b" " if changed == "body" else BODY
    if changed != "body":
        headers[changed] = {"webhook-id": "evt_2", "webhook-timestamp": str(int(time.time()) - 1)}[changed]
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


def test_a_secret_holds_between_24_and_64_random_bytes() -> None:
    secret = generate_secret()
    assert secret.startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    assert secret != generate_secret()


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_is_signed_as_the_official_library_signs_it(text: str) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    headers = sign_message(
        message_id="evt_1", timestamp=int(time.time()), body=text.encode(), signing_secrets=[secret]
    )
    Webhook(secret).verify(text, headers, json_parse=False)


def test_a_message_without_a_secret_is_not_sent() -> None:
    with pytest.raises(ValueError, match="without a secret"):
        sign_message(message_id="evt_1", timestamp=0, body=b"", signing_secrets=[])


def test_an_id_with_a_full_stop_is_refused_because_it_would_make_the_signed_text_ambiguous() -> None:
    with pytest.raises(ValueError, match="full stop"):
        sign_message(message_id="evt.1", timestamp=0, body=b"", signing_secrets=[generate_secret()])
