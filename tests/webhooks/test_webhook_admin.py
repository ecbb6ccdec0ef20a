"""The pages of on-call and integrator: what they show, who may press what, and that a secret is shown once."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from tests.factories.payments import ApiClientFactory, GatewayAccountFactory
from tests.factories.webhooks import DeliveryFactory, EndpointFactory, InboundWebhookFactory
from webhooks.admin.panels import webhooks_panel
from webhooks.models import Delivery, DeliveryState, Endpoint, InboundState, InboundWebhook, RejectedDelivery

INBOX = "admin:webhooks_inboundwebhook_changelist"


@pytest.fixture
def oncall(db: None, client: Client) -> Client:
    """Somebody who may see and do everything of webhooks, and nothing else."""
    user = User.objects.create_user("oncall", password="pw", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="webhooks"))
    client.force_login(user)
    return client


@pytest.fixture
def auditor(db: None, client: Client) -> Client:
    """Somebody who may only look."""
    user = User.objects.create_user("auditor", password="pw", is_staff=True)
    views = Permission.objects.filter(content_type__app_label="webhooks", codename__startswith="view_")
    user.user_permissions.set(views)
    client.force_login(user)
    return client


@pytest.fixture
def quarantined(db: None) -> InboundWebhook:
    webhook: InboundWebhook = InboundWebhookFactory(
        event_id="evt_stuck", event_type="customer.created", state=InboundState.QUARANTINED, next_try_at=None
    )
    return webhook


def press(client: Client, row: Any, action: str) -> str:
    """The page that answers a press of the button."""
    address = reverse(f"admin:webhooks_{row._meta.model_name}_{action}", args=[row.pk])
    return client.post(address, {"token": secrets.token_hex(8)}, follow=True).content.decode()


def page_of(row: Any) -> str:
    return reverse(f"admin:webhooks_{row._meta.model_name}_change", args=[row.pk])


def test_the_inbox_opens_on_what_is_not_finished(oncall: Client, quarantined: InboundWebhook) -> None:
    InboundWebhookFactory(event_id="evt_done", state=InboundState.PROCESSED)
    text = oncall.get(reverse(INBOX)).content.decode()
    assert "evt_stuck" in text
    assert "evt_done" not in text
    assert "evt_done" in oncall.get(reverse(INBOX), {"box": "processed"}).content.decode()


def test_the_page_of_a_webhook_shows_what_it_did_and_no_card_data(oncall: Client) -> None:
    webhook = InboundWebhookFactory(
        payload=b'{"id": "evt_1", "note": "4242 4242 4242 4242"}',
        state=InboundState.PROCESSED,
        outcome={
            "facts": [{"kind": "capture", "status": "captured", "reference": "pi_7", "outcome": "noop"}]
        },
    )
    text = oncall.get(page_of(webhook)).content.decode()
    assert "capture captured pi_7: changed nothing: it was known" in text
    assert "4242 4242 4242 4242" not in text


def test_the_page_of_a_webhook_says_its_state_and_why_not_in_words(
    oncall: Client, quarantined: InboundWebhook
) -> None:
    InboundWebhook.objects.filter(pk=quarantined.pk).update(last_error="the payment is not known here yet")
    text = oncall.get(page_of(quarantined)).content.decode()
    assert ">Quarantined</span>" in text
    assert "<b>the payment is not known here yet</b>" in text
    assert "(&#x27;" not in text  # no Python where words belong


def test_a_webhook_is_replayed_by_its_button(oncall: Client, quarantined: InboundWebhook) -> None:
    assert (
        reverse("admin:webhooks_inboundwebhook_replay", args=[quarantined.pk])
        in oncall.get(page_of(quarantined)).content.decode()
    )
    assert "evt_stuck was replayed: ignored." in press(oncall, quarantined, "replay")
    quarantined.refresh_from_db()
    assert (quarantined.state, quarantined.replayed_by) == (InboundState.IGNORED, "user:oncall")


def test_several_are_replayed_at_once(oncall: Client, quarantined: InboundWebhook) -> None:
    chosen = {"action": "replay_selected", "_selected_action": [quarantined.pk]}
    oncall.post(reverse(INBOX), chosen)
    quarantined.refresh_from_db()
    assert quarantined.state == InboundState.IGNORED


def test_everything_that_failed_lately_is_due_again(
    oncall: Client, quarantined: InboundWebhook, rings: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        oncall.post(reverse("admin:webhooks_inboundwebhook_replay_failed"))
    quarantined.refresh_from_db()
    assert (quarantined.state, rings) == (InboundState.RECEIVED, ["inbound"])


def test_who_may_only_look_sees_no_button_and_cannot_press_it(
    auditor: Client, quarantined: InboundWebhook
) -> None:
    delivery = DeliveryFactory()
    for row, action in [
        (quarantined, "replay"),
        (delivery, "resend"),
        *((delivery.endpoint, action) for action in ("send_test", "rotate", "enable", "disable")),
    ]:
        address = reverse(f"admin:webhooks_{row._meta.model_name}_{action}", args=[row.pk])
        assert address not in auditor.get(page_of(row)).content.decode()
        assert auditor.post(address).status_code == 403
    assert auditor.post(reverse("admin:webhooks_inboundwebhook_replay_failed")).status_code == 403
    assert auditor.get(reverse("admin:webhooks_endpoint_add")).status_code == 403


@pytest.mark.parametrize("action", ["send_test", "rotate", "enable", "disable"])
def test_an_action_is_never_a_get(oncall: Client, action: str) -> None:
    endpoint = EndpointFactory()
    assert oncall.get(reverse(f"admin:webhooks_endpoint_{action}", args=[endpoint.pk])).status_code == 405


def test_a_button_needs_the_csrf_token(oncall: Client, quarantined: InboundWebhook) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = oncall.cookies
    assert (
        strict.post(reverse("admin:webhooks_inboundwebhook_replay", args=[quarantined.pk])).status_code == 403
    )


def test_a_new_endpoints_secret_is_shown_once(oncall: Client) -> None:
    values = {
        "client": ApiClientFactory().pk,
        "url": "http://127.0.0.1:9/",
        "event_types": "order.paid\nrefund.created",
    }
    answer = oncall.post(reverse("admin:webhooks_endpoint_add"), values)
    endpoint = Endpoint.objects.get()
    secret = endpoint.secrets.get().value
    assert secret in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    assert endpoint.event_types == ["order.paid", "refund.created"]
    assert secret not in oncall.get(page_of(endpoint)).content.decode()


def test_an_endpoint_inside_is_refused_with_the_reason(oncall: Client, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False
    values = {"client": ApiClientFactory().pk, "url": "http://127.0.0.1:9/"}
    answer = oncall.post(reverse("admin:webhooks_endpoint_add"), values)
    assert "must be https on port 443" in answer.content.decode()
    assert not Endpoint.objects.exists()


def test_a_rotated_secret_is_shown_once(oncall: Client) -> None:
    endpoint = EndpointFactory()
    answer = oncall.post(reverse("admin:webhooks_endpoint_rotate", args=[endpoint.pk]))
    newest = endpoint.secrets.valid()[0].value
    assert newest in answer.content.decode()
    assert newest not in oncall.get(page_of(endpoint)).content.decode()


def test_an_endpoint_is_switched_off_and_on(oncall: Client) -> None:
    delivery = DeliveryFactory()
    endpoint = delivery.endpoint
    press(oncall, endpoint, "disable")
    endpoint.refresh_from_db()
    delivery.refresh_from_db()
    assert (endpoint.is_enabled, endpoint.disabled_reason) == (False, "switched off by user:oncall")
    assert delivery.state == DeliveryState.ABANDONED
    assert "is disabled; nothing was sent" in press(oncall, delivery, "resend")
    press(oncall, endpoint, "enable")
    press(oncall, delivery, "resend")
    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.PENDING


def test_a_test_message_is_put_on_its_way(oncall: Client) -> None:
    endpoint = EndpointFactory()
    press(oncall, endpoint, "send_test")
    assert Delivery.objects.get().event_type == "endpoint.test"


def test_every_list_and_page_opens(oncall: Client) -> None:
    delivery = DeliveryFactory()
    delivery.tries.create(
        started_at=timezone.now(), duration_ms=7, status=500, answer="<script>alert(1)</script>"
    )
    rejected = RejectedDelivery.objects.create(
        account=GatewayAccountFactory(),
        hour=timezone.now(),
        reason="webhook_signature",
        size=1,
        last_at=timezone.now(),
    )
    for row in (delivery, delivery.endpoint, rejected):
        page = oncall.get(page_of(row))
        assert page.status_code == 200
        assert "<script>alert" not in page.content.decode()
        assert oncall.get(reverse(f"admin:webhooks_{row._meta.model_name}_changelist")).status_code == 200
    assert oncall.get(reverse("admin:webhooks_endpoint_add")).status_code == 200


def test_the_inbox_costs_the_same_for_any_number_of_rows(
    oncall: Client, django_assert_max_num_queries: Any
) -> None:
    for _ in range(20):
        InboundWebhookFactory()
    with django_assert_max_num_queries(14):
        oncall.get(reverse(INBOX))


def test_the_order_page_shows_what_came_in_and_what_went_out(oncall: Client, rf: RequestFactory) -> None:
    delivery = DeliveryFactory(last_error="answered 500")
    order = delivery.event.order
    InboundWebhookFactory(order=order, event_type="charge.captured", duplicates=2)
    InboundWebhookFactory(event_type="charge.refunded")
    request = rf.get("/")
    request.user = User.objects.get(username="oncall")
    text = str(webhooks_panel(order, request))
    assert "charge.captured" in text
    assert "repeated 2 times" in text
    assert "charge.refunded" not in text
    assert "order.paid" in text
    assert "answered 500" in text
    request.user = User.objects.create_user("stranger")
    assert webhooks_panel(order, request) is None
