"""The pages of on-call and integrator: what they show, who may press what, and that a secret is shown once."""

from __future__ import annotations

import hashlib
import secrets
import shlex
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from payments.events import CATALOGUE
from tests.factories.payments import ApiClientFactory, GatewayAccountFactory, PaidOrderFactory
from tests.factories.webhooks import (
    SECRET,
    DeliveryFactory,
    EndpointFactory,
    InboundWebhookFactory,
    encode,
    make_event,
)
from webhooks.admin.event_page import build_command
from webhooks.admin.panels import webhooks_panel
from webhooks.health import measure_accounts
from webhooks.models import Delivery, DeliveryState, Endpoint, InboundState, InboundWebhook, RejectedDelivery

ENDPOINT_ACTIONS = ("send_test", "rotate", "enable", "disable", "recover", "replay", "remove")
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


def press(client: Client, row: Any, action: str, **typed: str) -> str:
    """The page that answers a press of the button."""
    address = reverse(f"admin:webhooks_{row._meta.model_name}_{action}", args=[row.pk])
    return client.post(address, {"token": secrets.token_hex(8), **typed}, follow=True).content.decode()


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


def test_several_are_made_due_at_once_and_left_to_a_worker(
    oncall: Client, quarantined: InboundWebhook, rings: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    waiting = InboundWebhookFactory()
    chosen = {"action": "replay_selected", "_selected_action": [quarantined.pk, waiting.pk]}
    with django_capture_on_commit_callbacks(execute=True):
        text = oncall.post(reverse(INBOX), chosen, follow=True).content.decode()
    quarantined.refresh_from_db()
    assert (quarantined.state, quarantined.replayed_by) == (InboundState.RECEIVED, "user:oncall")
    assert rings == ["inbound"]
    assert "1 are due again" in text
    assert "1 were left alone" in text


def test_what_came_since_is_counted_before_it_is_replayed(
    oncall: Client, quarantined: InboundWebhook, rings: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    done = InboundWebhookFactory(account=quarantined.account, state=InboundState.PROCESSED, next_try_at=None)
    address = reverse("admin:webhooks_inboundwebhook_replay_since")
    since = f"{timezone.now() - timedelta(hours=1):%Y-%m-%d %H:%M}"
    wanted = {"account": quarantined.account.pk, "since": since, "which": "all"}
    assert "2 webhooks</h2>" in oncall.get(address, wanted).content.decode()
    quarantined.refresh_from_db()
    assert quarantined.state == InboundState.QUARANTINED
    assert "1 webhook</h2>" in oncall.get(address, {**wanted, "which": "failed"}).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        answer = oncall.post(address, {**wanted, "which": "failed"}, follow=True)
    quarantined.refresh_from_db()
    done.refresh_from_db()
    assert (quarantined.state, done.state, rings) == (
        InboundState.RECEIVED,
        InboundState.PROCESSED,
        ["inbound"],
    )
    assert "1 are due again" in answer.content.decode()


def test_a_replay_since_no_moment_is_refused(oncall: Client, quarantined: InboundWebhook) -> None:
    address = reverse("admin:webhooks_inboundwebhook_replay_since")
    answer = oncall.post(address, {"since": "yesterday", "which": "failed"})
    assert answer.status_code == 422
    quarantined.refresh_from_db()
    assert quarantined.state == InboundState.QUARANTINED


def test_the_page_shows_what_a_replay_would_do_and_does_nothing(
    oncall: Client, quarantined: InboundWebhook
) -> None:
    address = reverse("admin:webhooks_inboundwebhook_preview", args=[quarantined.pk])
    assert address in oncall.get(page_of(quarantined)).content.decode()
    text = oncall.post(address).content.decode()
    assert "It says nothing of a payment." in text
    assert oncall.get(address).status_code == 405
    quarantined.refresh_from_db()
    assert quarantined.state == InboundState.QUARANTINED


def test_the_inbox_is_searched_by_event_reference_and_order(oncall: Client) -> None:
    order = PaidOrderFactory(reference="web-77")
    webhook = InboundWebhookFactory(
        event_id="evt_wanted",
        subject="pi_wanted",
        order=order,
        state=InboundState.PROCESSED,
        next_try_at=None,
    )
    InboundWebhookFactory(event_id="evt_other", subject="pi_other")
    for term in (webhook.pk, "evt_wanted", "pi_wanted", "web-77", order.pk):
        text = oncall.get(reverse(INBOX), {"q": term}).content.decode()
        assert "evt_wanted" in text, term
        assert "evt_other" not in text, term


def test_conflicts_have_their_tab_and_stand_side_by_side(oncall: Client) -> None:
    first = InboundWebhookFactory(event_id="evt_twice", state=InboundState.PROCESSED, next_try_at=None)
    body = make_event("evt_twice", data={"object": {"id": first.subject, "amount": 777}})
    second = InboundWebhookFactory(
        account=first.account,
        event_id="evt_twice",
        conflict_of=first,
        state=InboundState.QUARANTINED,
        next_try_at=None,
        payload=encode(body),
    )
    assert second.pk in oncall.get(reverse(INBOX), {"box": "conflicts"}).content.decode()
    for page in (first, second):
        text = oncall.get(page_of(page)).content.decode()
        assert "<code>data.object.amount</code>" in text
        assert "777" in text


def test_the_page_links_the_webhooks_of_the_same_payment(oncall: Client) -> None:
    before, this, after = (
        InboundWebhookFactory(account=account, subject="pi_same")
        for account in [GatewayAccountFactory(name="same")]
        for _ in range(3)
    )
    text = oncall.get(page_of(this)).content.decode()
    assert f'before: <a class="bo-link" href="{page_of(before)}"' in text
    assert f'after: <a class="bo-link" href="{page_of(after)}"' in text


def test_the_command_sends_the_same_bytes_or_there_is_none(oncall: Client) -> None:
    body = b'{"id": "evt_1", "note": "it\'s"}'
    webhook = InboundWebhookFactory(payload=body, headers={"stripe-signature": "t=1,v1=aa"})
    command = build_command(InboundWebhook.objects.select_related("stored", "account").get(pk=webhook.pk))
    words = shlex.split(command)
    assert words[-1] == body.decode()
    assert "stripe-signature: t=1,v1=aa" in words
    assert "curl -i" in oncall.get(page_of(webhook)).content.decode()
    redacted = InboundWebhookFactory(payload=body, sha256="0" * 64)
    assert "There is none" in oncall.get(page_of(redacted)).content.decode()


def test_the_health_of_every_account_and_of_one(oncall: Client, account: Any) -> None:
    now = timezone.now()
    for seconds in (1, 3):
        InboundWebhookFactory(
            account=account,
            state=InboundState.PROCESSED,
            next_try_at=None,
            processed_at=now + timedelta(seconds=seconds),
            received_at=now,
            duplicates=2,
        )
    InboundWebhookFactory(account=account, state=InboundState.QUARANTINED, next_try_at=None)
    [health] = measure_accounts([account])
    assert (health.received, health.duplicates, health.troubled) == (3, 4, 1)
    assert (health.lag_median, round(health.lag_p95 or 0, 1)) == (2.0, 2.9)
    assert sum(health.hours.values()) == 3
    assert len(health.hours) == 24
    address = reverse("admin:webhooks_inboundwebhook_health")
    assert "stripe/main" in oncall.get(address).content.decode()
    text = oncall.get(address, {"account": account.pk}).content.decode()
    assert ">Quarantined</span>" in text
    assert "valid since" in text
    assert SECRET not in text
    assert oncall.get(address, {"account": "acc_nobody"}).status_code == 404


def test_the_health_is_for_who_may_see_the_inbox(client: Client, db: None) -> None:
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(reverse("admin:webhooks_inboundwebhook_health")).status_code == 403


def test_who_may_only_look_sees_no_button_and_cannot_press_it(
    auditor: Client, quarantined: InboundWebhook
) -> None:
    delivery = DeliveryFactory()
    for row, action in [
        (quarantined, "replay"),
        (delivery, "resend"),
        *((delivery.endpoint, action) for action in ENDPOINT_ACTIONS),
    ]:
        address = reverse(f"admin:webhooks_{row._meta.model_name}_{action}", args=[row.pk])
        assert address not in auditor.get(page_of(row)).content.decode()
        assert auditor.post(address).status_code == 403
    assert auditor.post(reverse("admin:webhooks_inboundwebhook_replay_since")).status_code == 403
    preview = reverse("admin:webhooks_inboundwebhook_preview", args=[quarantined.pk])
    assert preview not in auditor.get(page_of(quarantined)).content.decode()
    assert auditor.post(preview).status_code == 403
    edit = reverse("admin:webhooks_endpoint_edit", args=[delivery.endpoint_id])
    assert edit not in auditor.get(page_of(delivery.endpoint)).content.decode()
    assert auditor.get(edit).status_code == auditor.post(edit).status_code == 403
    assert auditor.get(reverse("admin:webhooks_endpoint_add")).status_code == 403


@pytest.mark.parametrize("action", ENDPOINT_ACTIONS)
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
        "event_types": ["order.paid", "refund.created"],
    }
    answer = oncall.post(reverse("admin:webhooks_endpoint_add"), values)
    endpoint = Endpoint.objects.get()
    secret = endpoint.secrets.get().value
    assert secret in answer.content.decode()
    assert "signs too" not in answer.content.decode()  # it replaces none
    assert "no-store" in answer.headers["Cache-Control"]
    assert endpoint.event_types == ["order.paid", "refund.created"]
    assert secret not in oncall.get(page_of(endpoint)).content.decode()


def test_an_endpoint_inside_is_refused_with_the_reason(oncall: Client, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False
    values = {"client": ApiClientFactory().pk, "url": "http://127.0.0.1:9/"}
    answer = oncall.post(reverse("admin:webhooks_endpoint_add"), values)
    assert "must be https on port 443" in answer.content.decode()
    assert not Endpoint.objects.exists()


def test_a_removed_endpoint_gets_no_new_secret(oncall: Client) -> None:
    endpoint = EndpointFactory(removed_at=timezone.now(), is_enabled=False)
    answer = oncall.post(reverse("admin:webhooks_endpoint_rotate", args=[endpoint.pk]), follow=True)
    assert "was removed; nothing was changed" in answer.content.decode()
    assert "whsec_" not in answer.content.decode()
    assert endpoint.secrets.count() == 1


def test_a_rotated_secret_is_shown_once(oncall: Client) -> None:
    endpoint = EndpointFactory()
    answer = oncall.post(reverse("admin:webhooks_endpoint_rotate", args=[endpoint.pk]))
    newest = endpoint.secrets.valid()[0].value
    assert newest in answer.content.decode()
    assert "signs too for 24 hours" in answer.content.decode()
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


def test_all_of_an_endpoint_is_changed_on_one_form(oncall: Client) -> None:
    endpoint = EndpointFactory()
    address = reverse("admin:webhooks_endpoint_edit", args=[endpoint.pk])
    assert endpoint.url in oncall.get(address).content.decode()
    wishes = {
        "url": "http://127.0.0.1:9/new",
        "description": "moved",
        "event_types": ["order.paid"],
        "rate_per_second": "7",
        "is_ordered": "on",
        "notify_email": "ops@shop.example",
    }
    assert oncall.post(address, wishes, follow=True).status_code == 200
    endpoint.refresh_from_db()
    found = {name: getattr(endpoint, name) for name in wishes}
    assert found == wishes | {"rate_per_second": 7, "is_ordered": True}
    assert "ops@shop.example" in oncall.get(page_of(endpoint)).content.decode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://shop.example"},
        {"url": "http://" + "x" * 500},
        {"event_types": ["order.payd"]},
        {"rate_per_second": "0"},
        {"rate_per_second": "-1"},
        {"notify_email": "nobody"},
        {"description": "x" * 201},
    ],
)
def test_a_wrong_wish_comes_back_with_the_reason_and_changes_nothing(
    oncall: Client, wrong: dict[str, Any]
) -> None:
    endpoint = EndpointFactory()
    before = Endpoint.objects.values().get()
    address = reverse("admin:webhooks_endpoint_edit", args=[endpoint.pk])
    answer = oncall.post(address, {"url": endpoint.url} | wrong)
    assert answer.status_code == 422
    assert 'class="bo-error"' in answer.content.decode()
    assert Endpoint.objects.values().get() == before


def test_what_failed_is_recovered_since_the_moment_that_was_typed(
    oncall: Client, rings: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    delivery = DeliveryFactory(state=DeliveryState.FAILED, next_try_at=None)
    with django_capture_on_commit_callbacks(execute=True):
        assert "1 that failed" in press(oncall, delivery.endpoint, "recover", since="2026-01-01T00:00")
    delivery.refresh_from_db()
    assert (delivery.state, rings) == (DeliveryState.PENDING, ["outbound"])
    assert "0 that failed" in press(oncall, delivery.endpoint, "recover", since="2026-01-01T00:00")


def test_what_was_never_sent_is_replayed(oncall: Client) -> None:
    delivery = DeliveryFactory()
    endpoint = EndpointFactory(client=delivery.endpoint.client)
    assert "1 that were never sent" in press(oncall, endpoint, "replay", since="2026-01-01T00:00")
    assert endpoint.deliveries.get().event == delivery.event


@pytest.mark.parametrize("since", ["", "yesterday", "2099-01-01T00:00", "1999-12-31T00:00"])
def test_a_moment_that_is_none_is_refused(oncall: Client, since: str) -> None:
    delivery = DeliveryFactory(state=DeliveryState.FAILED, next_try_at=None)
    assert "It was not done" in press(oncall, delivery.endpoint, "recover", since=since)
    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.FAILED


def test_a_removed_endpoint_leaves_the_list_and_can_only_be_looked_at(oncall: Client) -> None:
    endpoint = DeliveryFactory().endpoint
    assert "field-url" in oncall.get(reverse("admin:webhooks_endpoint_changelist")).content.decode()
    assert "is removed" in press(oncall, endpoint, "remove")
    listed = oncall.get(reverse("admin:webhooks_endpoint_changelist")).content.decode()
    assert "field-url" not in listed
    removed = reverse("admin:webhooks_endpoint_changelist") + "?view=removed"
    assert "field-url" in oncall.get(removed).content.decode()
    page = oncall.get(page_of(endpoint)).content.decode()
    assert "removed by user:oncall" in page
    assert "Change the settings" not in page
    assert "Rotate the secret" not in page


def test_the_page_of_an_endpoint_says_how_it_goes(oncall: Client) -> None:
    now = timezone.now()
    endpoint = EndpointFactory(
        is_enabled=False,
        disabled_reason="every try has failed for 5 days",
        failing_since=now - timedelta(days=6),
        paused_until=now + timedelta(hours=2, minutes=1),
        probe_at=now + timedelta(hours=4, minutes=1),
    )
    for state in (DeliveryState.DELIVERED, DeliveryState.DELIVERED, DeliveryState.FAILED):
        DeliveryFactory(endpoint=endpoint, state=state, next_try_at=None)
    text = oncall.get(page_of(endpoint)).content.decode()
    for words in (
        "Disabled: every try has failed for 5 days.",
        "<dt>Delivered</dt><dd>2</dd>",
        "<dt>Failed</dt><dd>1</dd>",
        "<dt>Failing for</dt><dd>6 days</dd>",
        "in 2 hours",
        "in 4 hours",
    ):
        assert words in text
    deliveries = f"?endpoint__id__exact={endpoint.pk}&amp;state=all"
    assert deliveries in text
    listed = oncall.get(reverse("admin:webhooks_delivery_changelist") + deliveries.replace("&amp;", "&"))
    assert listed.status_code == 200
    assert listed.content.decode().count("field-type_text") == 3


def test_the_page_of_a_delivery_shows_each_try_with_what_was_sent(oncall: Client) -> None:
    delivery = DeliveryFactory()
    for status, error in ((500, ""), (None, "no answer within 15 s")):
        delivery.tries.create(
            started_at=timezone.now(),
            duration_ms=123,
            status=status,
            error=error,
            headers={"webhook-id": delivery.message_id},
            answer="<b>out of order</b>",
        )
    text = oncall.get(page_of(delivery)).content.decode()
    for words in ("123 ms", ">500</span>", ">no answer</span>", "no answer within 15 s", delivery.message_id):
        assert words in text
    assert "&lt;b&gt;out of order&lt;/b&gt;" in text
    assert "&quot;webhook-id&quot;" in text


def test_deliveries_are_narrowed_by_event_type(oncall: Client) -> None:
    DeliveryFactory()
    address = reverse("admin:webhooks_delivery_changelist")
    assert "field-type_text" in oncall.get(address, {"type": "order.paid"}).content.decode()
    assert "field-type_text" not in oncall.get(address, {"type": "refund.failed"}).content.decode()


def test_the_catalogue_is_a_page_for_who_may_see_endpoints(auditor: Client) -> None:
    text = auditor.get(reverse("admin:webhooks_endpoint_types")).content.decode()
    for name in CATALOGUE:
        assert f'id="{name}"' in text
    User.objects.get(username="auditor").user_permissions.clear()
    assert auditor.get(reverse("admin:webhooks_endpoint_types")).status_code == 403


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


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "half an emoji \\ud83d"}',
        '{"name": "half an emoji \ud83d"}'.encode(errors="surrogatepass"),
        '{"name": "in another encoding"}'.encode("utf-16"),
    ],
)
def test_whatever_a_body_holds_its_page_is_shown(oncall: Client, body: bytes) -> None:
    sha256 = hashlib.sha256(body).hexdigest()
    webhook = InboundWebhookFactory(payload=body, sha256=sha256)
    assert oncall.get(reverse("admin:webhooks_inboundwebhook_change", args=[webhook.pk])).status_code == 200
