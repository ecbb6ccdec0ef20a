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
from payments.api.samples import add_sample, write_curl
from payments.events import CATALOGUE, EventType
from payments.models.client import Scope

PROBLEM_TYPE = "application/problem+json"
_ALWAYS = {
    "401": "The API key is missing, wrong, expired or revoked.",
    "403": "The API key lacks the scope.",
    "406": "Only JSON can be answered.",
    "429": "Too many requests: wait for `Retry-After`.",
    "500": "Our fault. Quote the request id.",
    "503": "Not available now: send the same request again.",
}
_GET = {"400": "A query parameter is not valid."}
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
    {"type": "string", "pattern": "^[!-~]{16,255}$", "example": "order-1001-first-try"},
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
_PREFER = OpenApiParameter(
    "Prefer",
    str,
    OpenApiParameter.HEADER,
    description="`respond-async`: answer 202 at once, and do the work afterwards (RFC 7240).",
)
_APPLIED = OpenApiParameter(
    "Preference-Applied", str, OpenApiParameter.HEADER, response=[202], description="`respond-async`."
)
_RATE_LIMIT = OpenApiParameter(
    "RateLimit",
    str,
    OpenApiParameter.HEADER,
    response=True,
    description='`"key";r=99;t=1`: calls left, and seconds until there are all of them again.',
)
_RATE_LIMIT_POLICY = OpenApiParameter(
    "RateLimit-Policy",
    str,
    OpenApiParameter.HEADER,
    response=True,
    description='`"key";q=100;w=1`: calls per key, and the seconds of their window.',
)
_REQUEST_ID = OpenApiParameter("X-Request-ID", str, OpenApiParameter.HEADER, response=True)


def add_webhooks(result: dict[str, Any], **generation: Any) -> dict[str, Any]:
    """The `webhooks` of OpenAPI 3.1: the messages that an endpoint gets. settings.SPECTACULAR_SETTINGS names it."""
    result["webhooks"] = {kind.name: {"post": _describe_message(kind)} for kind in CATALOGUE.values()}
    return result


def _describe_message(kind: EventType) -> dict[str, Any]:
    content = {"schema": kind.schema, "examples": {kind.name: {"value": kind.example}}}
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {
        "operationId": f"message_{kind.name.replace('.', '_')}",
        "summary": kind.name,
        "description": kind.description,
        "tags": ["messages"],
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}} for name in names
        ],
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {"2XX": {"description": "Taken. Anything else is tried again, for three days."}},
    }


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema names the bearer keys, and the tokens that they are exchanged for."""

    target_class = ApiKeyAuthentication
    name = ["apiKey", "accessToken"]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, Any]]:
        flow = {"tokenUrl": "/api/v1/oauth/token", "scopes": dict(Scope.choices)}
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key: `manage.py create_api_client` prints one.",
            },
            {
                "type": "oauth2",
                "description": "An access token, got for an API key; lives ten minutes.",
                "flows": {"clientCredentials": flow},
            },
        ]

    def get_security_requirement(self, auto_schema: AutoSchema) -> list[dict[str, list[str]]]:
        scope = getattr(auto_schema.view, "required_scopes", {}).get(getattr(auto_schema.view, "action", ""))
        return [{"apiKey": []}, {"accessToken": [scope] if scope else []}]


class ProblemAutoSchema(AutoSchema):
    """DRF's views as they really answer; a view whose POSTs want a key says `needs_idempotency_key`."""

    def get_operation(self, *args: Any) -> dict[str, Any] | None:
        operation: dict[str, Any] | None = super().get_operation(*args)
        if operation is not None:
            sample = getattr(self.view, "sample", "") or write_curl(self.method, self.path, operation)
            add_sample(operation, sample)
        return operation

    def get_override_parameters(self) -> list[Any]:
        always = [*super().get_override_parameters(), _REQUEST_ID, _RATE_LIMIT, _RATE_LIMIT_POLICY]
        return [*always, _IDEMPOTENCY_KEY, _REPLAYED, _PREFER, _APPLIED] if self._needs_key() else always

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
        if not getattr(self.view, "answers_problems", True):
            return responses
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
        else:
            problems |= _GET
        if "{" in self.path:
            problems |= _OBJECT
        own: dict[str, dict[str, str]] = getattr(self.view, "own_problems", {})  # by action
        return problems | own.get(getattr(self.view, "action", ""), {})

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if isinstance(serializer, ClosedSerializer) or (
            isinstance(serializer, type) and issubclass(serializer, ClosedSerializer)
        ):
            schema["additionalProperties"] = False
        return schema
