"""What is drawn together: comparisons, studies that were answered, and figures of plugins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gclip import figures
from gclip.errors import UsageError
from gclip.figures import _found
from gclip.results import Results, Store

Fill = Callable[..., Store]
GRID = tuple(f"norm(max_norm={value:g})" for value in (0.1, 1, 10))


@pytest.fixture
def answered(fill: Fill) -> Store:
    """A comparison, and a study of thresholds that has written down its runs."""
    fill(("none", "agc"), 2)
    store = fill((*GRID, "none"), 2, split="validation")
    runs = Results.read(store).runs
    own = runs[runs["split"] == "validation"]
    entry = {
        "study": "sensitivity",
        "setting": {"task": "digits", "model": "lenet"},
        "strategies": ["norm", "none"],
        "rows": 2,
        "figures": [],
        "date": "2030-01-01T00:00:00+00:00",
        "command": "gclip study run sensitivity -s norm",
        "table": [{"strategy": "norm"}, {"strategy": "none"}],
        "columns": {"strategy": "strategy"},
        "notes": [],
        "labels": [
            {
                "key": key,
                "strategy": text.partition("(")[0],
                "threshold": "" if text == "none" else "max_norm",
                "value": None if text == "none" else float(text[14:-1]),
            }
            for key, text in zip(own["key"], own["strategy"], strict=True)
        ],
        "searches": [],
    }
    folder = store.path / "studies" / "answers"
    folder.mkdir(parents=True)
    (folder / "sensitivity-1.json").write_text(json.dumps(entry))
    (folder / "older.json").write_text(json.dumps({"study": "noise", "date": entry["date"]}))
    return store


def test_a_study_has_a_folder_with_its_own_figures(answered: Store, tmp_path: Path) -> None:
    comparison, study = figures.groups(answered)
    assert (comparison.folder, study.folder) == ("", "sensitivity-digits")
    assert not set(comparison.keys) & set(study.keys)
    found = study.read(answered)
    assert found.strategies == ("none", "norm")
    norms = found.runs[found.runs["strategy"] == "norm"]
    assert sorted(zip(norms["value"], norms["spelling"], strict=True)) == sorted(
        (float(text[14:-1]), text) for text in GRID for _ in range(2)
    )
    assert {name for name in figures.names() if figures.applies(name, found)} == {"sensitivity"}
    some = ("sensitivity", "improvement")
    files = figures.draw_all(answered, tmp_path, only=some, formats=["svg"])
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        *("improvement.svg", "sensitivity-digits/sensitivity.svg")
    ]


def test_strategies_are_chosen_by_spelling_or_name(answered: Store, tmp_path: Path) -> None:
    from gclip.figures._groups import only_strategies

    results = Results.read(answered)
    assert only_strategies(results, ["agc", "norm"]).strategies == ("agc", *sorted(GRID))
    assert only_strategies(results, [GRID[0]]).strategies == (GRID[0],)
    part = only_strategies(results, ["agc"])
    assert set(part.steps["strategy"]) == set(part.curves["strategy"]) == {"agc"}
    with pytest.raises(UsageError, match=r"unknown strategy of these runs 'acg'.*'agc'"):
        figures.draw_all(answered, tmp_path, strategies=["acg"])


def test_a_plugin_adds_a_figure(
    compared: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_found, "_added", {})
    (tmp_path / "how_many.py").write_text(
        '"""How many runs?"""\n'
        "from matplotlib.figure import Figure\n"
        "def draw(results):\n"
        "    figure = Figure()\n"
        "    figure.suptitle(f'{len(results.runs)} runs')\n"
        "    return figure\n"
    )
    assert figures.add(tmp_path / "how_many.py") == "how_many"
    assert "how_many" in figures.names()
    assert figures.describe("how_many") == "How many runs?"
    assert figures.draw("how_many", compared).get_suptitle() == "12 runs"
    (tmp_path / "scores.py").write_text("def draw(results): ...\n")
    with pytest.raises(UsageError, match="a figure scores ships with gclip"):
        figures.add(tmp_path / "scores.py")
    (tmp_path / "nothing.py").write_text("")
    with pytest.raises(UsageError, match=r"has no figure: it needs draw\(results\)"):
        figures.add(tmp_path / "nothing.py")
    with pytest.raises(UsageError, match="has no figure, draw"):
        figures.add_if_figure(tmp_path / "nothing.py")
