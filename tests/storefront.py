"""A storefront that calls the API with one key, and the judge of its problems."""

from __future__ import annotations

import json
import secrets
from typing import Any

from django.test import Client

ORDER: dict[str, Any] = {
    "reference": "web-1001",
    "amount": 12950,
    "currency": "EUR",
    "payment_method": "pm_card_visa",
    "capture": "automatic",
    "return_url": "https://shop.example/return",
    "customer": {"id": "cus_42", "email": "buyer@example.com", "created_at": "2026-01-05T10:00:00Z"},
    "billing": {"country": "DE", "postal_code": "10115"},
    "shipping": {"country": "DE"},
    "lines": [{"sku": "MUG-1", "quantity": 2, "unit_amount": 6475}],
    "context": {"ip": "198.51.100.7", "user_agent": "Mozilla/5.0", "device": "d_abc"},
    "metadata": {"cart": "c-9"},
}


class Storefront:
    """Calls the API with one key; every POST gets a fresh Idempotency-Key unless it brings its own."""

    def __init__(self, key: Any) -> None:
        self.key = key
        self.client = key.client if key else None
        self.http = Client(raise_request_exception=True)

    def get(self, path: str, **headers: str) -> Any:
        return self.http.get(f"/api/v1/{path}", headers=self._headers(headers))

    def delete(self, path: str, **headers: str) -> Any:
        return self.http.delete(f"/api/v1/{path}", headers=self._headers(headers))

    def patch(self, path: str, body: Any, **headers: str) -> Any:
        return self.http.patch(
            f"/api/v1/{path}",
            data=json.dumps(body),
            content_type="application/json",
            headers=self._headers(headers),
        )

    def post(self, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Any:
        content_type = headers.pop("content_type", "application/json")
        data = raw if raw is not None else json.dumps({} if body is None else body).encode()
        headers.setdefault("idempotency_key", secrets.token_hex(16))
        return self.http.post(
            f"/api/v1/{path}", data=data, content_type=content_type, headers=self._headers(headers)
        )

    def _headers(self, extra: dict[str, str]) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.key.secret}"} if self.key else {}
        return headers | {name.replace("_", "-"): value for name, value in extra.items() if value}


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem of this kind, complete."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"/api/docs/errors#{code}"
    assert problem["request_id"] == response["X-Request-ID"]
    assert problem["title"]
    assert problem["detail"]
    return problem
