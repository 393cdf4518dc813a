"""What commands that only read import, and that kept answers print what was worked out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gclip.core import kept
from gclip.core.kept import KeptAnswer
from gclip.results import Store
from gclip.training import RunConfig, RunResult
from gclip.tuning.sqlite import open_study

Command = Any  # of conftest.py

DESCRIBED = [
    ["list"],
    ["list", "--json"],
    ["list", "--side", "update"],
    ["list", "--problems"],
    ["show", "agc"],
    ["show", "zclip", "--json"],
    ["show", "digits"],
    ["show", "adding", "--json"],
]
OF_STORE = [
    ["study", "list"],
    ["study", "list", "--json"],
    ["store", "list", "-s", "norm", "--json"],
]
HEAVY = ["torch", "optuna", "pandas", "scipy", "seaborn", "matplotlib", "sklearn", "pydantic"]
SCRIPT = """
import contextlib, io, json, sys
from gclip.cli import main
answers = []
for command in json.loads(sys.argv[1]):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    answers.append([code, *(each.buffer.getvalue().decode() for each in (out, err))])
heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps({"answers": answers, "heavy": heavy}))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, in which this process may keep answers, too."""
    monkeypatch.setenv("GCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_registries_are_loaded", lambda: False)
    return tmp_path / "cache"


def a_store(folder: Path) -> None:
    """With two runs, a study without trials, and an answer."""
    store = Store(folder, create=True)
    for seed in range(2):
        store.save(RunResult(config=RunConfig(strategy="norm", seed=seed), accuracy=0.5 + seed / 9))
    with open_study(folder, "norm-digits", {"task": "digits"}):
        pass
    answers = folder / "studies" / "answers"
    answers.mkdir()
    entry = {
        "study": "noise", "setting": json.loads(RunConfig(accumulate=2).to_json()), "rows": 3,
        "strategies": ["none"], "figures": [], "date": "2026-01-02T03:04:05+00:00", "table": [],
    }  # fmt: skip
    (answers / "noise-1.json").write_text(json.dumps(entry))


def without_ages(text: str) -> str:
    """Ages go on."""
    return "\n".join(line for line in text.splitlines() if "age_seconds" not in line)


def test_kept_answers_are_those_worked_out_and_nothing_heavy_is_imported(
    gclip: Command, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    a_store(Path("runs"))
    commands = [*DESCRIBED, *OF_STORE]
    with monkeypatch.context() as alone:
        alone.setattr(kept, "_registries_are_loaded", lambda: True)
        worked_out = [gclip(*command) for command in commands]
    assert not cache.exists()
    for command in (["list"], ["list", "--problems"], ["study", "list"]):
        gclip(*command)
    assert len(list(cache.rglob("*.json"))) == 4  # with the names
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands), json.dumps(HEAVY)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["heavy"] == []
    for command, once, (code, out, err) in zip(commands, worked_out, found["answers"], strict=True):
        assert (code, err) == (once.code, once.err) == (0, ""), command
        if command[0] == "store":
            assert without_ages(out) == without_ages(once.out)
        else:
            assert out == once.out, command


def test_a_study_that_has_changed_is_read_again(gclip: Command, cache: Path) -> None:
    a_store(Path("runs"))
    before = gclip("study", "list").out
    assert gclip("study", "list").out == before
    with open_study(Path("runs"), "agc-digits", {"task": "digits"}):
        pass
    assert "agc-digits" not in before
    assert "agc-digits" in gclip("study", "list").out
    Path("runs/studies/agc-digits.db").write_bytes(b"SQLite format 3\0 and no more")
    for _ in range(2):
        answer = gclip("study", "list")
        assert "left out: the study file 'runs/studies/agc-digits.db'" in answer.err


def test_what_is_damaged_or_of_other_code_is_worked_out_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"a": [1, 2.5, None], "b": {"c": "ß"}}
    KeptAnswer("it").keep(answer)
    assert KeptAnswer("it").recall() == answer
    assert KeptAnswer("another").recall() is None
    (path,) = cache.rglob("*.json")
    whole = path.read_text()
    for damaged in (whole.replace("2.5", "2.6"), whole[:-9], "", "[]", "{}", "[" * 100_000):
        path.write_text(damaged)
        assert KeptAnswer("it").recall() is None, damaged[:40]
    path.write_text(whole)
    assert KeptAnswer("it").recall() == answer
    monkeypatch.setattr(kept, "_code_digest", lambda: "0" * 32)
    assert KeptAnswer("it").recall() is None


def test_the_digest_is_of_the_code_and_of_the_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest() -> str | None:
        kept._code_digest.cache_clear()
        return kept._code_digest()

    (tmp_path / "strategies").mkdir()
    code = tmp_path / "strategies" / "mine.py"
    code.write_text("x = 1")
    monkeypatch.setattr(kept, "_roots", lambda: [str(tmp_path)])
    found = {digest()}
    code.write_text("x = 2")
    found.add(digest())
    code.rename(code.with_name("other.py"))
    found.add(digest())
    with monkeypatch.context() as patch:
        patch.setattr(kept.importlib.metadata, "version", lambda name: f"{name} 99")
        found.add(digest())
    assert len(found) == 4
    assert None not in found
    assert digest() == digest()
    monkeypatch.setattr(kept, "others_take_part", lambda: True)
    assert digest() is None
    assert not KeptAnswer("it").possible
    kept._code_digest.cache_clear()


def test_a_cache_that_cannot_be_used_only_costs_time(
    gclip: Command, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = gclip("list", "--problems").out
    cache.rename(cache.with_name("elsewhere"))
    cache.write_text("a file where the folder should be")
    answer = gclip("list", "--problems")
    assert (answer.code, answer.out, answer.err) == (0, expected, "")
    monkeypatch.delenv("GCLIP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert not KeptAnswer("it").possible


def test_plugins_are_always_run(gclip: Command, cache: Path) -> None:
    gclip("show", "none")
    Path("mine.py").write_text(
        "from dataclasses import dataclass\nimport gclip\n\n\n"
        '@gclip.register("mine_kept")\n@dataclass(frozen=True, kw_only=True)\n'
        'class Mine(gclip.Strategy):\n    """Half."""\n\n'
        "    def limit(self, seen, memory):\n        return seen.norm / 2\n"
    )
    before = {path: path.read_bytes() for path in cache.rglob("*.json")}
    assert "mine_kept" in gclip("list", "--plugin", "mine.py").out
    assert gclip("show", "mine_kept", "--plugin", "mine.py").code == 0
    assert {path: path.read_bytes() for path in cache.rglob("*.json")} == before


def test_only_what_comes_back_from_json_as_it_is_is_kept(cache: Path) -> None:
    for answer in ({"a": (1, 2)}, {1: "one"}, object()):
        KeptAnswer("it").keep(answer)
        assert KeptAnswer("it").recall() is None
