"""The endpoints of customers and their saved payment methods, with what they take and what they show."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from payments import ids, services
from payments.api.fields import ClosedSerializer, EmailField, TextField
from payments.api.projections import CustomerProjection
from payments.api.views import StorefrontView
from payments.models import Customer, SavedPaymentMethod
from payments.models.client import Scope

REASON = "Asked for by the storefront."


# --- what comes in and goes out -----------------------------------------------------------------------------


class CustomerIdField(TextField):
    """The storefront's own id: part of an address, so without a slash or a blank at its ends."""

    default_error_messages = {"id": "Printable, without a slash, and not one of ours for the erased."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=100, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if not text.isprintable() or "/" in text or text in (".", "..") or text.startswith("erased:"):
            self.fail("id")
        return text


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A customer",
            request_only=True,
            value={"id": "cus_42", "email": "buyer@example.com", "name": "Bea Buyer"},
        )
    ]
)
class NewCustomerRequest(ClosedSerializer):
    """A customer to keep, by your own id."""

    id = CustomerIdField(help_text="Your own id.")
    email = EmailField(required=False, max_length=254, allow_blank=True, default="")
    name = TextField(required=False, max_length=200, allow_blank=True, default="")


class SavedPaymentMethodProjection(ClosedSerializer):
    """A card on file. `id` is what an order names as its `payment_method`."""

    id = serializers.CharField()
    brand = serializers.CharField(allow_blank=True)
    last4 = serializers.CharField(allow_blank=True)
    exp_month = serializers.IntegerField(allow_null=True)
    exp_year = serializers.IntegerField(allow_null=True)
    gateway = serializers.CharField(source="account.gateway")
    created_at = serializers.DateTimeField()


class ErasureProjection(ClosedSerializer):
    """How far the erasure of a customer has come."""

    state = serializers.ChoiceField(choices=["erasing", "erased"])
    open_orders = serializers.IntegerField(help_text="Orders that are not finished, or disputed.")
    open_tokens = serializers.IntegerField(help_text="Tokens that a gateway has not deleted yet.")


# --- the endpoints ------------------------------------------------------------------------------------------


class CustomerView(StorefrontView):
    queryset = Customer.objects.known()
    serializer_class = CustomerProjection
    required_scopes = {
        "list": Scope.CUSTOMERS_WRITE,
        "create": Scope.CUSTOMERS_WRITE,
        "retrieve": Scope.CUSTOMERS_WRITE,
        "erase": Scope.CUSTOMERS_WRITE,
        "list_payment_methods": Scope.CUSTOMERS_WRITE,
        "remove_payment_method": Scope.CUSTOMERS_WRITE,
    }

    def get_queryset(self) -> QuerySet[Customer]:
        return super().get_queryset().filter(client=self.client)

    def find_customer(self, storefront_id: str) -> Customer:
        try:
            return services.find_customer(self.client, storefront_id)
        except Customer.DoesNotExist:
            raise NotFound("There is no such object.") from None

    @extend_schema(summary="List customers, newest first", responses=CustomerProjection(many=True))
    def list(self, request: Request) -> Response:
        return self.list_page(self.get_queryset(), CustomerProjection)

    @extend_schema(
        summary="Keep a customer, or bring one up to date",
        request=NewCustomerRequest,
        responses={
            200: OpenApiResponse(CustomerProjection, description="Known before; what was given is new."),
            201: CustomerProjection,
        },
    )
    def create(self, request: Request) -> Response:
        """Needs no Idempotency-Key: your own id is one."""
        valid = self.read(NewCustomerRequest).validated_data
        customer, is_new = services.find_or_create_customer(self.client, valid.pop("id"), **valid)
        return Response(CustomerProjection(customer).data, status=201 if is_new else 200)

    @extend_schema(summary="Read a customer", responses=CustomerProjection)
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(CustomerProjection(self.find_customer(pk)).data)

    @extend_schema(
        summary="Erase a customer",
        request=None,
        responses={
            200: ErasureProjection,
            202: OpenApiResponse(ErasureProjection, description="It goes on by itself; ask again to see."),
        },
    )
    def erase(self, request: Request, pk: str) -> Response:
        """Tokens, e-mail, name, addresses and traces go; amounts and ids stay for the books. Safe to repeat."""
        try:
            customer = services.find_customer_to_erase(self.client, pk)
        except Customer.DoesNotExist:
            raise NotFound("There is no such object.") from None
        erasure = services.erase_customer(customer, actor=self.actor, reason=REASON)
        shown = {
            "state": "erased" if erasure.is_done else "erasing",
            "open_orders": erasure.open_orders,
            "open_tokens": erasure.open_tokens,
        }
        return Response(ErasureProjection(shown).data, status=200 if erasure.is_done else 202)

    @extend_schema(
        summary="List a customer's saved payment methods",
        responses=SavedPaymentMethodProjection(many=True),
    )
    def list_payment_methods(self, request: Request, pk: str) -> Response:
        methods = services.list_payment_methods(self.find_customer(pk))
        return self.list_page(methods, SavedPaymentMethodProjection)

    @extend_schema(
        summary="Remove a saved payment method",
        request=None,
        responses={204: OpenApiResponse(description="Unusable from now on; its gateway is told.")},
    )
    def remove_payment_method(self, request: Request, pk: str, method_id: str) -> Response:
        """Safe to repeat: one that is removed already gets the same answer."""
        customer = self.find_customer(pk)
        mine = SavedPaymentMethod.objects.filter(customer=customer).select_related("account")
        method = mine.filter(pk=method_id).first() if ids.is_id(method_id, "spm") else None
        if method is None:
            raise NotFound("There is no such object.")
        services.remove_payment_method(method)
        return Response(status=204)


urlpatterns = [
    path("customers", CustomerView.as_view({"get": "list", "post": "create"}), name="customers"),
    path("customers/<str:pk>", CustomerView.as_view({"get": "retrieve", "delete": "erase"}), name="customer"),
    path(
        "customers/<str:pk>/payment_methods",
        CustomerView.as_view({"get": "list_payment_methods"}),
        name="customer-payment-methods",
    ),
    path(
        "customers/<str:pk>/payment_methods/<str:method_id>",
        CustomerView.as_view({"delete": "remove_payment_method"}),
        name="customer-payment-method",
    ),
]
