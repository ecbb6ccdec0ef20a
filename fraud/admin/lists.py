"""The pages of the lists: entries, their history, and the files that they come in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import IO, Any, cast

from celery import current_app
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.db import connection, transaction
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from fraud import lists
from fraud.admin.capped import MOST_COUNTED, CappedPaginator
from fraud.admin.list_forms import ChangeForm, ImportForm, NewListEntryForm, RenewForm, SeenForm
from fraud.lists import imports
from fraud.lists.files import MAX_BYTES
from fraud.models import ListChange, ListEntry, ListImport, ListImportLine
from payments.admin.base import Action, BackOfficeAdmin, Fact, OperatorAction, TabFilter, name_actor
from payments.admin.exports import Cell, stream_csv
from payments.admin.forms import ReasonForm
from payments.admin.words import age, column, link, state_badge, tell_actor
from payments.errors import PaymentError

SHOWN_LINES = 20
TONES = {"block": "danger", "allow": "success", "review": "warning"}
Outcome = ListImportLine.Outcome


def estimate_entries() -> int:
    """About how many entries there are: what the database knows without counting."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'fraud_listentry'::regclass"
        )
        return int(cursor.fetchone()[0])


# --- entries ------------------------------------------------------------------------------------------------


def renew(entry: ListEntry, wish: Action) -> str:
    until = wish.data["until"]
    lists.renew_entry(entry.pk, expires_at=until, reason=wish.data["reason"], actor=wish.actor)
    return f"{entry} lasts until {until:%-d %b %Y}." if until else f"{entry} lasts for ever."


def change(entry: ListEntry, wish: Action) -> str:
    lists.change_entry(entry.pk, reason=wish.data["reason"], owner=wish.data["owner"], actor=wish.actor)
    return f"{entry} was changed."


def end(entry: ListEntry, wish: Action) -> str:
    lists.end_entry(entry.pk, reason=wish.data["reason"], actor=wish.actor)
    return f"{entry} has ended."


class EntryFilter(TabFilter):
    """Opens on what counts now."""

    tabs = {"valid": "In force", "ended": "Ended", "all": "All"}

    def narrow(self, tab: str, queryset: QuerySet[ListEntry]) -> QuerySet[ListEntry]:
        entries = cast("Any", queryset)
        found: QuerySet[ListEntry] = {"valid": entries.valid, "ended": entries.ended}.get(tab, entries.all)()
        return found


class KindFilter(admin.SimpleListFilter):
    """By kind; all lists are named with it, so that the index of both is used."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in ListEntry.Kind.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ListEntry]) -> QuerySet[ListEntry]:
        if self.value() is None:
            return queryset
        return queryset.filter(kind=self.value(), list__in=ListEntry.List.values)


@admin.register(ListEntry)
class ListEntryAdmin(BackOfficeAdmin):
    """Values come in the clear and are kept as keyed hashes; an entry is ended, never deleted."""

    list_title = "Lists"
    list_display = ["value_masked", "kind", "list_badge", "reason", "ends", "hits_text", "owner_text", "made"]
    list_filter = [EntryFilter, "list", KindFilter]
    list_before_template = "admin/fraud/lists/opener.html"
    sortable_by = ()
    paginator = CappedPaginator
    search_fields = ["value_hash"]
    search_help_text = "Search by the whole value; it is hashed, so a part of it finds nothing"
    empty_text = "No value is on a list. Add one here or from a case, or import a file."
    page_template = "admin/fraud/lists/entry.html"
    operator_actions = (
        OperatorAction(
            "renew",
            "Renew",
            "change_listentry",
            renew,
            explanation="It counts from now until the day you choose.",
            form=RenewForm,
            tone="default",
        ),
        OperatorAction(
            "alter",
            "Change",
            "change_listentry",
            change,
            explanation="Say anew why it is there and who answers for it.",
            form=ChangeForm,
            tone="default",
        ),
        OperatorAction(
            "end",
            "End",
            "change_listentry",
            end,
            explanation="It counts no more, from the next order on. The entry and its history stay.",
            form=ReasonForm,
            tone="danger",
            why_not=lambda entry: "It has ended." if entry.has_ended else "",
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, "add_listentry")

    # --- the list -------------------------------------------------------------------------------------------

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "is_long": estimate_entries() > MOST_COUNTED,
            "estimate": estimate_entries(),
            "most": MOST_COUNTED,
            "can_import": self.allows(request, "import_listentry"),
            "can_export": self.allows(request, "export_listentry"),
            "filters": request.GET.urlencode(),
        }
        return super().changelist_view(request, {**(extra_context or {}), **context})

    def get_queryset(self, request: HttpRequest) -> QuerySet[ListEntry]:
        queryset: QuerySet[ListEntry] = super().get_queryset(request)
        return queryset.select_related("client")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ListEntry], search_term: str
    ) -> tuple[QuerySet[ListEntry], bool]:
        """By the hash alone: reading ten million masks for a part of one takes too long."""
        if not search_term:
            return queryset, False
        return queryset.filter(value_hash__in=lists.possible_hashes(search_term)), False

    @column("List")
    def list_badge(self, entry: ListEntry) -> SafeString:
        return state_badge(entry.get_list_display(), TONES[entry.list])

    @column("Ends")
    def ends(self, entry: ListEntry) -> SafeString | str:
        return age(entry.expires_at) if entry.expires_at else "never"

    @column("Hits")
    def hits_text(self, entry: ListEntry) -> str:
        return f"{entry.hits:,}"

    @column("Owner")
    def owner_text(self, entry: ListEntry) -> str:
        return tell_actor(entry.answers)

    @column("Made")
    def made(self, entry: ListEntry) -> SafeString:
        return age(entry.created_at)

    # --- the page -------------------------------------------------------------------------------------------

    def list_facts(self, row: ListEntry) -> list[Fact]:
        return [
            ("Kind", row.get_kind_display()),
            ("Reason", row.reason),
            ("Ends", self.ends(row)),
            ("Owner", tell_actor(row.answers)),
            ("Made by", tell_actor(row.created_by)),
            ("Made", age(row.created_at)),
            ("Hits", self.hits_text(row)),
            ("Last hit", age(row.last_hit_at) if row.last_hit_at else "never"),
            *([("API client", row.client)] if row.client else []),
        ]

    def page_context(self, request: HttpRequest, row: ListEntry) -> dict[str, Any]:
        return {
            "title": row.value_masked,
            "badges": [
                self.list_badge(row),
                *([state_badge("Ended", "default")] if row.has_ended else []),
            ],
            "history": [
                (change, age(change.at), tell_actor(change.actor)) for change in row.changes.all()[:100]
            ],
        }

    # --- adding one -----------------------------------------------------------------------------------------

    def get_fields(self, request: HttpRequest, obj: ListEntry | None = None) -> list[str]:
        return ["list", "kind", "value", "reason", "owner", "expires_at"]

    def get_form(
        self, request: HttpRequest, obj: ListEntry | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        return super().get_form(request, obj, change=change, **{**kwargs, "form": NewListEntryForm})

    def save_model(
        self, request: HttpRequest, obj: ListEntry, form: ModelForm[ListEntry], change: bool
    ) -> None:
        wish = form.cleaned_data
        entry = lists.add_to_list(
            wish["list"],
            wish["kind"],
            wish["value"],
            reason=wish["reason"],
            owner=wish["owner"],
            created_by=name_actor(request),
            expires_at=wish["expires_at"],
        )
        obj.pk, obj.value_masked, obj.value_hash = entry.pk, entry.value_masked, entry.value_hash
        obj._state.adding = False

    # --- files ----------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        # The body is read after its handler is in place: the check against forgery reads it too, so it comes within.
        take = csrf_exempt(self._take_upload)
        view = self.admin_site.admin_view
        return [
            path("import/", view(take), name="fraud_listentry_import"),
            path("export/", view(self.export_view), name="fraud_listentry_export"),
            *super().get_urls(),
        ]

    def _take_upload(self, request: HttpRequest) -> HttpResponse:
        request.upload_handlers.insert(0, LimitedUpload(request))
        response: HttpResponse = csrf_protect(self.import_view)(request)
        return response

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Shows the form, or makes the dry run of a file and leads to its page."""
        if not self.allows(request, "import_listentry"):
            raise PermissionDenied
        form = ImportForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            try:
                made = stage_upload(form, actor=name_actor(request))
                return HttpResponseRedirect(reverse("admin:fraud_listimport_change", args=[made.pk]))
            except PaymentError as error:
                form.add_error("file", error.message)
        elif any(getattr(handler, "is_over", False) for handler in request.upload_handlers):
            form.errors["file"] = form.error_class([imports.tell_too_large()])
        return self.render_page(
            request,
            "admin/fraud/lists/import.html",
            title="Import a file",
            context={"form": form, "media": self.media},
            status=422 if form.is_bound and form.errors else 200,
        )

    def export_view(self, request: HttpRequest) -> StreamingHttpResponse:
        """What the list shows under these filters, all pages of it, masked."""
        if not (self.has_view_permission(request) and self.allows(request, "export_listentry")):
            raise PermissionDenied
        queryset = self.get_changelist_instance(request).get_queryset(request)
        return stream_csv("lists.csv", EXPORTED, iter_export(queryset))


def stage_upload(form: ImportForm, *, actor: str) -> ListImport:
    upload = form.cleaned_data["file"]
    file = cast("IO[bytes]", upload.file)
    owner = form.cleaned_data["owner"]
    return imports.stage_file(file, name=upload.name, defaults=form.read_defaults(), owner=owner, actor=actor)


class LimitedUpload(FileUploadHandler):
    """Reads a file that is too large to its end without keeping it, so that the answer can be shown."""

    is_over = False

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request)
        self.received = 0

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self.received += len(raw_data)
        if self.received > MAX_BYTES:
            self.is_over = True
            raise StopUpload(connection_reset=False)
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None  # the next handler has it


EXPORTED = (
    "list", "kind", "masked", "reason", "owner", "expires_at", "created_by", "created_at", "hits", "last_hit_at",
)  # fmt: skip


def iter_export(queryset: QuerySet[ListEntry]) -> Iterator[list[Cell]]:
    for entry in queryset.order_by("-id").iterator(chunk_size=2000):
        yield [
            entry.list, entry.kind, entry.value_masked, entry.reason, entry.owner, _moment(entry.expires_at),
            entry.created_by, _moment(entry.created_at), entry.hits, _moment(entry.last_hit_at),
        ]  # fmt: skip


def _moment(value: Any) -> str:
    return value.isoformat() if value else ""


# --- the files ----------------------------------------------------------------------------------------------


def carry_out(made: ListImport, wish: Action) -> str:
    imports.request_import(made.pk, seen=wish.data["seen"], actor=wish.actor)
    # Should the message be lost, the worker's next round finds the row.
    task = partial(current_app.send_task, "fraud.tasks.apply_list_imports")
    transaction.on_commit(task, robust=True)
    return f"{made} is being imported."


def discard(made: ListImport, wish: Action) -> str:
    imports.discard_import(made.pk, actor=wish.actor)
    return f"{made} was discarded: no list was changed."


def look_again(made: ListImport, wish: Action) -> str:
    imports.look_again(made.pk)
    return "This is what the file would do now."


def why_not_decide(made: ListImport) -> str:
    return "" if made.state == ListImport.State.READY else f"{made.get_state_display()}."


def why_not_import(made: ListImport) -> str:
    if made.state == ListImport.State.READY and made.problem:
        return "The lists have changed: look again first."
    return why_not_decide(made) or ("" if made.added + made.renewed else "No line would change a list.")


@admin.register(ListImport)
class ListImportAdmin(BackOfficeAdmin):
    """Each file that was brought: what it would do, and what became of it."""

    list_display = ["name", "state_text", "lines", "added", "renewed", "bad", "uploader", "brought"]
    list_filter = ["state"]
    search_fields = ["id", "name", "sha256"]
    search_help_text = "Search by import, name of the file, SHA-256"
    empty_text = "No file was brought yet. “Import a file” is on the page of the lists."
    page_template = "admin/fraud/lists/dry_run.html"
    operator_actions = (
        OperatorAction(
            "apply",
            "Import these",
            "import_listentry",
            carry_out,
            explanation="Exactly what is shown happens, all of it or nothing.",
            form=SeenForm,
            why_not=why_not_import,
        ),
        OperatorAction(
            "again",
            "Look again",
            "import_listentry",
            look_again,
            explanation="Each line is compared with the lists as they are now.",
            tone="default",
            why_not=why_not_decide,
        ),
        OperatorAction(
            "discard",
            "Discard",
            "import_listentry",
            discard,
            explanation="No list is changed, and the file can be brought again.",
            tone="danger",
            why_not=why_not_decide,
        ),
    )

    @column(
        "State", label={"Waits for a decision": "warning", "Being imported": "info", "Imported": "success"}
    )
    def state_text(self, made: ListImport) -> str:
        return str(made.get_state_display())

    @column("Brought by")
    def uploader(self, made: ListImport) -> str:
        return tell_actor(made.uploaded_by)

    @column("Brought", ordering="id")
    def brought(self, made: ListImport) -> SafeString:
        return age(made.created_at)

    def list_facts(self, row: ListImport) -> list[Fact]:
        return [
            ("Brought by", tell_actor(row.uploaded_by)),
            ("Brought", age(row.created_at)),
            ("Compared with the lists", age(row.looked_at)),
            ("Owner of the entries", row.owner or "–"),
            *([("Decided by", tell_actor(row.decided_by))] if row.decided_by else []),
            *([("Done", age(row.finished_at))] if row.finished_at else []),
        ]

    def page_context(self, request: HttpRequest, row: ListImport) -> dict[str, Any]:
        is_done = row.state == ListImport.State.DONE
        names = {"added": "Added", "renewed": "Renewed"} if is_done else dict(Outcome.choices)
        return {
            "badges": [state_badge(row.get_state_display(), "info")],
            "counts": [(names.get(name, Outcome(name).label), getattr(row, name)) for name in Outcome.values],
            "bad_lines": imports.list_outcome(row, Outcome.BAD, most=SHOWN_LINES),
            "samples": [
                (Outcome(name).label, imports.list_outcome(row, name, most=SHOWN_LINES), getattr(row, name))
                for name in (Outcome.ADDED, Outcome.RENEWED)
                if getattr(row, name)
            ],
            "shown": SHOWN_LINES,
            "bad_url": self.url_of(row, "bad") if row.bad else "",
        }

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.bad_view)
        return [path("<path:object_id>/bad.csv", view, name="fraud_listimport_bad"), *super().get_urls()]

    def bad_view(self, request: HttpRequest, object_id: str) -> StreamingHttpResponse:
        """Every bad line: its number, its column, the cause."""
        row = self.find_row(request, object_id)
        return stream_csv("bad-lines.csv", ("line", "column", "cause"), imports.iter_bad_lines(row))


# --- the history --------------------------------------------------------------------------------------------


@admin.register(ListChange)
class ListChangeAdmin(BackOfficeAdmin):
    """Who put what on which list or took it off, newest first."""

    list_title = "List history"
    list_display = ["at_text", "action_text", "entry_text", "reason", "who"]
    list_select_related = ["entry"]
    sortable_by = ()
    paginator = CappedPaginator
    fields = ["entry_text", "action", "reason", "expires_at", "actor", "at"]
    readonly_fields = fields
    empty_text = "No list was changed yet."

    @column("When")
    def at_text(self, change: ListChange) -> SafeString:
        return age(change.at)

    @column("What", label={"Added": "success", "Renewed": "info", "Changed": "info", "Ended": "danger"})
    def action_text(self, change: ListChange) -> str:
        return str(change.get_action_display())

    @column("Entry")
    def entry_text(self, change: ListChange) -> SafeString:
        return link("fraud_listentry", change.entry_id, change.entry)

    @column("Who")
    def who(self, change: ListChange) -> str:
        return tell_actor(change.actor)
