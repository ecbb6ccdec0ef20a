"""The panels that neighbours show on the order page, without the floor knowing them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.db import DatabaseError, transaction
from django.http import HttpRequest
from django.utils.safestring import SafeString

from payments.models import Order

Render = Callable[[Order, HttpRequest], SafeString | None]
log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Panel:
    """One titled box; `order` says where, the lowest first."""

    title: str
    order: int
    render: Render


@dataclass(frozen=True, slots=True)
class ShownPanel:
    title: str
    content: SafeString


_panels: dict[str, Panel] = {}


def panel(title: str, *, order: int) -> Callable[[Render], Render]:
    """Show what the decorated function returns on every order page; None shows nothing.

    The function checks the user's permissions itself. Registering the same title again replaces it.
    """

    def register(render: Render) -> Render:
        _panels[title] = Panel(title, order, render)
        return render

    return register


def render_panels(order: Order, request: HttpRequest) -> list[ShownPanel]:
    """Every panel with something to show. A panel whose query fails says so and takes no other with it."""
    shown = []
    for item in sorted(_panels.values(), key=lambda item: (item.order, item.title)):
        content = _render_safely(item, order, request)
        if content:
            shown.append(ShownPanel(item.title, content))
    return shown


def _render_safely(item: Panel, order: Order, request: HttpRequest) -> SafeString | None:
    try:
        with transaction.atomic():
            return item.render(order, request)
    except DatabaseError:
        log.exception("panel_failed", panel=item.title, order_id=order.pk)
        return SafeString("<p>This panel could not be read. Nothing was changed; the log says why.</p>")
