"""What the pages of webhooks share: the facts of a row in words, its buttons, and what is long, folded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from django.contrib.admin.utils import label_for_field, lookup_field
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.text import capfirst

from payments.admin.base import BackOfficeAdmin, Fact, age

MOST_COUNTED = 10_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no further than 10,000: nobody turns more pages, and an archive of millions would be read for it."""

    @cached_property
    def count(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        return rows.order_by()[:MOST_COUNTED].count()


class WebhookAdmin(BackOfficeAdmin):
    """`facts` and `folded` name fields of the model or columns of the admin."""

    page_template = "admin/webhooks/page.html"
    facts: Sequence[str] = ()
    folded: Sequence[str] = ()

    def list_facts(self, row: Any) -> list[Fact]:
        return [self._tell(row, name) for name in self.facts]

    def page_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        return {"folded": [self._tell(row, name) for name in self.folded]}

    def _tell(self, row: Any, name: str) -> Fact:
        field, _, value = lookup_field(name, row, self)
        if field is not None and field.choices:
            value = getattr(row, f"get_{name}_display")()
        elif isinstance(value, datetime):
            value = age(value)
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        label = capfirst(str(label_for_field(name, self.model, self)))
        return label, "–" if value in (None, "") else value
