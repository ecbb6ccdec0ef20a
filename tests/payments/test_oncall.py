"""On-call is told: once for each cause, in the transaction of the trouble, until somebody takes it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.db import transaction
from django.utils import timezone

from payments import oncall, runbook
from payments.models import OnCallPage, Order, SagaRun
from tests.fakes import FakeGateway
from tests.payments.gateway_faults import sweep, times_out

pytestmark = pytest.mark.django_db


class Receiver(ThreadingHTTPServer):
    """Whoever takes the calls; `status` is its answer."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.status = 204
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/page"


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 204:
            self.server.taken.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing to say."""


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.ONCALL_URL = server.url
    yield server
    server.shutdown()
    server.server_close()


def end_pause() -> None:
    OnCallPage.objects.update(leased_until=None)


@pytest.fixture
def team(settings: Any) -> list[str]:
    settings.ONCALL_EMAIL = ["ann@shop.example", "bob@shop.example"]
    return settings.ONCALL_EMAIL  # type: ignore[no-any-return]


def break_mail(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1  # nobody listens


class TestTheTwoChannels:
    def test_both_tell_the_same_once(
        self, receiver: Receiver, team: list[str], mailoutbox: list[EmailMessage]
    ) -> None:
        oncall.open_page("saga:x", text="stopped\nhard", detail={"saga": "sag_1"})
        assert (oncall.send_unsent_pages(), oncall.send_unsent_pages()) == (1, 0)
        [call], [mail] = receiver.taken, mailoutbox
        assert (mail.to, mail.subject) == (team, "[Countinghouse] stopped hard")
        assert "/admin/payments/sagarun/sag_1/change/" in str(mail.body)
        assert call["runbook"] in str(mail.body)
        page = OnCallPage.objects.get()
        assert page.sent_at
        assert page.posted_at
        assert page.mailed_at

    def test_a_post_that_fails_does_not_mail_twice(
        self, receiver: Receiver, team: list[str], mailoutbox: list[EmailMessage]
    ) -> None:
        receiver.status = 503
        oncall.open_page("saga:x", text="stopped", detail={})
        assert oncall.send_unsent_pages() == 0
        page = OnCallPage.objects.get()
        assert (page.sent_at, page.posted_at, page.mail_error) == (None, None, "")
        assert page.mailed_at
        end_pause()
        receiver.status = 204
        assert oncall.send_unsent_pages() == 1
        assert (len(receiver.taken), len(mailoutbox)) == (1, 1)

    def test_a_mail_that_fails_does_not_post_twice(
        self, receiver: Receiver, team: list[str], settings: Any, mailoutbox: list[EmailMessage]
    ) -> None:
        good = settings.EMAIL_BACKEND
        break_mail(settings)
        oncall.open_page("saga:x", text="stopped", detail={})
        assert oncall.send_unsent_pages() == 0
        assert "refused" in OnCallPage.objects.get().mail_error
        settings.EMAIL_BACKEND = good
        end_pause()
        assert oncall.send_unsent_pages() == 1
        assert (len(receiver.taken), len(mailoutbox)) == (1, 1)

    def test_with_neither_it_is_only_logged(self) -> None:
        oncall.open_page("saga:x", text="stopped", detail={})
        assert oncall.send_unsent_pages() == 1
        page = OnCallPage.objects.get()
        assert (page.posted_at, page.mailed_at) == (None, None)

    def test_the_pauses_grow_and_end_never(self, receiver: Receiver) -> None:
        receiver.status = 503
        page_id = oncall.open_page("saga:x", text="stopped", detail={})
        OnCallPage.objects.update(tries=5000)
        assert not oncall.send_page(page_id)
        paused = OnCallPage.objects.get().leased_until
        assert paused
        left = paused - timezone.now()
        assert oncall.LEASE < left <= oncall.LONGEST_PAUSE
        end_pause()
        receiver.status = 204
        assert oncall.send_page(page_id)

    def test_who_is_sending_it_is_not_disturbed(self, receiver: Receiver) -> None:
        page_id = oncall.open_page("saga:x", text="stopped", detail={})
        OnCallPage.objects.update(leased_until=timezone.now() + oncall.LEASE)
        assert not oncall.send_page(page_id)
        assert receiver.taken == []


class TestWhatIsTold:
    def test_the_money_of_all_that_stopped_for_the_cause(
        self, place: Callable[..., Order], receiver: Receiver, team: list[str], mailoutbox: list[EmailMessage]
    ) -> None:
        for _ in range(2):
            place()
        error = {"code": "gateway_mismatch"}
        SagaRun.objects.update(state="QUARANTINED", step="capture", last_error=error)
        cause = "saga:QUARANTINED:checkout:capture:gateway_mismatch"
        for _ in range(2):
            oncall.open_page(cause, text="stopped", detail={"error": "gateway_mismatch"})
        oncall.send_unsent_pages()
        assert receiver.taken[0]["at_risk"] == {"EUR": 25900}
        assert receiver.taken[0]["runbook"].endswith("/admin/runbook/gateway_mismatch/")
        assert "Money at risk: €259.00" in str(mailoutbox[0].body)
        assert "Times in this hour: 2" in str(mailoutbox[0].body)

    def test_a_guide_of_the_houses_own(self, receiver: Receiver, settings: Any) -> None:
        settings.RUNBOOK_URL = "https://wiki.example/oncall.md#"
        oncall.open_page("saga:FAILED_COMPENSATION:checkout:capture:x", text="stopped", detail={})
        oncall.send_unsent_pages()
        assert receiver.taken[0]["runbook"] == "https://wiki.example/oncall.md#a-compensation-failed"

    def test_every_cause_has_its_section(self) -> None:
        assert runbook.all_slugs() <= runbook.read_sections().keys()
        assert runbook.find_slug("saga:QUARANTINED:checkout:ship:no_such_code") == "a-saga-is-quarantined"
        assert runbook.find_slug("never heard of") == "on-call"

    @pytest.mark.parametrize(
        ("cause", "slug"),
        [
            ("hold:conflict", "a-hold-could-not-be-used"),
            ("dispute:due_soon", "a-dispute-must-be-answered"),
            ("token_not_forgotten:acc_1", "a-removed-token-was-not-deleted"),
            ("operation:capture:unknown", "an-operation-is-unknown"),
            ("fraud_drift:Card velocity", "a-fraud-rule-drifts"),
        ],
    )
    def test_what_no_saga_calls_about_has_its_section_too(self, cause: str, slug: str) -> None:
        assert runbook.find_slug(cause) == slug

    def test_a_production_image_has_the_guide(self) -> None:
        root = runbook.GUIDE.parent.parent
        assert "COPY docs/oncall.md docs/" in (root / "Dockerfile").read_text()
        assert "!docs/oncall.md" in (root / ".dockerignore").read_text()


def test_the_same_cause_within_the_hour_is_counted_and_sent_once(receiver: Receiver) -> None:
    for _ in range(3):
        oncall.open_page("saga:x", text="stopped", detail={"saga": "sag_1"})
    assert (oncall.send_unsent_pages(), oncall.send_unsent_pages()) == (1, 0)
    [call] = receiver.taken
    assert (call["type"], call["count"], call["text"]) == ("saga", 3, "stopped")
    assert call["url"].endswith("/admin/payments/sagarun/sag_1/change/")


def test_trouble_that_is_rolled_back_calls_nobody(receiver: Receiver) -> None:
    with transaction.atomic():
        oncall.open_page("saga:x", text="stopped", detail={})
        transaction.set_rollback(True)
    assert OnCallPage.objects.count() == 0


def test_a_call_that_nobody_took_is_made_again(receiver: Receiver) -> None:
    receiver.status = 503
    oncall.open_page("saga:x", text="stopped", detail={})
    assert oncall.send_unsent_pages() == 0
    assert "503" in OnCallPage.objects.get().error
    receiver.status = 204
    assert oncall.send_unsent_pages() == 0, "it waits before it tries again"
    end_pause()
    assert oncall.send_unsent_pages() == 1
    assert len(receiver.taken) == 1


def test_an_address_that_is_none_is_an_error_of_the_page(settings: Any) -> None:
    settings.ONCALL_URL = "file:///etc/passwd"
    oncall.open_page("saga:x", text="stopped", detail={})
    assert oncall.send_unsent_pages() == 0
    assert "http" in OnCallPage.objects.get().error


def test_card_data_in_the_text_is_masked() -> None:
    oncall.open_page("saga:x", text="card 4242 4242 4242 4242 refused", detail={})
    assert "4242 4242 4242 4242" not in OnCallPage.objects.get().text


def test_a_compensation_that_fails_for_good_calls_with_the_money_at_risk(
    place: Callable[..., Order], gateway: FakeGateway, receiver: Receiver
) -> None:
    gateway.faults["refund"] = [times_out] * 30
    place(shipping={"country": "AQ"})
    sweep(12)
    run = SagaRun.objects.get()
    assert run.state == "FAILED_COMPENSATION"

    assert oncall.send_unsent_pages() == 1

    [call] = receiver.taken
    assert (call["saga"], call["step"]) == (run.pk, "capture")
    assert (call["money"]["captured"], call["money"]["refunded"]) == (12950, 0)
    assert call["url"].endswith(f"/{run.pk}/change/")
