"""What a tree may not say although its form is right: types, and constants that nothing can equal."""

from __future__ import annotations

from collections.abc import Iterator

from fraud.facts import FactType
from fraud.language import tree
from fraud.language.errors import LanguageError, quote, suggest
from fraud.language.render import render
from fraud.language.vocabulary import possible_values

_ORDERED = (FactType.NUMBER, FactType.MONEY, FactType.TIME)


def check(root: tree.Node) -> list[LanguageError]:
    """All errors of the tree; none means that every back end can run it."""
    errors = list(_must_be(root, FactType.BOOLEAN, "a rule is a condition that is true or false"))
    for node in tree.walk(root):
        errors.extend(_check_node(node))
    return errors


def _check_node(node: tree.Node) -> Iterator[LanguageError]:
    match node:
        case tree.And(operands) | tree.Or(operands):
            for operand in operands:
                yield from _must_be(operand, FactType.BOOLEAN, "and, or and not join conditions")
        case tree.Not(operand):
            yield from _must_be(operand, FactType.BOOLEAN, "and, or and not join conditions")
        case tree.Compare(operator, left, right):
            yield from _check_alike(left, right, is_ordered=operator not in ("==", "!="))
            yield from _check_constants(left, (right,))
            yield from _check_constants(right, (left,))
        case tree.Between(subject, low, high):
            for end in (low, high):
                yield from _check_alike(subject, end, is_ordered=True)
        case tree.Member(subject, choices):
            yield from _check_member(subject, choices)
        case tree.Arithmetic(_, left, right):
            yield from _check_arithmetic(left, right)
        case tree.Known(operand):
            if tree.is_constant(operand) and not _is_broken(operand):
                yield LanguageError("this is always known", operand.column)
        case tree.TextTest(function, subject, _):
            yield from _must_be(subject, FactType.TEXT, f"{function} looks into a text")
        case tree.Lower(operand):
            yield from _must_be(operand, FactType.TEXT, "lower takes a text")
        case tree.DaysSince(time):
            yield from _must_be(time, FactType.TIME, "days_since takes a time")


def _check_alike(left: tree.Node, right: tree.Node, *, is_ordered: bool) -> Iterator[LanguageError]:
    kinds = [tree.type_of(left), tree.type_of(right)]
    lists = [node for node in (left, right) if _is_list(node)]
    if lists:
        yield _list_out_of_place(lists[0])
    elif None in kinds:
        return
    elif kinds[0] != kinds[1]:
        message = f"cannot compare {_describe(left)} with {_describe(right)}"
        yield LanguageError(message, right.column, _suggest_money(left, right))
    elif is_ordered and kinds[0] not in _ORDERED:
        yield LanguageError(f"{_describe(left)} has no order: use == or !=", left.column)


def _check_member(subject: tree.Node, choices: tuple[tree.Node, ...]) -> Iterator[LanguageError]:
    kind = tree.type_of(subject)
    if kind not in (None, FactType.NUMBER, FactType.TEXT):
        yield LanguageError(f"{_describe(subject)} is not compared with lists", subject.column)
        return
    if len(choices) == 1 and _is_list(choices[0]):
        if kind is FactType.NUMBER:
            yield LanguageError(f"cannot compare {_describe(subject)} with texts", choices[0].column)
    else:
        for choice in choices:
            yield from _check_alike(subject, choice, is_ordered=False)
    yield from _check_constants(subject, choices)


def _check_arithmetic(left: tree.Node, right: tree.Node) -> Iterator[LanguageError]:
    kinds = [tree.type_of(left), tree.type_of(right)]
    for node, kind in zip((left, right), kinds, strict=True):
        if _is_list(node):
            yield _list_out_of_place(node)
            return
        if kind not in (None, FactType.NUMBER, FactType.MONEY):
            yield LanguageError(f"cannot reckon with {_describe(node)}", node.column)
            return
    if None not in kinds and kinds[0] != kinds[1]:
        message = f"cannot reckon {_describe(left)} with {_describe(right)}"
        yield LanguageError(message, right.column, _suggest_money(left, right))


def _check_constants(subject: tree.Node, constants: tuple[tree.Node, ...]) -> Iterator[LanguageError]:
    """A country or an answer that does not exist would only make the rule silent."""
    possible = possible_values(subject.name) if isinstance(subject, tree.Reference) else frozenset()
    for constant in constants if possible else ():
        if isinstance(constant, tree.Text | tree.Parameter):
            for text in tree.texts_of(constant):
                if text not in possible:
                    message = f"{render(subject)} is never {quote(text)}"
                    yield LanguageError(message, constant.column, suggest(text, possible))


def _must_be(node: tree.Node, kind: FactType, rule: str) -> Iterator[LanguageError]:
    if _is_list(node):
        yield _list_out_of_place(node)
    elif tree.type_of(node) not in (None, kind):
        yield LanguageError(f"{rule}, not {_describe(node)}", node.column)


def _suggest_money(left: tree.Node, right: tree.Node) -> str:
    is_number = isinstance(right, tree.Number) and right.value >= 0
    return f'money("{render(right)} EUR")' if is_number and tree.type_of(left) is FactType.MONEY else ""


def _describe(node: tree.Node) -> str:
    kind = tree.type_of(node)
    return f"{quote(render(node))} ({kind.value if kind else 'list'})"


def _is_list(node: tree.Node) -> bool:
    return isinstance(node, tree.Parameter) and isinstance(node.value, tuple)


def _is_broken(node: tree.Node) -> bool:
    return any(isinstance(each, tree.Broken) for each in tree.walk(node))


def _list_out_of_place(node: tree.Node) -> LanguageError:
    name = render(node)
    return LanguageError(f"{name} is a list: write `in {name}`", node.column)
