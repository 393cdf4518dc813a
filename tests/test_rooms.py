"""What the import contracts do not see: circles, and the folders beside ``gclip/``.

``strategies``, ``studies`` and ``figures`` are installed within the package, but lie outside of its
folder, where import-linter does not look. Lazy imports and those for type checkers count, too.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BESIDE = ("strategies", "studies", "figures")
FACES = {
    "gclip.survey.survey": {"gclip.figures"},  # Survey.figure()
    "gclip": {"gclip.figures"},  # which is public
}
"""Who else than the command line names a folder beside the library, though no file in it."""


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "gclip" else ("gclip", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


FILES = {_name(path): path for top in ("gclip", *BESIDE) for path in ROOT.glob(f"{top}/**/*.py")}


def _imported(name: str) -> Iterator[str]:
    """The modules of the project that a module imports, wherever in it."""
    path = FILES[name]
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{home}.{alias.name}"
                if inner in FILES or home in FILES:
                    yield inner if inner in FILES else home


ARROWS = {name: set(_imported(name)) - {name} for name in FILES}


def test_no_file_imports_itself_round_about() -> None:
    """The package's face is left out: it names everything for type checkers, and nothing needs it
    but what is written against it (strategies, studies, figures and the command line)."""
    inside = {name: arrows - {"gclip"} for name, arrows in ARROWS.items() if name != "gclip"}
    list(graphlib.TopologicalSorter(inside).static_order())  # raises CycleError, which names them


def test_the_library_does_not_lean_on_its_face() -> None:
    outer = {"gclip.cli", "gclip.problems", *(f"gclip.{folder}" for folder in BESIDE)}
    leaning = {name for name, arrows in ARROWS.items() if "gclip" in arrows}
    assert {name for name in leaning if _room(name) not in outer} == set()


def test_the_library_names_no_strategy_study_or_figure() -> None:
    beside = {f"gclip.{folder}" for folder in BESIDE}
    for name, arrows in ARROWS.items():
        if _room(name) not in {"gclip.cli", *beside}:
            named = {arrow for arrow in arrows if _room(arrow) in beside}
            assert named <= FACES.get(name, set()), name


def test_the_library_names_no_problem() -> None:
    for name, arrows in ARROWS.items():
        if _room(name) != "gclip.problems":
            assert "gclip.problems" not in set(map(_room, arrows)), name


def test_what_lies_beside_the_library_keeps_its_arrows() -> None:
    for name, arrows in ARROWS.items():
        rooms = set(map(_room, arrows))
        if _room(name) == "gclip.strategies":
            assert rooms <= {"gclip", "gclip.core"}, name
        if _room(name) == "gclip.studies":
            assert not rooms & {"gclip.cli", "gclip.bench", "gclip.strategies"}, name
        if _room(name) == "gclip.figures":
            assert not rooms & {"gclip.cli", "gclip.bench", "gclip.strategies", "gclip.studies"}, (
                name
            )


def test_no_module_of_the_library_is_long() -> None:
    """One idea a file."""
    lengths = {name: path.read_text(encoding="utf-8").count("\n") for name, path in FILES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}


def test_the_root_holds_the_face_and_nothing_else() -> None:
    root = {path.name for path in (ROOT / "gclip").glob("*.py")}
    assert root == {"__init__.py", "__main__.py", "errors.py", "version.py"}
