"""The limit of the receipt benchmark: a bare Django view that inserts the raw body with one SQL statement."""

from __future__ import annotations

import os
import uuid

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.receipt_peer_settings"

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from django.db import connection  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402


@csrf_exempt
def insert(request: HttpRequest, **_: str) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO bench_receipt (id, event_id, body) VALUES (%s, %s, %s) ON CONFLICT (event_id) DO NOTHING",
            [uuid.uuid4(), uuid.uuid4().hex, request.body],
        )
    return HttpResponse(b'{"received":true}', content_type="application/json")


urlpatterns = [path("webhooks/<gateway>/<account>/", insert)]
