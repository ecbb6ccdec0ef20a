"""How every back end reckons alike: whole numbers as they are, fractions in whole millionths."""

from __future__ import annotations

from fraud.language import tree, values
from fraud.language.vocabulary import FRACTIONS

MILLION = 1_000_000
MAX_SCORE = 1_000_000_000  # a score beyond cannot be reckoned with: unknown


def scale_of(*sides: tree.Node) -> int:
    """What both sides of a comparison are multiplied by: a million where something with a fraction is added up.

    Sums of doubles would differ from sums of decimals; sums of millionths are exact everywhere. A comparison without
    a sum needs none of it: a number of 15 digits compares with a double as with its shortest decimal form.
    """
    nodes = [node for side in sides for node in tree.walk(side)]
    has_sum = any(isinstance(node, tree.Arithmetic) for node in nodes)
    return MILLION if has_sum and any(map(_is_fraction, nodes)) else 1


def scaled(value: values.Number, scale: int) -> values.Number:
    """A constant in the comparison's scale, whole if it is scaled."""
    return value if scale == 1 else int(value * scale)


def _is_fraction(node: tree.Node) -> bool:
    if isinstance(node, tree.Reference):
        return node.name in FRACTIONS
    return isinstance(node, tree.Number | tree.Parameter) and not isinstance(node.value, int | str | tuple)
