"""From a rule's text to its tree, by recursive descent with bounds on everything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from fraud.facts import FACTS
from fraud.language import calls, tree, values
from fraud.language.errors import LanguageError, quote, suggest
from fraud.language.lexer import Token, suggest_keyword, tokenize

MAX_DEPTH = 32
MAX_NODES = 200
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")


class Parser:
    """Reads one text once. A wrong form ends it; a wrong name or constant is noted, and reading goes on.

    rule       = all {"or" all}
    all        = opposite {"and" opposite}
    opposite   = "not" opposite | comparison
    comparison = sum [operator sum | ["not"] "in" choices | "between" sum "and" sum | "is" ("known" | "unknown")]
    sum        = operand {("+" | "-") operand}
    operand    = number | "-" number | text | "true" | "false" | {parameter} | fact | function | "(" rule ")"
    """

    def __init__(
        self, text: str, parameters: Mapping[str, tree.ParameterValue], names: Collection[str] = ()
    ) -> None:
        self._tokens = tokenize(text)
        self._parameters = parameters
        self._names = names or parameters  # of all parameters that there are, to suggest one
        self._position = 0
        self._depth = 0
        self.errors: list[LanguageError] = []
        self.steps = 0  # tokens looked at, the measure of the work done

    def parse(self) -> tree.Node:
        """The whole text as one tree, which may be broken: see `errors`. Raises `LanguageError` for a wrong form."""
        node = self._rule()
        if self._here.kind != "end":
            raise self._unexpected("and, or, or the end")
        return node

    @property
    def _here(self) -> Token:
        return self._tokens[self._position]

    def _take(self) -> Token:
        token = self._here
        self._position += token.kind != "end"
        self.steps += 1
        return token

    def _accept(self, *texts: str) -> Token | None:
        token = self._here
        is_wanted = token.kind in ("keyword", "operator") and token.text in texts
        return self._take() if is_wanted else None

    def _expect(self, text: str) -> Token:
        token = self._accept(text)
        if token is None:
            raise self._unexpected(quote(text))
        return token

    def _unexpected(self, wanted: str) -> LanguageError:
        token = self._here
        meant = suggest_keyword(token.text) if token.kind == "name" else ""
        return LanguageError(f"expected {wanted}, found {token}", token.column, meant)

    def _deeper(self, read: Callable[[], tree.Node]) -> tree.Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise LanguageError(f"rules are nested at most {MAX_DEPTH} deep", self._here.column)
        node = read()
        self._depth -= 1
        return node

    def _rule(self) -> tree.Node:
        operands = self._separated("or", self._all)
        return (
            operands[0]
            if len(operands) == 1
            else tree.Or(_flatten(tree.Or, operands), column=operands[0].column)
        )

    def _all(self) -> tree.Node:
        operands = self._separated("and", self._opposite)
        return (
            operands[0]
            if len(operands) == 1
            else tree.And(_flatten(tree.And, operands), column=operands[0].column)
        )

    def _separated(self, keyword: str, read: Callable[[], tree.Node]) -> list[tree.Node]:
        operands = [read()]
        while self._accept(keyword):
            operands.append(read())
        return operands

    def _opposite(self) -> tree.Node:
        if token := self._accept("not"):
            return tree.Not(self._deeper(self._opposite), column=token.column)
        return self._comparison()

    def _comparison(self) -> tree.Node:
        subject = self._sum()
        node = self._tail(subject)
        if node is not subject and self._accept(*COMPARISONS, "in", "is", "between"):
            raise LanguageError("comparisons cannot be chained: join two with and", self._before.column)
        return node

    @property
    def _before(self) -> Token:
        return self._tokens[self._position - 1]

    def _tail(self, subject: tree.Node) -> tree.Node:
        column = subject.column
        if token := self._accept(*COMPARISONS):
            return tree.Compare(token.text, subject, self._sum(), column=column)
        if self._accept("between"):
            low = self._sum()
            self._expect("and")
            return tree.Between(subject, low, self._sum(), column=column)
        if self._accept("is"):
            return tree.Known(subject, self._known_or_unknown() == "unknown", column=column)
        if negation := self._accept("not"):
            self._expect("in")
        if negation or self._accept("in"):
            return tree.Member(subject, self._choices(), negation is not None, column=column)
        return subject

    def _known_or_unknown(self) -> str:
        token = self._accept("known", "unknown")
        if token is None:
            raise self._unexpected("known or unknown")
        return token.text

    def _choices(self) -> tuple[tree.Node, ...]:
        if self._here.kind == "parameter":
            return (self._parameter(self._take()),)
        self._expect("(")
        choices = [self._constant()]
        while self._accept(","):
            choices.append(self._constant())
        self._expect(")")
        return tuple(choices)

    def _constant(self) -> tree.Node:
        node = self._operand()
        if isinstance(node, tree.Parameter) and isinstance(node.value, tuple):
            self.errors.append(_list_out_of_place(node))
        elif not isinstance(node, tree.Number | tree.Text | tree.Parameter | tree.Broken):
            raise LanguageError("choices are written out: texts, numbers or {parameters}", node.column)
        return node

    def _sum(self) -> tree.Node:
        node, terms = self._operand(), 1
        while token := self._accept("+", "-"):
            terms += 1
            if self._depth + terms > MAX_DEPTH:
                raise LanguageError(f"rules are nested at most {MAX_DEPTH} deep", token.column)
            node = tree.Arithmetic(token.text, node, self._operand(), column=node.column)
        return node

    def _operand(self) -> tree.Node:
        token = self._here
        match token.kind, token.text:
            case "number", _:
                return self._number(self._take(), token.column)
            case "text", _:
                return self._text(self._take())
            case "parameter", _:
                return self._parameter(self._take())
            case "name", _:
                return self._named(self._take())
            case "operator", "-":
                return self._negative(self._take())
            case "operator", "(":
                return self._in_parentheses(self._take())
            case "keyword", "true" | "false":
                return tree.Boolean(self._take().text == "true", column=token.column)
            case _:
                raise self._unexpected("a fact, a function or a constant")

    def _number(self, token: Token, column: int, sign: int = 1) -> tree.Node:
        try:
            return tree.Number(sign * values.read_number(token.text), column=column)
        except ValueError as error:
            return self._broken(LanguageError(f"{token} is no number: {error}", token.column))

    def _negative(self, minus: Token) -> tree.Node:
        if self._here.kind != "number":
            raise LanguageError("only a number can follow a minus sign here", minus.column)
        return self._number(self._take(), minus.column, -1)

    def _text(self, token: Token) -> tree.Node:
        try:
            return tree.Text(values.check_text(token.text), column=token.column)
        except ValueError as error:
            return self._broken(LanguageError(str(error), token.column))

    def _parameter(self, token: Token) -> tree.Node:
        if token.text in self._parameters:
            return tree.Parameter(token.text, self._parameters[token.text], column=token.column)
        meant = suggest(token.text, self._names)
        error = LanguageError(
            f"the parameter {{{token.text}}} has no value", token.column, meant and f"{{{meant}}}"
        )
        return self._broken(error)

    def _named(self, token: Token) -> tree.Node:
        if self._accept("("):
            return self._call(token)
        if token.text in FACTS:
            return tree.Reference(token.text, column=token.column)
        meant = (
            suggest_keyword(token.text) if token.text.lower() in ("and", "or", "not", "true", "false") else ""
        )
        meant = meant or suggest(token.text, FACTS)
        return self._broken(LanguageError(f"unknown fact {quote(token.text)}", token.column, meant))

    def _call(self, name: Token) -> tree.Node:
        arguments = [] if self._accept(")") else self._deeper_arguments()
        try:
            return calls.build(name.text, arguments, name.column)
        except LanguageError as error:
            return self._broken(error)

    def _deeper_arguments(self) -> list[tree.Node]:
        arguments = [self._deeper(self._sum)]
        while self._accept(","):
            arguments.append(self._deeper(self._sum))
        self._expect(")")
        return arguments

    def _in_parentheses(self, token: Token) -> tree.Node:
        node = self._deeper(self._rule)
        self._expect(")")
        return node

    def _broken(self, error: LanguageError) -> tree.Node:
        self.errors.append(error)
        return tree.Broken(column=error.column)


def _list_out_of_place(node: tree.Parameter) -> LanguageError:
    return LanguageError(f"{{{node.name}}} is a list: write `in {{{node.name}}}`", node.column)


def _flatten(kind: type[tree.And] | type[tree.Or], operands: list[tree.Node]) -> tuple[tree.Node, ...]:
    """`a and (b and c)` is `a and b and c`."""
    return tuple(
        inner
        for operand in operands
        for inner in (operand.operands if isinstance(operand, kind) else (operand,))
    )
