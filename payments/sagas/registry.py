"""Every recipe that this deployment can run, by kind and version."""

from __future__ import annotations

from payments.errors import UnknownDefinitionError
from payments.sagas.checkout import CHECKOUT
from payments.sagas.later import CANCEL, CAPTURE, CAPTURE_1, RELEASE, UNDO_LATE
from payments.sagas.recipe import Recipe
from payments.sagas.refund import REFUND

RECIPES: dict[tuple[str, int], Recipe] = {
    (recipe.kind, recipe.version): recipe
    for recipe in (CHECKOUT, REFUND, CAPTURE, CAPTURE_1, CANCEL, RELEASE, UNDO_LATE)
}


def find_recipe(kind: str, version: int) -> Recipe:
    """Raises `UnknownDefinitionError` when a run began with a definition that is not deployed any more."""
    try:
        return RECIPES[kind, version]
    except KeyError:
        raise UnknownDefinitionError(f"saga {kind} version {version} is not deployed") from None
