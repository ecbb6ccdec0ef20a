"""List entries over the API: a client adds, reads and ends its own, and sees nobody else's."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_serializer,
)
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from fraud import lists
from fraud.lists.entries import MAX_REASON_LENGTH
from fraud.lists.values import MAX_VALUE_LENGTH, normalise
from fraud.models import ListEntry
from payments import idempotency, ids
from payments.api.errors import ParameterError
from payments.api.fields import ChoiceNameField, ClosedSerializer, TextField, TimestampField
from payments.api.filters import refuse_unknown_parameters
from payments.api.pagination import SignedCursorPagination
from payments.api.replay import Answer, answer_once
from payments.api.views import StorefrontView
from payments.errors import InvalidRequestError
from payments.idempotency import Claim
from payments.models.client import Scope

_THERE = "You have this value on this list already, or the entry has ended: nothing was changed."


class EntryPagination(SignedCursorPagination):
    """By the public id, which counts nobody's entries."""

    def get_ordering(self, request: Request, queryset: Any, view: Any) -> tuple[str, ...]:
        return ("-public_id",)


# --- what comes in ------------------------------------------------------------------------------------------


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A fraudster's address",
            request_only=True,
            value={
                "list": "block",
                "kind": "email",
                "value": "thief@example.com",
                "reason": "Charged back twice",
            },
        )
    ]
)
class NewEntryRequest(ClosedSerializer):
    """A value in the clear; only its keyed hash and a masked form are kept."""

    list = ChoiceNameField(choices=ListEntry.List.values)
    kind = ChoiceNameField(choices=ListEntry.Kind.values)
    value = TextField(max_length=MAX_VALUE_LENGTH)
    reason = TextField(max_length=MAX_REASON_LENGTH)
    expires_at = TimestampField(required=False, allow_null=True, default=None, help_text="Null: for ever.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        for name, check in (
            ("value", lambda: normalise(attrs["kind"], attrs["value"])),
            ("expires_at", lambda: lists.check_future(attrs["expires_at"])),
        ):
            try:
                check()
            except InvalidRequestError as error:
                raise serializers.ValidationError({name: [error.message]}) from None
        return attrs


# --- what goes out ------------------------------------------------------------------------------------------


class EntryProjection(ClosedSerializer):
    """A value on a list, masked."""

    id = serializers.CharField(source="public_id")
    list = serializers.ChoiceField(choices=ListEntry.List.choices)
    kind = serializers.ChoiceField(choices=ListEntry.Kind.choices)
    masked = serializers.CharField(source="value_masked")
    reason = serializers.CharField()
    hits = serializers.IntegerField(help_text="Screenings that it fitted, up to a minute ago.")
    last_hit_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(
        allow_null=True, help_text="Null: for ever. In the past: it has ended."
    )
    created_at = serializers.DateTimeField()


# --- the endpoints ------------------------------------------------------------------------------------------


class EntryFilter(django_filters.FilterSet):  # type: ignore[misc]
    list = django_filters.ChoiceFilter(choices=ListEntry.List.choices)
    kind = django_filters.ChoiceFilter(choices=ListEntry.Kind.choices)

    class Meta:
        model = ListEntry
        fields: list[str] = []


class ListEntryView(StorefrontView):
    """The client's own entries: those of the house and of other clients are not there for it."""

    queryset = ListEntry.objects.all()
    serializer_class = EntryProjection
    filterset_class = EntryFilter
    pagination_class = EntryPagination
    needs_idempotency_key = True
    required_scopes = dict.fromkeys(("list", "create", "retrieve", "end"), Scope.LISTS_WRITE)
    own_problems = {"create": {"409": _THERE}, "end": {"409": _THERE}}
    list_actions = ("list", "end")  # the latter checks its own parameter

    def get_queryset(self) -> QuerySet[ListEntry]:
        return super().get_queryset().filter(client=self.client)

    def find_entry(self, public_id: str) -> ListEntry:
        found = (
            self.get_queryset().filter(public_id=public_id).first() if ids.is_id(public_id, "lst") else None
        )
        if found is None:
            raise NotFound("There is no such object.")
        return found

    @extend_schema(summary="List your list entries, newest first", responses=EntryProjection(many=True))
    def list(self, request: Request) -> Response:
        return self.list_page(self.get_queryset(), EntryProjection)

    @extend_schema(summary="Read a list entry", responses=EntryProjection)
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(EntryProjection(self.find_entry(pk)).data)

    @extend_schema(summary="Put a value on a list", request=NewEntryRequest, responses={201: EntryProjection})
    def create(self, request: Request) -> HttpResponse:
        """It counts from the next order on: block and review for every order of the shop, allow for your own.

        An entry of yours that has ended is renewed.
        """
        wish = self.read(NewEntryRequest).validated_data

        def perform(claim: Claim) -> Answer:
            with transaction.atomic():
                entry = lists.add_to_list(
                    wish["list"],
                    wish["kind"],
                    wish["value"],
                    reason=wish["reason"],
                    expires_at=wish["expires_at"],
                    created_by=self.actor,
                    client=self.client,
                )
                idempotency.attach(claim, str(entry.public_id))
            return self.describe(str(entry.public_id))

        return answer_once(
            request, route="POST lists/entries", path={}, perform=perform, resume=self.describe
        )

    def describe(self, public_id: str) -> Answer:
        return Answer(201, dict(EntryProjection(self.find_entry(public_id)).data))

    @extend_schema(
        summary="End a list entry",
        request=None,
        parameters=[
            OpenApiParameter(
                "reason",
                {"type": "string", "minLength": 1, "maxLength": MAX_REASON_LENGTH, "example": "A mistake"},
                required=True,
                description="Why; it stays in the history.",
            )
        ],
        responses={204: OpenApiResponse(description="It counts no more. The entry and its history stay.")},
    )
    def end(self, request: Request, pk: str) -> Response:
        refuse_unknown_parameters(request, ("reason",))
        entry = self.find_entry(pk)
        reason = request.query_params.get("reason", "")
        try:
            lists.end_entry(entry.pk, reason=reason, actor=self.actor)
        except InvalidRequestError as error:
            raise ParameterError({"reason": [ErrorDetail(error.message, code="invalid")]}) from None
        return Response(status=204)
