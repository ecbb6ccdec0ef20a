"""The refund: one reserved refund is sent, and the gateway says how it ends."""

from __future__ import annotations

from typing import Any

from payments.sagas.effects import Refund
from payments.sagas.recipe import Context, Recipe, step


def say_nothing(context: Context) -> None:
    """The refund's own events have told it all."""


def say_failed(context: Context, cause: dict[str, Any]) -> None:
    """A refused refund undoes nothing; the facts have released its reservation."""


REFUND = Recipe(
    kind="refund",
    version=1,
    steps=[step("refund", do=Refund())],
    completed=say_nothing,
    compensated=say_failed,
)
