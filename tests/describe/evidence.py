"""What the golden tests check of each strategy: cases, mutants, and the libraries compared with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.golden import test_golden, test_peers

_SPELLING = re.compile(r"([a-z][a-z0-9_-]*)(?:\(|$)")


@dataclass(frozen=True)
class Evidence:
    """How a strategy's numbers are checked.

    Attributes:
        cases: how many golden cases there are.
        mutants: how many wrong variants these must catch.
        peers: the libraries that it is compared with.
    """

    cases: int
    mutants: int
    peers: tuple[str, ...]

    def __str__(self) -> str:
        counts = (_plural(self.cases, "case"), _plural(self.mutants, "mutant"))
        return ", ".join((*counts, *self.peers))


def evidence(name: str) -> Evidence:
    """What the tests in ``tests/golden`` check of the strategy `name`."""
    peers = _peers(Path(test_peers.__file__))
    return Evidence(
        len(test_golden.CASES.get(name, ())),
        len(test_golden.MUTANTS.get(name, ())),
        tuple(sorted(library for library, names in peers.items() if name in names)),
    )


def _peers(path: Path) -> dict[str, set[str]]:
    """By library, the strategies that its tests (``test_optax…``) spell."""
    peers: dict[str, set[str]] = {library: set() for library in test_peers.LIBRARIES}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for library, names in peers.items():
            if f"{node.name}_".startswith(f"test_{library}_"):
                names.update(match[1] for text in _texts(node) if (match := _SPELLING.match(text)))
    return peers


def _texts(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
