"""The study of sensitivity: its grid, its plateau against hand-made results, and once for real."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from gclip import figures
from gclip.errors import UsageError
from gclip.execution import Event
from gclip.results.statistics import mean_interval
from gclip.studies import sensitivity
from gclip.studies._runs import drawing
from gclip.studies.sensitivity import Grid, grid, plateau, table
from tests.studies.synthetic import TINY, asked, frame, run


def test_the_grid_spans_the_search_range_with_the_default_in_it() -> None:
    assert list(grid("agc", 4).spellings.items()) == [
        (0.001, "agc(clip_factor=0.001)"),
        (0.01, "agc"),
        (0.1, "agc(clip_factor=0.1)"),
        (1.0, "agc(clip_factor=1)"),
    ]
    # On the scale of the field, a default between two points, other settings held.
    linear = grid("percentile(scope=tensor)", 3)
    assert list(linear.spellings) == [1.0, 10.0, 50.0, 99.0]
    assert linear.spellings[50.0] == "percentile(p=50, scope=tensor)"
    assert (linear.threshold, linear.default) == ("p", 10.0)


def test_the_space_chooses_range_and_field() -> None:
    assert list(grid("agc", 2, {"clip_factor": "0.02..0.5"}).spellings) == [0.01, 0.02, 0.5]
    assert list(grid("agc", 2, {"agc.clip_factor": "0.3|0.1"}).spellings) == [0.01, 0.1, 0.3]
    other = grid("percentile", 3, {"window": "10..1000:log", "p": "50"})
    assert (other.threshold, other.default) == ("window", None)
    assert other.spellings[100.0] == "percentile(p=50, window=100)"


@pytest.mark.parametrize(
    ("text", "space", "said"),
    [
        ("agc(clip_factor=0.5)", {}, "clip_factor is what this study varies"),
        ("agc", {"lr": "0.1..1"}, "leaves the learning rate alone"),
        ("percentile", {"p": "1..9", "window": "1..9"}, "one field, but the space has"),
        ("none", {}, "no tunable field"),
        ("chain(value, norm)", {}, "one strategy, not a chain"),
    ],
)
def test_what_cannot_be_varied_is_one_sentence(text: str, space: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        grid(text, 3, space)


def test_a_plateau_is_unbroken_and_holds_its_edge() -> None:
    #         edge at exactly 2 points · best · good · a gap · good again, which is no more of it
    means = {0.1: 0.5, 1.0: 0.93, 2.0: 0.95, 4.0: 0.94, 8.0: 0.9, 16.0: 0.95}
    assert plateau(means, 2.0) == (1.0, 4.0)
    assert plateau(means, 16.0) == (16.0, 16.0)
    assert plateau({1.0: 0.5}, 1.0) == (1.0, 1.0)


def test_the_rows_by_hand() -> None:
    runs = frame(
        *(run("norm", s, a, value=0.1, threshold="max_norm") for s, a in enumerate((0.5, 0.6))),
        *(run("norm", s, a, value=1.0, threshold="max_norm") for s, a in enumerate((0.9, 0.94))),
        *(run("norm", s, a, value=10.0, threshold="max_norm", spelling="norm(max_norm=10)")
          for s, a in enumerate((0.92, 0.94))),
        run("norm", 0, 0.1, "diverged", value=100.0, threshold="max_norm"),
        run("norm", 1, math.nan, "failed", value=100.0, threshold="max_norm"),
        run("agc", 0, 0.8, value=0.1, threshold="clip_factor"),
        run("none", 0, 0.3, value=math.nan, threshold=""),
    )  # fmt: skip
    norm, agc, none = table(runs, {"norm": 1.0, "agc": 0.01})
    assert (norm["strategy"], norm["best"], norm["best_spelling"]) == (
        *("norm", 10.0, "norm(max_norm=10)"),
    )
    assert (norm["plateau_low"], norm["plateau_high"], norm["width"]) == (1.0, 10.0, 10.0)
    assert norm["width_text"] == "×10"
    interval = mean_interval([0.92, 0.94])
    assert (norm["accuracy"], norm["low"], norm["high"]) == pytest.approx(interval)
    assert norm["default_accuracy"] == pytest.approx(0.92)
    assert (norm["diverged"], norm["failed"], norm["n_each"]) == (1, 1, "1–2")
    # One value: best and plateau at both ends of the grid; its default was not trained.
    assert (agc["best"], agc["width_text"], agc["default_text"]) == (0.1, "≥ ×1", "–")
    assert (none["strategy"], none["accuracy"], none["best"]) == ("none", 0.3, None)
    json.dumps([norm, agc, none], allow_nan=False)


def test_it_trains_the_grid_once(tmp_path: Path) -> None:
    events: list[Event] = []
    request = asked(
        tmp_path, "agc", points=2, seeds=(0, 1), space={"clip_factor": "0.01..0.1"},
        listener=events.append,
    )  # fmt: skip
    answer = sensitivity.run(request)
    assert answer.ok
    trained = [event.config for event in events if event.kind == "done"]
    assert len(trained) == sensitivity.run_count(request) == 2 * (1 + 2)
    assert {(c.strategy, c.seed) for c in trained} == {
        (text, seed) for text in ("none", "agc", "agc(clip_factor=0.1)") for seed in (0, 1)
    }
    assert {config.split for config in trained} == {"validation"}
    assert {config.lr for config in trained} == {TINY.lr}
    events.clear()
    again = sensitivity.run(request)
    assert [event.kind for event in events] == ["cached"] * 6
    assert list(again.rows) == list(answer.rows)
    assert {row["strategy"] for row in answer.more["grid"]} == {"agc"}
    assert set(answer.columns.values()) <= set(answer.rows[0])
    for name, draw in answer.figures.items():
        assert figures.save(draw(), tmp_path / f"{name}.svg").read_text().count("clip_factor") >= 1


def test_a_question_about_none_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none has no threshold"):
        sensitivity.run(asked(tmp_path, "none"))
    with pytest.raises(UsageError, match="points must be at least 2"):
        sensitivity.run(asked(tmp_path, "agc", points=1))
    with pytest.raises(UsageError, match="no such field"):
        sensitivity.run(asked(tmp_path, "agc", space={"max_norm": "1..2"}))


def test_one_panel_a_strategy() -> None:
    names = ["norm(scope=layer)", "norm", "agc", "soft", "value"]
    runs = frame(
        *(
            run(text, seed, 0.5, value=value, threshold="t")
            for text in names
            for value in (0.01, 0.1, 1.0)
            for seed in (0, 1)
        ),
        run("none", 0, 0.1, "diverged", value=math.nan, threshold=""),
    )
    runs = runs.assign(key=[f"k{place}" for place in range(len(runs))])
    figure = drawing("sensitivity", "sensitivity", runs)()
    assert len(figure.axes) == 2 * len(names)
    assert {axes.get_title() for axes in figure.axes} >= set(names)


def test_a_grid_is_what_it_says() -> None:
    assert grid("norm", 2) == Grid(
        threshold="max_norm",
        default=1.0,
        spellings={0.001: "norm(max_norm=0.001)", 1.0: "norm", 100.0: "norm(max_norm=100)"},
    )
