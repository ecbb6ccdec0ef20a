"""A running gateway, the official SDK pointed at it, and an endpoint that keeps what it is sent."""

import dataclasses
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import stripe

from payments.sandbox import Sandbox, start
from tests.payments.sandbox.shop import SECRET, Endpoint, Shop, make_client


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with start() as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> stripe.StripeClient:
    return make_client(sandbox.url)


@pytest.fixture
def hasty(sandbox: Sandbox) -> stripe.StripeClient:
    """A client that gives up after half a second and does not try again."""
    return make_client(sandbox.url, timeout=0.5)


@pytest.fixture
def stubborn(sandbox: Sandbox) -> stripe.StripeClient:
    """A client that tries twice more, with the same key, as the SDK does unless told otherwise."""
    return make_client(sandbox.url, retries=2)


@pytest.fixture
def shop(client: stripe.StripeClient, sandbox: Sandbox) -> Shop:
    return Shop(client, sandbox.url)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    inbox = Endpoint()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(inbox.take(body, self.headers["Stripe-Signature"]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    inbox.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield inbox
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def listening(shop: Shop, endpoint: Endpoint) -> Endpoint:
    """The endpoint, made known to the gateway."""
    shop.control("/_webhooks", {"url": endpoint.url, "secret": SECRET})
    return endpoint


@pytest.fixture
def hurried(shop: Shop, hasty: stripe.StripeClient) -> Shop:
    """The shop with the client that gives up after half a second."""
    return dataclasses.replace(shop, client=hasty)
