"""Files of list entries: the dry run says what would be, and then exactly that happens, or nothing."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from fraud import lists
from fraud.lists import imports
from fraud.lists.files import Defaults
from fraud.lists.values import read_value
from fraud.models import ListChange, ListEntry, ListImport, ListImportLine
from payments.errors import ConflictError, InvalidRequestError
from tests.payments.threads import run_in_threads

pytestmark = pytest.mark.django_db
CHOSEN = Defaults(list="block", kind="email", reason="May")


def stage(content: str | bytes, defaults: Defaults = CHOSEN, *, name: str = "file.csv") -> ListImport:
    data = content.encode() if isinstance(content, str) else content
    return imports.stage_file(
        io.BytesIO(data), name=name, defaults=defaults, owner="fraud team", actor="user:ann"
    )


def carry_out(made: ListImport) -> ListImport:
    imports.request_import(made.pk, seen=made.seen, actor="user:bob")
    imports.apply_imports()
    made.refresh_from_db()
    return made


def tell(made: ListImport) -> dict[str, int]:
    return {name: getattr(made, name) for name in ListImportLine.Outcome.values if getattr(made, name)}


def test_the_dry_run_says_of_each_line_what_it_would_do() -> None:
    later = timezone.now() + timedelta(days=2)
    lists.add_to_list("block", "email", "there@example.com", reason="old")
    lists.add_to_list("block", "email", "ended@example.com", reason="old", expires_at=timezone.now())
    lists.add_to_list("block", "email", "short@example.com", reason="old", expires_at=later)
    made = stage(
        "value\nnew@example.com\nthere@example.com\nended@example.com\nshort@example.com\nNEW@example.com\nnobody\n"
    )
    assert tell(made) == {"added": 1, "renewed": 2, "same": 1, "repeated": 1, "bad": 1}
    assert made.lines == 6
    assert list(imports.iter_bad_lines(made)) == [(7, "value", "This is not an e-mail address.")]
    assert ListEntry.objects.count() == 3, "a dry run changes nothing"


def test_what_was_shown_is_imported_and_told_in_the_history() -> None:
    ended = lists.add_to_list("block", "email", "b@example.com", reason="old", expires_at=timezone.now())
    made = carry_out(stage("value;reason;expires_at\r\na@example.com;bots;2999-01-31\r\nb@example.com;;\r\n"))
    assert (made.state, made.decided_by) == ("done", "user:bob")
    [new] = ListEntry.objects.exclude(pk=ended.pk)
    assert (new.reason, new.owner, new.created_by) == ("bots", "fraud team", "user:bob")
    assert new.expires_at == datetime(2999, 2, 1, tzinfo=UTC), "a day lasts until its end"
    assert lists.find_matches({"email": {"a@example.com", "b@example.com"}})
    changes = ListChange.objects.filter(file=made).order_by("id").values_list("entry", "action", "reason")
    assert list(changes) == [(new.pk, "added", "bots"), (ended.pk, "renewed", "May")]
    assert tell(stage("value\na@example.com\n", Defaults("block", "email", "x", new.expires_at))) == {
        "same": 1
    }


def test_a_shorter_line_never_shortens_what_is_there() -> None:
    lists.add_to_list("block", "email", "a@example.com", reason="for ever")
    assert tell(stage("value,expires_at\na@example.com,2999-01-31\n")) == {"same": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfvalue\r\nm\xc3\xbcller@example.com\r\n",
        "value;list;kind\nmüller@example.com;block;email\n",
        "kind\tvalue\temail\n".replace("\temail", "") + "email\tmüller@example.com\n",
        '\n"value"\n\n"müller@example.com"\n',
        "müller@example.com\n",
        "VALUE , Reason\r müller@example.com , why\r",
    ],
)
def test_files_of_every_program_are_read(content: str | bytes) -> None:
    assert tell(stage(content)) == {"added": 1}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\r\n  \n", "empty"),
        (b"value\n", "no line but"),
        (b"PK\x03\x04" + bytes(100), "Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"%PDF-1.7", "PDF"),
        ("value\na@example.com\n".encode("utf-16"), "UTF-16"),
        (b"value\n\x00\x01", "not a text file"),
        (b"value\nm\xfcller@example.com\n", "not UTF-8"),
        (b"value,colour\na@example.com,red\n", "no column 'colour'"),
        (b"value,value\na,b\n", "named twice"),
        (b"a@example.com,b@example.com\n", "must name the columns"),
        (b'value\n"' + b"x" * 200_000, "Line"),
    ],
)
def test_a_wrong_file_is_refused_as_a_whole(content: bytes, cause: str) -> None:
    with pytest.raises(InvalidRequestError, match=cause) as refused:
        stage(content)
    assert refused.value.message.endswith("Nothing was imported.")
    assert not ListImport.objects.exists()


def test_what_neither_file_nor_page_says_is_asked_for() -> None:
    with pytest.raises(InvalidRequestError, match="says list and reason"):
        stage("value,kind\na@example.com,email\n", Defaults())
    with pytest.raises(InvalidRequestError, match="values alone"):
        stage("a@example.com\n", Defaults(list="block"))


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "MAX_BYTES", 1_048_576)
    with pytest.raises(InvalidRequestError, match="larger than 1 MiB"):
        stage(b"value\n" + b"a@example.com\n" * 100_000)
    monkeypatch.setattr(imports, "MAX_LINES", 2)
    with pytest.raises(InvalidRequestError, match="more than 2 lines"):
        stage("value\na@example.com\nb@example.com\nc@example.com\n")
    assert not ListImport.objects.exists()


@pytest.mark.parametrize(
    ("line", "column", "cause"),
    [
        ("white,email,a@b.example,x,", "list", "one of block, allow, review"),
        ("block,mail,a@b.example,x,", "kind", "one of email, domain"),
        ("block,email,,x,", "value", "empty value"),
        ("block,email,a@b.example,,", "reason", "wants a reason"),
        (f"block,email,a@b.example,{'x' * 201},", "reason", "200 characters"),
        ("block,email,a@b.example,x,31.1.2027", "expires_at", "as in 2027-01-31"),
        ("block,email,a@b.example,x,2020-01-31", "expires_at", "ended already"),
        ("block,email,a@b.example,x,,more", "", "more than the 5 columns"),
        ("block,card,4242424242424242,x,", "value", "card number"),
        ("block,device,4242 4242 4242 4242,x,", "value", "card number"),
    ],
)
def test_a_bad_line_says_where_and_why_and_repeats_nothing(line: str, column: str, cause: str) -> None:
    made = stage(f"list,kind,value,reason,expires_at\nblock,email,good@b.example,x,\n{line}\n", Defaults())
    assert tell(made) == {"added": 1, "bad": 1}
    [(number, where, why)] = imports.iter_bad_lines(made)
    assert (number, where) == (3, column)
    assert cause in why
    bad = made.entries.get(outcome="bad")
    assert (bad.value_hash, bad.value_masked, bad.reason) == ("", "", "")
    assert "4242" not in why


def test_card_data_in_a_reason_is_masked() -> None:
    carry_out(stage("value,reason\na@example.com,paid with 4242424242424242\n"))
    assert "4242424242424242" not in ListEntry.objects.get().reason


def test_no_value_is_kept_in_the_clear() -> None:
    stage("value\nsecret.person@example.com\n")
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(line::text, '') FROM fraud_listimportline line")
        assert "secret.person" not in cursor.fetchone()[0]


# --- exactly what was shown, or nothing ---------------------------------------------------------------------


def test_a_decision_is_bound_to_the_dry_run_that_was_seen() -> None:
    made = stage("value\na@example.com\n")
    seen = made.seen
    assert made.sha256 in seen
    imports.look_again(made.pk)
    with pytest.raises(ConflictError, match="newer"):
        imports.request_import(made.pk, seen=seen, actor="user:bob")
    assert imports.apply_imports() == 0


CHANGES: dict[str, Callable[[], object]] = {
    "added meanwhile": lambda: lists.add_to_list("block", "email", "new@example.com", reason="x"),
    "ended meanwhile": lambda: lists.end_entry(
        ListEntry.objects.get(value_masked="t***@example.com").pk, reason="x", actor="x"
    ),
    "renewed meanwhile": lambda: lists.add_to_list("block", "email", "ended@example.com", reason="x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_when_the_lists_have_changed_since_nothing_is_imported(change: str) -> None:
    lists.add_to_list("block", "email", "there@example.com", reason="old")
    lists.add_to_list("block", "email", "ended@example.com", reason="old", expires_at=timezone.now())
    made = stage("value\nnew@example.com\nthere@example.com\nended@example.com\nfresh@example.com\n")
    CHANGES[change]()
    carry_out(made)
    assert (made.state, made.problem) == ("ready", imports.STALE)
    assert not lists.find_matches({"email": {"fresh@example.com"}})
    assert not ListChange.objects.filter(file=made).exists()
    carry_out(imports.look_again(made.pk))
    made.refresh_from_db()
    assert (made.state, made.problem) == ("done", "")
    for value in ("new", "there", "ended", "fresh"):
        assert lists.find_matches({"email": {f"{value}@example.com"}}), value


def test_it_is_decided_once() -> None:
    made = carry_out(stage("value\na@example.com\n"))
    for decide in (
        lambda: imports.request_import(made.pk, seen=made.seen, actor="user:eve"),
        lambda: imports.discard_import(made.pk, actor="user:eve"),
        lambda: imports.look_again(made.pk),
    ):
        with pytest.raises(ConflictError, match="imported by bob"):
            decide()
    other = stage("value\nb@example.com\n")
    imports.discard_import(other.pk, actor="user:eve")
    assert imports.apply_imports() == 0
    assert ListEntry.objects.count() == 1
    empty = stage("value\na@example.com\n")
    with pytest.raises(ConflictError, match="No line"):
        imports.request_import(empty.pk, seen=empty.seen, actor="user:bob")


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_one_imports() -> None:
    made = stage("value\n" + "".join(f"a{number}@example.com\n" for number in range(500)))
    imports.request_import(made.pk, seen=made.seen, actor="user:bob")
    assert sum(run_in_threads(lambda _: imports.apply_imports(), 4)) == 1
    assert ListEntry.objects.count() == ListChange.objects.count() == 500


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_dies_leaves_nothing_half_done() -> None:
    """Its connection is cut in the middle of the transaction, as when the process is killed."""
    made = stage("value\na@example.com\nb@example.com\n")
    imports.request_import(made.pk, seen=made.seen, actor="user:bob")
    blocker = ListEntry(list="block", kind="email", value_hash=read_value("email", "b@example.com").hash)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            imports.apply_imports()
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    with transaction.atomic():
        blocker.save()  # the worker waits for this very entry, in the middle of its statement
        worker = threading.Thread(target=work)
        worker.start()
        cut_waiting_connection(worker)
        worker.join(20)
        transaction.set_rollback(True)
    assert failed
    made.refresh_from_db()
    assert (made.state, ListEntry.objects.count(), ListChange.objects.count()) == ("applying", 0, 0)
    assert imports.apply_imports() == 1
    assert ListEntry.objects.count() == 2


def cut_waiting_connection(worker: threading.Thread) -> None:
    """As soon as it waits for our row, it is terminated."""
    with connection.cursor() as cursor:
        while worker.is_alive():
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO fraud_listentry%' "
                "AND pid <> pg_backend_pid()"
            )
