"""`manage.py create_api_client`."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from payments.api.authentication import find_key
from payments.models import ApiClient


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("create_api_client", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue().strip()


@pytest.mark.django_db
def test_it_prints_a_key_that_works_and_nothing_else() -> None:
    secret = run("Shop", "--scope", "orders:read", "--scope", "orders:write")
    key = find_key(secret)
    assert (key.client.name, key.scopes, key.expiry_date) == ("Shop", ["orders:read", "orders:write"], None)


@pytest.mark.django_db
def test_a_second_key_belongs_to_the_same_client() -> None:
    first, second = (
        run("Shop", "--scope", "orders:read"),
        run("Shop", "--scope", "orders:read", "--expires-in-days", "7"),
    )
    assert first != second
    assert find_key(first).client == find_key(second).client == ApiClient.objects.get()
    assert find_key(second).expiry_date is not None


@pytest.mark.django_db
@pytest.mark.parametrize(
    "arguments",
    [
        ("Shop",),
        ("Shop", "--scope", "everything"),
        ("Shop", "--scope", "orders:read", "--expires-in-days", "0"),
    ],
)
def test_a_wrong_call_makes_nothing(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)
    assert not ApiClient.objects.exists()
