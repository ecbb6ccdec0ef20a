"""A peer of the receipt benchmark: dj-stripe's webhook endpoint, set up as its documentation says.

Runs in the environment of requirements/bench-djstripe.txt. As a program it makes the tables, an account, a key and an
endpoint, and prints the endpoint's address. With PEER_MODE=stored what follows the receipt is left to a callback;
without, the event is processed within the request, which is how it comes out of the box.
"""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.receipt_djstripe_settings"

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.urls import include, path, reverse  # noqa: E402
from djstripe.models import Account, APIKey, WebhookEndpoint  # noqa: E402

SECRET = "whsec_benchmark"


def leave_to_a_queue(trigger, api_key=None):
    """Where a site would call its task queue: nothing, so that the peer pays for no broker."""


urlpatterns = [path("stripe/", include("djstripe.urls", namespace="djstripe"))]


def prepare() -> None:
    """Tables, an account, a key and an endpoint in a new database."""
    call_command("migrate", verbosity=0)
    account = Account.objects.create(id="acct_bench", livemode=False)
    APIKey.objects.create(
        id="key_bench",
        secret=settings.STRIPE_TEST_SECRET_KEY,
        type="secret",
        livemode=False,
        djstripe_owner_account=account,
    )
    WebhookEndpoint.objects.create(
        id="we_bench",
        secret=SECRET,
        url="http://127.0.0.1/",
        enabled_events=["*"],
        livemode=False,
        status="enabled",
        djstripe_owner_account=account,
    )


def find_path() -> str:
    """Where the endpoint takes its webhooks."""
    endpoint = WebhookEndpoint.objects.get()
    return reverse("djstripe:djstripe_webhook_by_uuid", kwargs={"uuid": endpoint.djstripe_uuid})


if __name__ == "__main__":
    prepare()
    print(find_path())
