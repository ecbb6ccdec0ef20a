"""The pages of the lists: adding, renewing and ending with a reason, files by dry run, a bounded list."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from fraud import lists
from fraud.admin import lists as pages
from fraud.lists import imports
from fraud.models import ListEntry, ListImport

pytestmark = pytest.mark.django_db
LIST = "admin:fraud_listentry_changelist"
RIGHTS = (
    "view_listentry", "add_listentry", "change_listentry", "import_listentry", "export_listentry",
    "view_listimport", "view_listchange",
)  # fmt: skip


def log_in(*rights: str) -> Client:
    user = User.objects.create_user("ana", password="a long password", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="fraud", codename__in=rights))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def analyst() -> Client:
    return log_in(*RIGHTS)


@pytest.fixture
def entry() -> ListEntry:
    return lists.add_to_list("block", "email", "thief@example.com", reason="bots", created_by="user:ben")


def post(client: Client, page: str, action: str, **data: Any) -> Any:
    """Send an action's dialog as its page shows it."""
    html = client.get(page).content.decode()
    found = re.search(
        rf'id="id_{action}_token"[^>]*|name="token" value="([^"]+)"[^>]*id="id_{action}_token"', html
    )
    assert found, "the dialog is on the page"
    seen = re.search(r'name="seen" value="([^"]+)"', html)
    token = re.findall(r'name="token" value="([^"]+)"', html)[0]
    hidden = {"token": token, "seen": seen[1]} if seen else {"token": token}
    return client.post(f"{page.removesuffix('change/')}{action}/", {**hidden, **data}, follow=True)


def page_of(row: Any) -> str:
    return reverse(f"admin:fraud_{row._meta.model_name}_change", args=[row.pk])


def upload(client: Client, content: bytes, **data: Any) -> Any:
    file = SimpleUploadedFile("list.csv", content, content_type="text/csv")
    wishes = {"list": "block", "kind": "email", "reason": "May", "days": "90", "file": file, **data}
    return client.post(reverse("admin:fraud_listentry_import"), wishes, follow=True)


def test_ending_wants_a_reason_and_is_told_on_the_page(analyst: Client, entry: ListEntry) -> None:
    assert post(analyst, page_of(entry), "end", reason="").status_code == 422
    html = post(analyst, page_of(entry), "end", reason="a mistake").content.decode()
    assert "has ended already" not in html
    assert "a mistake" in html
    entry.refresh_from_db()
    assert entry.has_ended
    assert [change.actor for change in entry.changes.all()] == ["user:ana", "user:ben"]
    html = post(analyst, page_of(entry), "renew", reason="no mistake", until="2999-01-31").content.decode()
    assert "lasts until" in html
    assert post(analyst, page_of(entry), "renew", reason="x", until="2001-01-31").status_code == 422


def test_who_may_only_look_finds_no_button(entry: ListEntry) -> None:
    client = log_in("view_listentry", "view_listimport", "view_listchange")
    for name in ("end", "renew", "alter"):
        assert client.post(f"/admin/fraud/listentry/{entry.pk}/{name}/").status_code == 403
    for name in ("import", "export"):
        assert client.get(reverse(f"admin:fraud_listentry_{name}")).status_code == 403
    assert client.get(reverse("admin:fraud_listentry_add")).status_code == 403


def test_an_end_in_the_past_is_refused(analyst: Client) -> None:
    data = {"list": "block", "kind": "email", "value": "a@b.example", "reason": "x"}
    past = {"expires_at_0": "2020-01-01", "expires_at_1": "00:00"}
    answer = analyst.post(reverse("admin:fraud_listentry_add"), data | past)
    assert "in the future" in answer.content.decode()
    assert not ListEntry.objects.exists()


def test_a_value_is_found_by_its_hash_alone(analyst: Client, entry: ListEntry) -> None:
    for term, is_found in (("THIEF@example.com", True), ("thief", False), ("other@example.com", False)):
        html = analyst.get(reverse(LIST), {"q": term}).content.decode()
        assert ("t***@example.com" in html) is is_found


def test_the_list_counts_and_reads_no_more_than_it_shows(
    analyst: Client, entry: ListEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        lists.add_to_list("review", "device", f"d_{number}", reason="x")
    monkeypatch.setattr(pages, "MOST_COUNTED", 3)
    monkeypatch.setattr(pages.ListEntryAdmin, "list_per_page", 2)
    for query in ({}, {"list__exact": "review"}, {"kind": "device"}, {"view": "all"}):
        with CaptureQueriesContext(connection) as captured:
            assert analyst.get(reverse(LIST), query).status_code == 200
        about = [query["sql"] for query in captured if 'FROM "fraud_listentry"' in query["sql"]]
        assert about
        assert all("LIMIT" in sql for sql in about), about
        assert not any("COUNT(*)" in sql for sql in about), about


def test_a_file_is_shown_first_and_then_imported_exactly(analyst: Client, entry: ListEntry) -> None:
    answer = upload(analyst, b"value;expires_at\nnew@example.com;\nthief@example.com;\n4242424242424242;\n")
    html = answer.content.decode()
    made = ListImport.objects.get()
    assert "card number" in html
    assert "n***@example.com" in html
    assert "4242424242424242" not in html
    assert ListEntry.objects.count() == 1
    bad = b"".join(analyst.get(reverse("admin:fraud_listimport_bad", args=[made.pk])).streaming_content)
    assert bad.decode().splitlines()[1].startswith('4,value,"This looks like a card number')
    assert "is being imported" in post(analyst, page_of(made), "apply").content.decode()
    assert imports.apply_imports() == 1
    assert "Imported" in analyst.get(page_of(made)).content.decode()
    assert ListEntry.objects.filter(created_by="user:ana").count() == 1


def test_an_import_that_the_lists_have_overtaken_says_so(analyst: Client) -> None:
    upload(analyst, b"value\nnew@example.com\n")
    made = ListImport.objects.get()
    lists.add_to_list("block", "email", "new@example.com", reason="x")
    post(analyst, page_of(made), "apply")
    imports.apply_imports()
    assert "Look again, then decide" in analyst.get(page_of(made)).content.decode()
    html = post(analyst, page_of(made), "again").content.decode()
    assert "No line would change a list" in html
    assert "was discarded" in post(analyst, page_of(made), "discard").content.decode()


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"PK\x03\x04" + bytes(9), "Excel workbook"), (b"\x89PNG\r\n", "picture"), (b"", "empty")],
)
def test_a_wrong_file_is_refused_in_words(analyst: Client, content: bytes, cause: str) -> None:
    answer = upload(analyst, content)
    assert answer.status_code == 422
    assert cause in answer.content.decode()
    assert not ListImport.objects.exists()


def test_a_file_that_is_too_large_is_read_past_and_refused(
    analyst: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_BYTES", 1_000_000)
    answer = upload(analyst, b"value\n" + b"a@example.com\n" * 100_000)
    assert answer.status_code == 422
    assert "larger than" in answer.content.decode()


def test_an_upload_without_its_token_is_refused() -> None:
    log_in(*RIGHTS)
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="ana"))
    assert upload(client, b"value\na@example.com\n").status_code == 403
    assert not ListImport.objects.exists()


def test_the_export_is_masked(analyst: Client, entry: ListEntry) -> None:
    answer = analyst.get(reverse("admin:fraud_listentry_export"), {"list__exact": "block"})
    lines = b"".join(answer.streaming_content).decode().splitlines()
    assert lines[1].startswith("block,email,t***@example.com,bots,,")
    other = analyst.get(reverse("admin:fraud_listentry_export"), {"list__exact": "allow"})
    assert len(b"".join(other.streaming_content).splitlines()) == 1
