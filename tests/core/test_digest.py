"""What a strategy's code digest covers: its own files, not the library, wherever that lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import gclip
from gclip.core.digest import code_of, own_digest

SHIPPED = Path(__file__).parents[2] / "strategies"
SAME: dict[str, dict[str, str]] = json.loads((SHIPPED / "same_code.json").read_text())["same"]

PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar
import gclip
{imports}

@gclip.register("digested")
@dataclass(frozen=True, kw_only=True)
class Digested({base}):
    '''Never clips.'''
    {body}
"""
LIMIT = "def limit(self, seen, memory): return 1.0"
TRANSFORM = "def transform(self, seen, memory): return seen.values, {}"


def digest(folder: Path, base: str, body: str = LIMIT, imports: str = "") -> str:
    """Of a strategy in a file of its own."""
    file = folder / "digested.py"
    file.write_text(PLUGIN.format(base=base, body=body, imports=imports))
    gclip.load_plugins(file)
    return gclip.code_digest(gclip.create("digested"))


@pytest.mark.parametrize("name", gclip.names())
def test_a_base_of_the_library_may_move(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bases lie in a module of another name and text; every digest stays what it was."""
    strategy = gclip.create(name)
    before = own_digest(strategy)
    monkeypatch.setitem(sys.modules, "gclip.core.elsewhere", types.ModuleType("elsewhere"))
    for base in (gclip.Strategy, gclip.Transform):
        monkeypatch.setattr(base, "__module__", "gclip.core.elsewhere")
    assert own_digest(strategy) == before


def test_a_base_of_ones_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is a strategy itself or a mixin: what it says is what the strategy does."""
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for parent, bases in (("gclip.Strategy", "own.Base"), ("object", "own.Base, gclip.Strategy")):
        for share in (1, 22):
            file = tmp_path / "own_base.py"
            file.write_text(f"import gclip\nclass Base({parent}):\n    share = {share}\n")
            sys.modules.pop("own_base", None)
            found.append(digest(tmp_path, bases, imports="import own_base as own"))
    sys.modules.pop("own_base")
    assert len(set(found)) == 4


def test_what_a_class_says_of_itself_does_not_count(tmp_path: Path) -> None:
    """Its equation and its paper, whatever they are; anything else by these names does."""
    plain = digest(tmp_path, "gclip.Strategy", LIMIT)
    for said in (
        "equation = 'g ← g'; paper = 'Ours 2026'; ",
        "equation: ClassVar[str] = ('g ← '\n        'g'); ",
        "paper: 'ClassVar[str]' = 'Ours 2026'; ",
    ):
        body = "".join(f"{each}\n    " for each in said.split("; "))
        assert digest(tmp_path, "gclip.Strategy", body + LIMIT) == plain, said
    for counts in (
        "equation: str = gclip.setting('mean')",  # fields, which the limit may read
        "paper: str = 'mean'",
        "paper: float = gclip.tunable(1.0, low=0.1, high=2.0)",
        "family = 'fixed limit'",
        "equation = paper = 'g ← g'",
    ):
        assert digest(tmp_path, "gclip.Strategy", f"{counts}\n    {LIMIT}") != plain, counts
    elsewhere = "def limit(self, seen, memory):\n        paper = 'g ← g'\n        return 1.0"
    without = digest(tmp_path, "gclip.Strategy", elsewhere.replace("paper = 'g ← g'", "pass"))
    assert digest(tmp_path, "gclip.Strategy", elsewhere) != without


def test_modules_that_it_imports_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = set()
    for share in (1, 22):
        (tmp_path / "imported_by_it.py").write_text(f"SHARE = {share}\n")
        sys.modules.pop("imported_by_it", None)
        found.add(digest(tmp_path, "gclip.Strategy", imports="import imported_by_it"))
    sys.modules.pop("imported_by_it")
    assert len(found) == 1


def test_a_transform_is_known_by_its_own_file_alone(tmp_path: Path) -> None:
    """As any other strategy: the same text from another base of the library is another text."""
    first = digest(tmp_path, "gclip.Transform", TRANSFORM)
    assert first == digest(tmp_path, "gclip.Transform", TRANSFORM, "# a remark")
    assert first != digest(tmp_path, "gclip.Transform", TRANSFORM + "  # and", "LATER = 1")


class TestSameCode:
    """Digests that code keeps which was rewritten and computes the same."""

    @pytest.mark.parametrize("name", SAME)
    def test_each_entry_is_of_the_code_as_it_is(self, name: str) -> None:
        """An entry is of no use after an edit: remove it, or, if every result is the same,
        give it the new digest."""
        strategy = gclip.parse(name)  # a chain's code is that of all its strategies together
        assert own_digest(strategy) == SAME[name]["code"]
        assert gclip.code_digest(strategy) == SAME[name]["counts_as"] != SAME[name]["code"]

    def test_all_others_count_as_themselves(self) -> None:
        for name in set(gclip.names()) - set(SAME):
            strategy = gclip.create(name)
            assert gclip.code_digest(strategy) == own_digest(strategy)

    def test_an_edit_ends_it(self, tmp_path: Path) -> None:
        """A copy of a strategy that counts as earlier code, with one number changed, does not."""
        text = (SHIPPED / "power.py").read_text().replace('"power", "gradpower"', '"copied"')
        (tmp_path / "copied.py").write_text(text.replace("tunable(1.2", "tunable(1.3"))
        gclip.load_plugins(tmp_path / "copied.py")
        copied = gclip.create("copied")
        assert gclip.code_digest(copied) == own_digest(copied)
        assert gclip.code_digest(copied) not in {entry["counts_as"] for entry in SAME.values()}


CELL = """
from dataclasses import dataclass
import gclip

SCALE = 2.0

def twice(value):
    return SCALE * value

@gclip.register("in_a_cell")
@dataclass(frozen=True, kw_only=True)
class InACell(gclip.Strategy):
    # a comment
    bound: float = gclip.setting(1.0)

    def limit(self, seen, memory):
        return (lambda bound: twice(bound) + 0.5)(self.bound)

    def learn(self, seen, clipped_norm, memory):
        assert "a" in {"a", "b", "c"}
        return {}
"""


def of_a_cell(text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The digest of a strategy that was written where there is no file, as in a notebook."""
    module = types.ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)
    exec(compile(text, "<cell>", "exec"), vars(module))
    return gclip.code_digest(gclip.create("in_a_cell"))


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("+ 0.5", "+ 0.25"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ("return SCALE * value", "return SCALE / value"),
        ("setting(1.0)", "setting(4.0)"),
        ("return {}", "return dict(memory)"),
    ],
)
def test_an_edited_cell_is_other_code(
    was: str, becomes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of_a_cell(CELL, monkeypatch)
    assert of_a_cell(CELL, monkeypatch) == before
    assert of_a_cell(CELL.replace("# a comment", "# another"), monkeypatch) == before
    assert of_a_cell(CELL.replace(was, becomes), monkeypatch) != before


def test_what_a_cell_says_of_itself_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = of_a_cell(CELL, monkeypatch)
    documented = CELL.replace("    # a comment", "    equation = 'g ← g'\n    paper = 'Ours 2026'")
    assert of_a_cell(documented, monkeypatch) == before


def test_the_digest_of_a_cell_is_the_same_in_another_process(tmp_path: Path) -> None:
    file = tmp_path / "cell.py"
    file.write_text(
        "import sys, types\n"
        f"module = types.ModuleType('a_notebook'); sys.modules['a_notebook'] = module\n"
        f"exec(compile({CELL!r}, '<cell>', 'exec'), vars(module))\n"
        "import gclip; print(gclip.code_digest(gclip.create('in_a_cell')))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, file], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


def test_what_a_cell_reads_stands_in_its_code_as_in_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer looks there for who reads the learning rate."""
    of_a_cell(CELL, monkeypatch)
    assert ".lr" not in code_of(gclip.create("in_a_cell"))
    of_a_cell(CELL.replace("+ 0.5", "+ seen.lr"), monkeypatch)
    assert ".lr" in code_of(gclip.create("in_a_cell"))
