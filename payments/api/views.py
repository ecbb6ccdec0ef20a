"""The endpoints of the storefront API: each reads its request, makes one domain call and shows the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.viewsets import GenericViewSet

from payments import ids, services
from payments.api.answers import answer_change, answer_new_order, answer_refund
from payments.api.authentication import get_client
from payments.api.expansion import EXPAND, PARAMETER, read_expand, render_orders
from payments.api.filters import EventFilter, OrderFilter, StrictFilterBackend, refuse_unknown_parameters
from payments.api.projections import (
    EventProjection,
    ExpandedOrderProjection,
    OrderProjection,
    PaymentProjection,
    RefundProjection,
    render_payment,
    render_refund,
)
from payments.api.replay import Answer, answer_once, read_key, wants_to_wait
from payments.api.requests import CancelRequest, CaptureRequest, ConfirmRequest, OrderRequest, RefundRequest
from payments.api.throttling import CountedView, KeyThrottle
from payments.errors import ConflictError
from payments.idempotency import Claim
from payments.models import ApiClient, Event, Operation, Order, Payment
from payments.models.client import Scope

Change = Callable[[Order, Claim], Order]
_ACCEPTED = OpenApiResponse(
    OrderProjection, description="Not finished: read the order again after `Retry-After`."
)


class StorefrontView(CountedView, GenericViewSet[Any]):
    """Base of every endpoint. `required_scopes` names a scope per action; an action without one is closed."""

    required_scopes: ClassVar[Mapping[str, str]] = {}
    needs_idempotency_key: ClassVar[bool] = False  # for the schema
    throttle_classes = [KeyThrottle]
    filter_backends = [StrictFilterBackend]
    metadata_class = None
    own_parameters: ClassVar[Iterable[str]] = ()  # of the query, beside filters and pages
    list_actions: ClassVar[Iterable[str]] = ("list",)  # whose parameters the filters check

    @property
    def client(self) -> ApiClient:
        return get_client(self.request)

    @property
    def actor(self) -> str:
        return f"api:{self.client.name}"

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        action: str | None = self.action
        if action is None:
            return  # no handler for this method: it is answered 405 next
        if action not in self.list_actions:
            refuse_unknown_parameters(request, self.own_parameters if request.method == "GET" else ())
        if request.method == "POST" and self.needs_idempotency_key:
            read_key(request)

    def read(self, serializer_class: type[Serializer[Any]]) -> Any:
        """The valid body. Raises `ValidationError`."""
        serializer = serializer_class(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return serializer

    def refuse_body(self) -> None:
        """For a call whose address says it all. Raises `ValidationError`."""
        if self.request.data:
            raise ValidationError("Send no body, or an empty object.")

    def find_or_404(self, queryset: QuerySet[Any], pk: str, prefix: str) -> Any:
        """This client's object. Another client's, a malformed and an unknown id get the same 404."""
        found = queryset.filter(pk=pk).first() if ids.is_id(pk, prefix) else None
        if found is None:
            raise NotFound("There is no such object.")
        return found

    def find_page(self, queryset: QuerySet[Any]) -> list[Any]:
        """The rows of the page that the query asks for. Raises `ParameterError`, `InvalidCursorError`."""
        page = self.paginate_queryset(self.filter_queryset(queryset))
        return list(page or [])

    def list_page(self, queryset: QuerySet[Any], serializer_class: type[Serializer[Any]]) -> Response:
        return self.get_paginated_response(serializer_class(self.find_page(queryset), many=True).data)


class OrderView(StorefrontView):
    queryset = Order.objects.select_related("payment__account", "client")
    serializer_class = OrderProjection
    filterset_class = OrderFilter
    needs_idempotency_key = True
    own_parameters = (PARAMETER,)
    required_scopes = {
        "list": Scope.ORDERS_READ,
        "retrieve": Scope.ORDERS_READ,
        "create": Scope.ORDERS_WRITE,
        "confirm": Scope.ORDERS_WRITE,
        "capture": Scope.ORDERS_WRITE,
        "cancel": Scope.ORDERS_WRITE,
        "refunds": Scope.REFUNDS_WRITE,
    }

    def get_queryset(self) -> QuerySet[Order]:
        return super().get_queryset().filter(client=self.client)

    def find_order(self, order_id: str) -> Order:
        order: Order = self.find_or_404(self.get_queryset(), order_id, "ord")
        return order

    @extend_schema(
        summary="List orders, newest first",
        parameters=[EXPAND],
        responses=ExpandedOrderProjection(many=True),
    )
    def list(self, request: Request) -> Response:
        orders = self.find_page(self.get_queryset())
        return self.get_paginated_response(render_orders(orders, read_expand(request)))

    @extend_schema(summary="Read an order", parameters=[EXPAND], responses=ExpandedOrderProjection)
    def retrieve(self, request: Request, pk: str) -> Response:
        names = read_expand(request)
        [order] = render_orders([self.find_order(pk)], names)
        return Response(order)

    @extend_schema(
        summary="Place and pay an order",
        request=OrderRequest,
        responses={201: OrderProjection, 202: _ACCEPTED},
    )
    def create(self, request: Request) -> HttpResponse:
        draft = self.read(OrderRequest).to_draft()

        def perform(claim: Claim) -> Answer:
            return answer_new_order(services.place_order(self.client, draft, key=claim, drive=self.drive))

        return answer_once(
            request,
            route="POST orders",
            path={},
            perform=perform,
            resume=lambda order_id: answer_new_order(self.resume(self.find_order(order_id))),
        )

    @extend_schema(
        summary="Go on after 3-D Secure, or with another payment method",
        request=ConfirmRequest,
        responses={200: OrderProjection, 202: _ACCEPTED},
    )
    def confirm(self, request: Request, pk: str) -> HttpResponse:
        valid = self.read(ConfirmRequest).validated_data
        return self.change_order(
            pk, lambda order, key: services.confirm_order(order, key=key, drive=self.drive, **valid)
        )

    @extend_schema(
        summary="Capture an authorized order",
        request=CaptureRequest,
        responses={200: OrderProjection, 202: _ACCEPTED},
    )
    def capture(self, request: Request, pk: str) -> HttpResponse:
        valid = self.read(CaptureRequest).validated_data
        return self.change_order(
            pk,
            lambda order, key: services.capture_order(
                order,
                amount=valid.get("amount"),
                final=valid["final"],
                actor=self.actor,
                key=key,
                drive=self.drive,
            ),
        )

    @extend_schema(
        summary="Cancel an order that is not captured",
        request=CancelRequest,
        responses={200: OrderProjection, 202: _ACCEPTED},
    )
    def cancel(self, request: Request, pk: str) -> HttpResponse:
        reason = self.read(CancelRequest).validated_data["reason"]
        return self.change_order(
            pk,
            lambda order, key: services.cancel_order(
                order, reason=reason, actor=self.actor, drive=self.drive
            ),
        )

    @extend_schema(
        summary="Refund an order, wholly or in part",
        request=RefundRequest,
        responses={
            201: RefundProjection,
            202: OpenApiResponse(RefundProjection, description="The gateway has not answered yet."),
        },
    )
    def refunds(self, request: Request, pk: str) -> HttpResponse:
        valid = self.read(RefundRequest).validated_data
        order = self.find_order(pk)

        def perform(claim: Claim) -> Answer:
            refund = services.refund_order(
                order,
                amount=valid.get("amount"),
                reason=valid["reason"],
                note=valid["note"],
                capture=valid["capture"],
                actor=self.actor,
                key=claim,
                drive=self.drive,
            )
            return answer_refund(refund)

        return answer_once(
            request,
            route="POST orders/{id}/refunds",
            path={"id": pk},
            perform=perform,
            resume=lambda refund_id: answer_refund(self.resume_refund(order, refund_id)),
        )

    def change_order(self, order_id: str, change: Change) -> HttpResponse:
        """One change of an existing order under its key."""
        order = self.find_order(order_id)

        def perform(claim: Claim) -> Answer:
            return answer_change(
                change(order, claim) if claim.is_new else self.repeat_change(order, change, claim)
            )

        return answer_once(
            self.request,
            route=f"POST orders/{{id}}/{self.action}",
            path={"id": order_id},
            perform=perform,
            resume=lambda _: answer_change(self.resume(order)),
        )

    @property
    def drive(self) -> bool:
        """Whether this request does the work; else the sweeper does."""
        return wants_to_wait(self.request)

    def resume(self, order: Order) -> Order:
        return services.resume_order(order) if self.drive else services.find_order(order.pk)

    def repeat_change(self, order: Order, change: Change, claim: Claim) -> Order:
        """The first request died before it began anything that we know; a change refused now was made then."""
        resumed = self.resume(order)
        try:
            return change(resumed, claim)
        except ConflictError:
            return services.find_order(order.pk)

    def resume_refund(self, order: Order, refund_id: str) -> Operation:
        self.resume(order)
        refunds = Operation.objects.refunds().select_related("payment")
        return refunds.get(payment__order=order, pk=refund_id)


class RefundView(StorefrontView):
    queryset = Operation.objects.select_related("payment")
    serializer_class = RefundProjection
    required_scopes = {"retrieve": Scope.ORDERS_READ}

    @extend_schema(summary="Read a refund", responses=RefundProjection)
    def retrieve(self, request: Request, pk: str) -> Response:
        mine = (
            Operation.objects.refunds().filter(payment__order__client=self.client).select_related("payment")
        )
        return Response(render_refund(self.find_or_404(mine, pk, "re")))


class PaymentView(StorefrontView):
    queryset = Payment.objects.select_related("account", "order")
    serializer_class = PaymentProjection
    required_scopes = {"retrieve": Scope.ORDERS_READ}

    @extend_schema(summary="Read a payment", responses=PaymentProjection)
    def retrieve(self, request: Request, pk: str) -> Response:
        mine = self.get_queryset().filter(order__client=self.client)
        return Response(render_payment(self.find_or_404(mine, pk, "pay")))


class EventView(StorefrontView):
    queryset = Event.objects.all()
    serializer_class = EventProjection
    filterset_class = EventFilter
    required_scopes = {"list": Scope.EVENTS_READ}

    @extend_schema(summary="List what the webhooks said", responses=EventProjection(many=True))
    def list(self, request: Request) -> Response:
        return self.list_page(self.get_queryset().filter(client=self.client, is_public=True), EventProjection)


class UnknownAddressView(StorefrontView):
    """Whatever else is asked for below /api/v1/."""

    permission_classes = []
    list_actions = ("answer",)

    @extend_schema(exclude=True)
    def answer(self, request: Request) -> Response:
        raise NotFound("There is no such address.")
