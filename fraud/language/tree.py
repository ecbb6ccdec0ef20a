"""A rule as one tree of frozen nodes, which every back end reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from fraud.facts import FACTS, FactType, VelocityKey
from fraud.language import values

ParameterValue = values.Number | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """`column` is where it begins in the text, from 1; 0 for nodes that were not read from a text."""

    column: int = field(default=0, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Broken(Node):
    """Stands for what could not be read, so that the rest can still be checked. In no finished tree."""


@dataclass(frozen=True, slots=True)
class Number(Node):
    value: values.Number


@dataclass(frozen=True, slots=True)
class Text(Node):
    value: str


@dataclass(frozen=True, slots=True)
class Boolean(Node):
    value: bool


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """`{name}`: a constant that is kept apart from the rule. Only a list stands for several texts."""

    name: str
    value: ParameterValue


@dataclass(frozen=True, slots=True)
class Reference(Node):
    """A fact by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Velocity(Node):
    key: VelocityKey


@dataclass(frozen=True, slots=True)
class Listed(Node):
    """Something of this order is on the list; of one kind, or of any."""

    list: str
    kind: str = ""

    @property
    def name(self) -> str:
        """As in `FraudContext.listed`: `block` or `block.email`."""
        return f"{self.list}.{self.kind}" if self.kind else self.list


@dataclass(frozen=True, slots=True)
class Amounts(Node):
    """money(...): the amount that is given in the order's currency, else unknown."""

    arguments: tuple[Text | Parameter, ...]

    @property
    def by_currency(self) -> dict[str, int]:
        """Minor units."""
        amounts = [values.read_amount(text) for argument in self.arguments for text in texts_of(argument)]
        return {amount.currency: amount.minor for amount in amounts}


@dataclass(frozen=True, slots=True)
class DaysSince(Node):
    """Whole days from a time fact to the screening, rounded down."""

    time: Reference


@dataclass(frozen=True, slots=True)
class TextTest(Node):
    """starts_with, ends_with or contains, for A to Z in either case."""

    function: str
    subject: Node
    needle: Text | Parameter


@dataclass(frozen=True, slots=True)
class Lower(Node):
    operand: Node


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    operator: str  # + -
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Compare(Node):
    operator: str  # == != < <= > >=
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Member(Node):
    """`in`, or `not in` when negated. The choices are constants; or one parameter that is a list."""

    subject: Node
    choices: tuple[Node, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Between(Node):
    """Both ends included."""

    subject: Node
    low: Node
    high: Node


@dataclass(frozen=True, slots=True)
class Known(Node):
    """`is known`, or `is unknown` when negated: the only question that is never unknown itself."""

    operand: Node
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Not(Node):
    operand: Node


@dataclass(frozen=True, slots=True)
class And(Node):
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or(Node):
    operands: tuple[Node, ...]


CONDITIONS = (Boolean, Listed, TextTest, Compare, Member, Between, Known, Not, And, Or)


def children(node: Node) -> Iterator[Node]:
    """The nodes right below, from left to right."""
    for each in fields(node):
        value = getattr(node, each.name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Node))


def walk(node: Node) -> Iterator[Node]:
    """The node and all below."""
    yield node
    for child in children(node):
        yield from walk(child)


def type_of(node: Node) -> FactType | None:
    """None for what is broken, and for a parameter that is a list."""
    match node:
        case Reference(name):
            return FACTS[name].type if name in FACTS else None
        case Velocity(key):
            return FactType.MONEY if key.measure == "sum" else FactType.NUMBER
        case Number() | DaysSince():
            return FactType.NUMBER
        case Text() | Lower():
            return FactType.TEXT
        case Amounts():
            return FactType.MONEY
        case Arithmetic(left=left, right=right):
            return type_of(left) or type_of(right)
        case Parameter(value=value):
            return _type_of_value(value)
        case _ if isinstance(node, CONDITIONS):
            return FactType.BOOLEAN
    return None


def _type_of_value(value: ParameterValue) -> FactType | None:
    if isinstance(value, tuple):
        return None
    return FactType.TEXT if isinstance(value, str) else FactType.NUMBER


def is_constant(node: Node) -> bool:
    """The same for every order."""
    return not any(isinstance(each, Reference | Velocity | Listed | Amounts) for each in walk(node))


def texts_of(node: Text | Parameter) -> tuple[str, ...]:
    """The texts that a literal or a parameter stands for."""
    value = node.value
    if isinstance(value, tuple):
        return value
    return (value,) if isinstance(value, str) else ()
