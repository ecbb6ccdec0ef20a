"""Finds the inventory and shipping backends that settings name."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from django.conf import settings
from django.utils.module_loading import import_string  # noqa: TID251 - this is the resolver

from payments.fulfilment.base import Inventory, Shipping


@cache
def _load(path: str) -> Any:
    return import_string(path)()


def get_inventory() -> Inventory:
    return cast(Inventory, _load(settings.INVENTORY_BACKEND))


def get_shipping() -> Shipping:
    return cast(Shipping, _load(settings.SHIPPING_BACKEND))
