"""Cursor pages, newest first or oldest first, whose cursors are signed for one client and one address."""

from __future__ import annotations

from typing import Any, cast

from django.core.signing import BadSignature, Signer
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from payments.api.errors import InvalidCursorError

MAX_PAGE_SIZE = 100


class SignedCursorPagination(CursorPagination):
    """Ids are ordered by time and never change, so a page stays what it was while new orders come in."""

    ordering = "-id"
    page_size_query_param = "page_size"
    max_page_size = MAX_PAGE_SIZE
    request: Request

    def get_ordering(self, request: Request, queryset: Any, view: Any) -> tuple[str, ...]:
        return ("id",) if request.query_params.get("sort") == "oldest" else ("-id",)

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        sort = "".join(self.get_ordering(request, queryset, view))
        client = getattr(request.user, "pk", "")
        self.signer = Signer(salt=f"payments.api.cursor:{request.path}:{client}:{sort}")
        return super().paginate_queryset(queryset, request, view=view)

    def get_page_size(self, request: Request) -> int:
        asked = request.query_params.get(self.page_size_query_param)
        if asked is None:
            return int(self.page_size or MAX_PAGE_SIZE)
        if (
            not asked.isascii()
            or not asked.isdigit()
            or len(asked) > 4
            or not 1 <= int(asked) <= MAX_PAGE_SIZE
        ):
            raise ValidationError({"page_size": [f"A whole number from 1 to {MAX_PAGE_SIZE}."]})
        return int(asked)

    def decode_cursor(self, request: Request) -> Cursor | None:
        encoded = request.query_params.get(self.cursor_query_param)
        if encoded is None:
            return None
        try:
            direction, _, position = self.signer.unsign(encoded).partition(".")
        except BadSignature:
            raise InvalidCursorError from None
        return Cursor(0, direction == "previous", cast(Any, position))  # the stubs take ids for numbers

    def encode_cursor(self, cursor: Cursor) -> str:
        direction = "previous" if cursor.reverse else "next"
        signed = self.signer.sign(f"{direction}.{cursor.position}")
        return replace_query_param(str(self.base_url), self.cursor_query_param, signed)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
            "additionalProperties": False,
        }
