"""A shop that pays through the SDK, and the webhook endpoint that it listens on."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
import stripe

SECRET = "whsec_test"
CARD = "pm_card_visa"
PATIENCE = 60.0  # seconds: what anything may take, however busy the machine is


def make_client(url: str, *, timeout: float = PATIENCE, retries: int = 0) -> stripe.StripeClient:
    http = stripe.RequestsClient(timeout=timeout)
    return stripe.StripeClient(
        "sk_test_shop", base_addresses={"api": url}, http_client=http, max_network_retries=retries
    )


def wait_until(condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """Look until it is so; fail when it never is."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass
class Shop:
    """Shorthand for what nearly every test does. The SDK types nearly all as optional, hence Any."""

    client: Any
    url: str

    def pay(self, token: str = CARD, amount: int = 1000, **more: Any) -> Any:
        options = more.pop("options", {})
        params: Any = {"amount": amount, "currency": "eur", "confirm": True, "payment_method": token, **more}
        return self.client.v1.payment_intents.create(params, options)

    def hold(self, token: str = CARD, amount: int = 1000, **more: Any) -> Any:
        return self.pay(token, amount, capture_method="manual", **more)

    def charge(self, token: str = CARD) -> Any:
        """The charge of a new payment."""
        return self.pay(token, expand=["latest_charge"]).latest_charge

    def control(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        answer = requests.request(method, self.url + path, json=body or {}, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def books(self, **metadata: str) -> dict[str, Any]:
        params = {f"metadata[{key}]": value for key, value in metadata.items()}
        answer = requests.get(self.url + "/_books", params=params, timeout=PATIENCE)
        return dict(answer.json())

    def entry(self, identity: str) -> dict[str, Any]:
        return dict(self.books()["payment_intents"][identity])

    def only_entry(self) -> dict[str, Any]:
        (entry,) = self.books()["payment_intents"].values()
        return dict(entry)


@dataclass
class Endpoint:
    """A webhook endpoint: what came, and what it answers next."""

    url: str = ""
    received: list[tuple[bytes, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def events(self) -> list[Any]:
        """Everything received so far, verified by the SDK."""
        return [stripe.Webhook.construct_event(body, header, SECRET) for body, header in list(self.received)]

    def wait_for(self, enough: Callable[[list[Any]], bool], timeout: float = PATIENCE) -> list[Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: enough(self.events()), timeout), [
                e.type for e in self.events()
            ]
        return self.events()

    def take(self, body: bytes, header: str) -> int:
        with self.changed:
            self.received.append((body, header))
            self.changed.notify_all()
            return self.answers.pop(0) if self.answers else 200
