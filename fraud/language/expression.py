"""A checked rule: its tree, its canonical text and JSON, and what it asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fraud.facts import FACTS, VelocityKey
from fraud.language import stored
from fraud.language.checker import check
from fraud.language.errors import LanguageError
from fraud.language.lexer import MAX_LENGTH
from fraud.language.parameters import read_parameters
from fraud.language.parser import MAX_NODES, Parser
from fraud.language.render import render
from fraud.language.tree import Listed, Node, Parameter, ParameterValue, Reference, Velocity, walk
from payments.decisions import Stage

_VERSION = 1


@dataclass(frozen=True)
class Expression:
    """A rule that every back end can run. Made by `parse` and `from_json` only, which check it."""

    tree: Node

    @cached_property
    def text(self) -> str:
        """Canonical: parsing it gives the same tree."""
        return render(self.tree)

    @cached_property
    def parameters(self) -> dict[str, ParameterValue]:
        """The values that the rule uses, by name."""
        nodes = (node for node in walk(self.tree) if isinstance(node, Parameter))
        return {node.name: node.value for node in nodes}

    @cached_property
    def facts(self) -> frozenset[str]:
        return frozenset(node.name for node in walk(self.tree) if isinstance(node, Reference))

    @cached_property
    def velocity_keys(self) -> frozenset[VelocityKey]:
        return frozenset(node.key for node in walk(self.tree) if isinstance(node, Velocity))

    @cached_property
    def lists(self) -> frozenset[str]:
        """As in `FraudContext.listed`: `block`, `block.email`."""
        return frozenset(node.name for node in walk(self.tree) if isinstance(node, Listed))

    @cached_property
    def stage(self) -> Stage:
        """The earliest at which everything that it asks for is known."""
        is_late = any(FACTS[name].stage is Stage.AFTER_AUTHORIZATION for name in self.facts)
        return Stage.AFTER_AUTHORIZATION if is_late else Stage.BEFORE_AUTHORIZATION

    def to_json(self) -> dict[str, Any]:
        """JSON-safe; the same rule always gives the same."""
        parameters = {name: stored.encode_value(value) for name, value in self.parameters.items()}
        return {"version": _VERSION, "parameters": parameters, "rule": stored.encode(self.tree)}

    @classmethod
    def from_json(cls, data: Any) -> Expression:
        """The rule that `to_json` gave. It is read and checked again as a text. Raises `LanguageError`."""
        match data:
            case {"version": 1, "parameters": dict(given), "rule": rule, **rest} if not rest:
                parameters = {name: stored.decode_value(value) for name, value in given.items()}
                expression = parse(render(stored.decode(rule, parameters)), parameters)
            case _:
                raise LanguageError("this is not the stored form of a rule")
        if expression.to_json() != data:
            raise LanguageError("this is not the canonical form of a rule")
        return expression

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def parse(text: str, parameters: Mapping[str, Any] | None = None) -> Expression:
    """The rule that this text says. Raises `LanguageError` with every error that could be found."""
    given = parameters or {}
    parser = Parser(text, read_parameters(text[:MAX_LENGTH], given), tuple(map(str, given)))
    root = parser.parse()
    if sum(1 for _ in walk(root)) > MAX_NODES:
        raise LanguageError(f"rules have at most {MAX_NODES} parts")
    if errors := [*parser.errors, *check(root)]:
        raise LanguageError.of(errors)
    expression = Expression(root)
    if len(expression.text) > MAX_LENGTH:
        raise LanguageError(
            f"rules have at most {MAX_LENGTH} characters, this one {len(expression.text)} when tidied"
        )
    return expression
