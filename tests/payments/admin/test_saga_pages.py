"""The sagas' pages: causes, many at once, each tool with its reason, and the forced end by two people."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from payments import oncall, runbook
from payments.admin.runbook import render_markdown
from payments.models import ForceRequest, Inquiry, OnCallPage, Operation, Order, SagaEffect, SagaRun
from payments.proof import prove_ledger
from tests.payments.admin.conftest import Login

pytestmark = pytest.mark.django_db
TOOLS = ("retry", "compensate", "skip", "extend", "force", "note")


def url_of(run: SagaRun, action: str = "change") -> str:
    return reverse(f"admin:payments_sagarun_{action}", args=[run.pk])


def told(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def read(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, url
    return unescape(response.content.decode())


def fill(html: str, action: str, **data: str) -> dict[str, str]:
    """What the dialog would send: its hidden fields as shown, and what was typed."""
    dialog = html.split(f'id="{action}-dialog"')[1].split("</form>")[0]
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', dialog)
    return {**dict(hidden), **data}


def press(client: Client, run: SagaRun, action: str, *, html: str = "", **data: str) -> Any:
    html = html or read(client, url_of(run))
    return client.post(url_of(run, action), fill(html, action, **data), follow=True)


@pytest.fixture
def stuck(paid: Order) -> SagaRun:
    SagaEffect.objects.filter(step="ship").delete()
    SagaRun.objects.filter(order=paid).update(
        state="QUARANTINED", step="ship", last_error={"code": "internal_error", "message": "KeyError: 'sku'"}
    )
    return SagaRun.objects.get(order=paid)


@pytest.fixture
def second(log_in: Login) -> Client:
    """Another person who is on call."""
    log_in("On-call")
    user = User.objects.create_user("second", is_staff=True)
    user.groups.add(Group.objects.get(name="On-call"))
    client = Client()
    client.force_login(user)
    return client


class TestTheList:
    def test_groups_by_cause_with_the_money_at_stake(
        self, log_in: Login, place: Callable[..., Order]
    ) -> None:
        for _ in range(3):
            place()
        manual = place(capture="manual")
        SagaRun.objects.exclude(order=manual).update(
            state="QUARANTINED", step="ship", last_error={"code": "internal_error"}
        )
        SagaRun.objects.filter(order=manual).update(
            state="FAILED_COMPENSATION", step="authorize", last_error=None
        )
        html = read(log_in("On-call"), reverse("admin:payments_sagarun_changelist"))
        rows = re.findall(
            r"<tr>(.*?)</tr>", html.split('id="groups-title"')[1].split("</table>")[0], re.DOTALL
        )
        shown = [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows[1:]]
        assert re.match(r"Checkout: ship internal_error Quarantined 3 – €388\.50 .*Guide", shown[0])
        assert re.match(r"Checkout: authorize no code Compensation failed 1 €129\.50 – ", shown[1])
        assert "/admin/runbook/internal_error/" in rows[1]

    def test_nothing_stuck_shows_no_table(self, log_in: Login, paid: Order) -> None:
        assert "groups-title" not in read(log_in("On-call"), reverse("admin:payments_sagarun_changelist"))


class TestTheGroup:
    @pytest.fixture
    def url(self, place: Callable[..., Order]) -> str:
        for _ in range(3):
            place()
        SagaRun.objects.update(state="QUARANTINED", step="ship", last_error={"code": "internal_error"})
        return (
            reverse("admin:payments_sagarun_group")
            + "?state=QUARANTINED&kind=checkout&step=ship&code=internal_error"
        )

    def keys(self, html: str) -> list[str]:
        return re.findall(r'name="run" value="([^"]+)"', html)

    def test_is_taken_up_with_what_became_of_each(self, log_in: Login, url: str) -> None:
        client = log_in("On-call")
        keys = self.keys(read(client, url))
        assert len(keys) == 3
        changed = keys[1].partition(":")[0]
        SagaRun.objects.filter(pk=changed).update(epoch=99)
        response = client.post(url, {"run": [*keys, "nonsense"], "reason": "deployed", "token": "t"})
        html = unescape(response.content.decode())
        assert "2 of 4 taken up again" in html
        assert html.count("Left alone") == 2
        assert "has changed since" in html
        again = client.post(url, {"run": keys, "reason": "deployed", "token": "t"})
        assert "0 of 3 taken up again" in again.content.decode()
        assert SagaRun.objects.get(pk=changed).state == "QUARANTINED"

    def test_needs_a_reason(self, log_in: Login, url: str) -> None:
        client = log_in("On-call")
        response = client.post(url, {"run": self.keys(read(client, url)), "reason": "", "token": "t"})
        assert "This field is required" in response.content.decode()
        assert SagaRun.objects.stuck().count() == 3

    def test_who_may_not_operate_only_looks(self, log_in: Login, url: str) -> None:
        client = log_in("Finance")
        assert "Retry all" not in read(client, url)
        assert client.post(url, {"run": [], "reason": "x", "token": "t"}).status_code == 403
        assert log_in("Integrator").get(url).status_code == 403

    def test_needs_the_csrf_token(self, log_in: Login, url: str) -> None:
        client = log_in("On-call", check_csrf=True)
        assert client.post(url, {"run": [], "reason": "x", "token": "t"}).status_code == 403


class TestThePage:
    def test_shows_only_legal_buttons_and_says_why_of_the_others(self, log_in: Login, stuck: SagaRun) -> None:
        html = read(log_in("On-call"), url_of(stuck))
        for tool in ("retry", "compensate", "skip", "force", "note"):
            assert f'id="{tool}-dialog"' in html
        assert 'id="extend-dialog"' not in html
        assert "It is Quarantined, not waiting." in html
        assert "What the on-call guide says" in html

    def test_shows_what_the_gateway_said_when_it_was_asked(self, log_in: Login, stuck: SagaRun) -> None:
        operation = Operation.objects.get(kind="capture")
        Inquiry.objects.create(operation=operation, answer="gateway_timeout", asked_at=timezone.now())
        assert "gateway_timeout" in read(log_in("On-call"), url_of(stuck))

    def test_skips_extends_and_notes(self, log_in: Login, stuck: SagaRun) -> None:
        client = log_in("On-call")
        assert "note is in the diary" in told(press(client, stuck, "note", note="called the carrier"))
        assert "was skipped" in told(press(client, stuck, "skip", reason="sent by hand", evidence=""))
        html = read(client, url_of(stuck))
        for words in (
            "called the carrier",
            "skipped by an operator",
            "sent by hand",
            "Skipped by an operator",
        ):
            assert words in html
        SagaRun.objects.update(state="WAITING", deadline_at=timezone.now(), waiting_for="customer")
        until = f"{timezone.now() + timedelta(days=1):%Y-%m-%dT%H:%M}"
        assert "waits until" in told(press(client, stuck, "extend", reason="customer called", until=until))
        assert prove_ledger() == []

    def test_a_page_that_is_out_of_date_changes_nothing(self, log_in: Login, stuck: SagaRun) -> None:
        client = log_in("On-call")
        html = read(client, url_of(stuck))
        SagaRun.objects.update(epoch=stuck.epoch + 1)
        for tool, data in (
            ("retry", {}),
            ("compensate", {}),
            ("skip", {"evidence": "x"}),
            ("force", {"target": "paid", "evidence": "x", "references": "pi_1"}),
        ):
            response = press(client, stuck, tool, html=html, reason="x", **data)
            assert "has changed since" in told(response), tool
        assert SagaRun.objects.get().state == "QUARANTINED"

    def test_the_second_press_of_one_dialog_does_nothing(self, log_in: Login, stuck: SagaRun) -> None:
        client = log_in("On-call")
        html = read(client, url_of(stuck))
        press(client, stuck, "note", html=html, note="once")
        assert "sent already" in told(press(client, stuck, "note", html=html, note="once"))
        assert stuck.diary.filter(kind="operator_note").count() == 1

    @pytest.mark.parametrize("tool", TOOLS)
    def test_each_tool_is_a_post_with_csrf_and_a_permission(
        self, log_in: Login, stuck: SagaRun, tool: str
    ) -> None:
        data = {"token": "t" * 20, "reason": "x", "note": "x", "evidence": "x", "epoch": str(stuck.epoch)}
        assert log_in("On-call").get(url_of(stuck, tool)).status_code == 405
        assert log_in("On-call", check_csrf=True).post(url_of(stuck, tool), data).status_code == 403
        for role in ("Finance", "Auditor", "Admin", "Fraud analyst"):
            assert log_in(role).post(url_of(stuck, tool), data).status_code == 403, role
        assert SagaRun.objects.get().epoch == stuck.epoch


class TestTheForcedEnd:
    PROPOSAL = {"target": "paid", "evidence": "Sent by hand, paid there", "references": "pi_1\nship_2"}

    def propose(self, client: Client, run: SagaRun) -> ForceRequest:
        assert "is proposed" in told(press(client, run, "force", **self.PROPOSAL))
        return ForceRequest.objects.get()

    def url(self, request: ForceRequest, action: str = "change") -> str:
        return reverse(f"admin:payments_forcerequest_{action}", args=[request.pk])

    def test_is_proposed_by_one_and_decided_by_another(
        self, log_in: Login, stuck: SagaRun, second: Client
    ) -> None:
        first = log_in("On-call")
        request = self.propose(first, stuck)
        own = read(first, self.url(request))
        assert "You proposed it: a second person decides." in own
        assert "approve-dialog" not in own
        assert "proposes to end it as paid" in read(first, url_of(stuck))
        html = read(second, self.url(request))
        assert "Sent by hand, paid there" in html
        assert "ship_2" in html
        assert "€129.50" in html
        response = second.post(self.url(request, "approve"), fill(html, "approve"), follow=True)
        assert "forced to its end" in told(response)
        assert SagaRun.objects.get().state == "FORCED"
        assert "forced to its end by two people" in read(first, url_of(stuck))
        assert prove_ledger() == []

    def test_by_hand_the_proposer_is_refused(self, log_in: Login, stuck: SagaRun) -> None:
        first = log_in("On-call")
        request = self.propose(first, stuck)
        data = {"token": "t" * 20, "payload_hash": request.payload_hash}
        assert "second person" in told(first.post(self.url(request, "approve"), data, follow=True))
        assert SagaRun.objects.get().state == "QUARANTINED"

    def test_an_admin_decides_but_does_not_propose(self, log_in: Login, stuck: SagaRun) -> None:
        request = self.propose(log_in("On-call"), stuck)
        admin = log_in("Admin")
        assert "force-dialog" not in read(admin, url_of(stuck))
        html = read(admin, self.url(request))
        answer = admin.post(
            self.url(request, "reject"), fill(html, "reject", reason="not there"), follow=True
        )
        assert "rejected" in told(answer)
        assert ForceRequest.objects.get().decided_by == "user:admin"
        assert SagaRun.objects.get().state == "QUARANTINED"

    def test_nobody_else_sees_or_decides(self, log_in: Login, stuck: SagaRun) -> None:
        request = self.propose(log_in("On-call"), stuck)
        data = {"token": "t" * 20, "payload_hash": request.payload_hash}
        for role in ("Finance", "Fraud analyst", "Integrator"):
            assert log_in(role).get(self.url(request)).status_code == 403, role
            assert log_in(role).post(self.url(request, "approve"), data).status_code == 403, role
        assert log_in("Auditor").get(self.url(request)).status_code == 200
        assert log_in("Auditor").post(self.url(request, "approve"), data).status_code == 403


class TestTheCalls:
    def test_open_on_what_nobody_took_with_the_reason(self, log_in: Login, settings: Any) -> None:
        settings.ONCALL_URL = "http://127.0.0.1:1/"
        oncall.open_page("saga:x", text="first trouble", detail={})
        oncall.send_unsent_pages()
        OnCallPage.objects.create(
            cause="y", hour=timezone.now(), text="was told", created_at=timezone.now(), sent_at=timezone.now()
        )
        client = log_in("On-call")
        url = reverse("admin:payments_oncallpage_changelist")
        html = read(client, url)
        assert "first trouble" in html
        assert "ONCALL_URL: URLError" in html
        assert "was told" not in html
        assert "Only logged" in read(client, f"{url}?view=all")
        page = read(client, reverse("admin:payments_oncallpage_change", args=[OnCallPage.objects.first().pk]))  # type: ignore[union-attr]
        assert "/admin/runbook/" in page


class TestTheGuide:
    def test_every_section_opens(self, log_in: Login) -> None:
        client = log_in("On-call")
        for slug, (heading, _) in runbook.read_sections().items():
            assert heading in read(client, reverse("runbook", args=[slug]))
        assert client.get(reverse("runbook", args=["no-such"])).status_code == 404

    def test_only_for_who_may_see_sagas(self, log_in: Login) -> None:
        url = reverse("runbook", args=["a-compensation-failed"])
        assert Client().get(url).status_code == 302
        assert log_in("Integrator").get(url).status_code == 403
        client = Client()
        client.force_login(User.objects.create_user("nobody", is_staff=True))
        assert client.get(url).status_code == 403

    def test_markdown_is_escaped(self) -> None:
        html = render_markdown(
            "# A `b` <i>\n\nSee *x* and **y** <script>\nmore [here](javascript:alert(1)).\n\n"
            "1. one\n   goes on\n2. two\n\n- a\n- b\n\n| h | i |\n|---|---|\n| `c` | <d> |\n\n"
            "```sh\na <b> && c\n\nd\n```\n"
        )
        assert "<script>" not in html
        assert "<d>" not in html
        assert "javascript" not in html
        assert "<h3>A <code>b</code> &lt;i&gt;</h3>" in html
        assert "<ol><li>one goes on</li><li>two</li></ol>" in html
        assert "<ul><li>a</li><li>b</li></ul>" in html
        assert "<td><code>c</code></td><td>&lt;d&gt;</td>" in html
        assert '<pre class="bo-json">a &lt;b&gt; &amp;&amp; c\n\nd</pre>' in html
