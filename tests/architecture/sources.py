"""The product's source files, parsed once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "payments", "fraud", "reconciliation", "webhooks")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Source:
    path: str  # from the root, with slashes
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def imported(self) -> Iterator[tuple[str, int]]:
        """Every imported name with its dots, and its line."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or "", node.lineno
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS))


@cache
def read_sources(*folders: str) -> tuple[Source, ...]:
    """All files below the folders, migrations apart; the product's by default."""
    files = sorted(
        file
        for folder in folders or PACKAGES
        for file in (ROOT / folder).rglob("*.py")
        if "migrations" not in file.parts
    )
    return tuple(_read(file) for file in files)


def _read(file: Path) -> Source:
    text = file.read_text(encoding="utf-8")
    return Source(file.relative_to(ROOT).as_posix(), text, ast.parse(text))
