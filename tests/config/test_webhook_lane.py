"""The lane that takes gateway deliveries to their view: known paths once, unknown ones never."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import Resolver404

from config.middleware import resolve_in_lane


def test_a_known_path_is_looked_up_once() -> None:
    match = resolve_in_lane("/webhooks/stripe/default/")
    assert (match.kwargs["gateway"], match.kwargs["account"]) == ("stripe", "default")
    assert resolve_in_lane("/webhooks/stripe/default/") is match
    assert resolve_in_lane("/webhooks/stripe/other/").kwargs["account"] == "other"


def test_a_path_that_leads_nowhere_is_not_remembered() -> None:
    before = resolve_in_lane.cache_info().currsize
    with pytest.raises(Resolver404):
        resolve_in_lane("/webhooks/a/b/c/d/")
    assert resolve_in_lane.cache_info().currsize == before


@pytest.mark.django_db
def test_an_answer_has_the_id_that_the_caller_gave(client: Client) -> None:
    answer = client.get("/webhooks/stripe/default/", headers={"X-Request-ID": "caller-0001"})
    assert answer.headers["X-Request-ID"] == "caller-0001"
