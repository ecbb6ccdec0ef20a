"""OpenAPI 3.1: closed objects, bearer keys, and the problems that each operation may answer."""

from __future__ import annotations

import inspect
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter

from payments.api.authentication import ApiKeyAuthentication
from payments.api.fields import ClosedSerializer
from payments.api.projections import ProblemProjection

PROBLEM_TYPE = "application/problem+json"
_ALWAYS = {
    "401": "The API key is missing, wrong, expired or revoked.",
    "403": "The API key lacks the scope.",
    "406": "Only JSON can be answered.",
    "429": "Too many requests: wait for `Retry-After`.",
    "500": "Our fault. Quote the request id.",
    "503": "Not available now: send the same request again.",
}
_GET_LIST = {"400": "A query parameter is not valid."}
_OBJECT = {"404": "There is no such object, or it is another client's."}
_POST = {
    "400": "The request is not valid, or lacks its Idempotency-Key.",
    "402": "The card was declined; `order` names the order.",
    "403": "The API key lacks the scope, or the order was refused (`fraud_blocked`).",
    "409": "The object's state does not allow this, or the first request with this key is in progress.",
    "413": "The body is larger than 64 KiB.",
    "415": "Only uncompressed UTF-8 JSON is understood.",
    "422": "The key came with another payload, or the body holds card data.",
}
_IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 16, "maxLength": 257},
    OpenApiParameter.HEADER,
    required=True,
    description="16 to 255 printable ASCII characters, bare or quoted. The same key gets the same answer.",
)
_REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    {"type": "string", "enum": ["true"]},
    OpenApiParameter.HEADER,
    response=True,
    description="Present when this is the stored answer of an earlier request.",
)
_REQUEST_ID = OpenApiParameter("X-Request-ID", str, OpenApiParameter.HEADER, response=True)


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema names the bearer keys."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "`manage.py create_api_client` prints a key.",
        }


class ProblemAutoSchema(AutoSchema):
    """DRF's views as they really answer; a view whose POSTs want a key says `needs_idempotency_key`."""

    def get_override_parameters(self) -> list[Any]:
        parameters = [*super().get_override_parameters(), _REQUEST_ID]
        return [*parameters, _IDEMPOTENCY_KEY, _REPLAYED] if self._needs_key() else parameters

    def get_serializer_name(self, serializer: Any, direction: Any) -> str:
        """`OrderRequest` and `OrderProjection` are `OrderRequest` and `Order` in the schema."""
        return (
            str(super().get_serializer_name(serializer, direction))
            .removesuffix("Projection")
            .removesuffix("Request")
        )

    def get_operation_id(self) -> str:
        """`order_confirm`: the noun, then the action of the view."""
        noun = self._tokenize_path()[0].removesuffix("s").replace("-", "_")
        return f"{noun}_{getattr(self.view, 'action', self.method.lower())}"

    def get_description(self) -> str:  # type: ignore[override]  # as drf-spectacular itself has it
        """Of the action alone: the base view's docstring speaks to us."""
        action = getattr(self.view, getattr(self.view, "action", None) or self.method.lower(), None)
        return inspect.getdoc(action) or "" if action else ""

    def get_tags(self) -> list[str]:
        return [self._tokenize_path()[0]]

    def _needs_key(self) -> bool:
        return self.method == "POST" and bool(getattr(self.view, "needs_idempotency_key", False))

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        responses: dict[str, Any] = super()._get_response_bodies(direction)
        for status, description in sorted(self._list_problems().items()):
            problem: dict[str, Any] = self._get_response_for_code(  # type: ignore[no-untyped-call]
                ProblemProjection, status, [PROBLEM_TYPE], direction
            )
            responses.setdefault(status, problem | {"description": description})
        return responses

    def _list_problems(self) -> dict[str, str]:
        problems = dict(_ALWAYS)
        if self.method in ("POST", "PUT", "PATCH"):
            problems |= _POST
        if self._is_list_view():
            problems |= _GET_LIST
        if "{" in self.path:
            problems |= _OBJECT
        return problems

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if isinstance(serializer, ClosedSerializer) or (
            isinstance(serializer, type) and issubclass(serializer, ClosedSerializer)
        ):
            schema["additionalProperties"] = False
        return schema
