"""Which code a strategy is: a part of every run's identity.

What counts is the text of the files in which the strategy's class and its bases are defined, less
comments, docstrings, layout and what a class says about itself (`equation` and `paper`): after any
other edit there, that strategy's runs are made again. Bases that belong to the library
(`gclip.Strategy`, `gclip.Transform`) or to Python do not count, wherever they lie, and neither do
modules that the file imports: the library answers for itself, and a release that changes what it
computes says so.

Where there is no file (a notebook, a console), what counts is the compiled code of the class, and
of the functions and plain numbers beside it that it names: see `gclip.core.bytecode`.

Where code was rewritten and computes the same as before, ``strategies/same_code.json`` lets it keep
the digest that its stored runs have.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from types import FunctionType, ModuleType

from gclip.core.bytecode import compiled, compiled_function
from gclip.core.players import Players
from gclip.core.strategy import DOCUMENTATION, Chain, Strategy

_ADDED_TO = ("strategies", "studies", "figures", "problems")
"""Packages within ``gclip`` that are not the library: what users add is written there."""


def code_digest(strategy: Strategy | Chain | Players) -> str:
    """12 hex digits that change when a strategy's code does, though not when its comments do.

    Part of a run's identity, so that after an edit only that strategy's runs are made again.
    Covers the modules that define the class and its bases, those of the library and of Python
    excepted; of a class that was written in a notebook, the class and what it names there. A
    chain's covers those of all its strategies.
    """
    found = own_digest(strategy)
    return _same_code().get(found, found)


def own_digest(strategy: Strategy | Chain | Players) -> str:
    """The digest of the code as it is, whatever code it is declared to be the same as."""
    return hashlib.sha256(code_of(strategy).encode()).hexdigest()[:12]


def code_of(strategy: Strategy | Chain | Players) -> str:
    """The code that counts, in one normal form; compiled where there is no source."""
    return _code_of_classes(type(part) for part in getattr(strategy, "strategies", (strategy,)))


def class_digest(cls: type) -> str:
    """12 hex digits that change when a class's code, or that of a base outside the library, does.

    By the same rules as `code_digest`; for what is no strategy, such as a problem.
    """
    return hashlib.sha256(_code_of_classes([cls]).encode()).hexdigest()[:12]


def _code_of_classes(found: Iterable[type]) -> str:
    classes: dict[str, list[type]] = {}
    for own in found:
        for cls in own.__mro__:
            if cls is own or not _is_library_or_python(cls.__module__):
                classes.setdefault(cls.__module__, []).append(cls)
    return "\n".join(_code(sys.modules.get(name), classes[name]) for name in sorted(classes))


def digest_of_function(function: FunctionType) -> str:
    """12 hex digits that change when the code of a registered function does: a model's.

    What counts is the text of its module as for a strategy; of a function that was written in a
    notebook, its compiled code and that of the functions and classes there that it names.
    """
    code = _module_code(sys.modules.get(function.__module__))
    text = compiled_function(function) if code is None else code
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def ships_with_gclip(function: Callable[..., object]) -> bool:
    """Whether a function or class is the library's, which answers for what it computes."""
    return function.__module__.partition(".")[0] == "gclip" and _is_library_or_python(
        function.__module__
    )


def _is_library_or_python(module: str) -> bool:
    root, _, inside = module.partition(".")
    if root == "gclip":
        return inside.partition(".")[0] not in _ADDED_TO
    return root in sys.stdlib_module_names


@functools.cache
def _same_code() -> Mapping[str, str]:
    """For digests of code that computes what earlier code did: the digest of that."""
    file = resources.files("gclip.strategies") / "same_code.json"
    same = json.loads(file.read_text(encoding="utf-8"))["same"]
    return {entry["code"]: entry["counts_as"] for entry in same.values()}


def _code(module: ModuleType | None, classes: Sequence[type]) -> str:
    """The code of classes of a module: its text in one normal form, or what is compiled."""
    found = _module_code(module)
    if found is None:
        # A notebook, a console or a frozen program: no file, but the classes themselves.
        return "\n".join(compiled(cls) for cls in dict.fromkeys(classes))
    return found


def _module_code(module: ModuleType | None) -> str | None:
    """A module's code in one normal form, without comments, docstrings, equations and papers; None
    where there is no file."""
    try:
        tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError):
        return None
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.ClassDef):
            node.body = [each for each in node.body if not _documents(each)] or [ast.Pass()]
    return ast.unparse(tree)


def _documents(statement: ast.stmt) -> bool:
    """Whether it gives a class its equation or its paper, as text; a field of that name counts."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str())):
            return name in DOCUMENTATION
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str())):
            return name in DOCUMENTATION and "ClassVar" in ast.unparse(statement.annotation)
    return False
