"""What the golden tests of a checkout hold each strategy to, read from the tests themselves."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SPELLING = re.compile(r"([a-z][a-z0-9_-]*)(?:\(|$)")


@dataclass(frozen=True)
class Held:
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
        parts = (_plural(self.cases, "case"), _plural(self.mutants, "mutant"), *self.peers)
        return ", ".join(parts)


def held(tests: Path) -> dict[str, Held]:
    """By strategy, what the tests in the folder `tests` (``tests/golden``) hold it to.

    Empty where there is no such folder, as in an installed package.
    """
    if not tests.is_dir():
        return {}
    cases: dict[str, int] = {}
    mutants: dict[str, int] = {}
    with _importable(tests.parents[1]):
        for path in sorted(tests.glob("*.py")):
            if path.stem == "__init__" or path.stem.startswith("test_"):
                continue
            module = importlib.import_module(f"tests.golden.{path.stem}")
            for counts, kind in ((cases, "CASES"), (mutants, "MUTANTS")):
                for name, found in getattr(module, kind, {}).items():
                    counts[name] = counts.get(name, 0) + len(found)
    peers = _peers(tests / "test_peers.py")
    return {
        name: Held(cases.get(name, 0), mutants.get(name, 0), tuple(sorted(peers.get(name, ()))))
        for name in sorted({*cases, *mutants, *peers})
    }


def _peers(path: Path) -> dict[str, set[str]]:
    """By strategy, the libraries whose tests (``test_optax…``) spell it. Read, never imported."""
    if not path.is_file():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    libraries = {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
            libraries.update(text.partition(".")[0] for text in _texts(node))
    found: dict[str, set[str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        title = node.name.removeprefix("test_") + "_"
        fitting = [each for each in libraries if title.startswith(each + "_")]
        for text in _texts(node) if fitting else ():
            spelled = _SPELLING.match(text)
            if spelled:
                found.setdefault(spelled[1], set()).add(max(fitting, key=len))
    return found


def _texts(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
