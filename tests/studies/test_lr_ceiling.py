"""The study of the highest stable learning rate: its rule, and once for real."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from gclip import figures
from gclip.errors import UsageError
from gclip.execution import Event
from gclip.studies import lr_ceiling
from gclip.studies.lr_ceiling import ceiling, grid, table
from tests.studies.synthetic import TINY, asked, frame, run


def test_the_grid_is_even_on_a_log_scale() -> None:
    assert grid(0.16, None, 8) == (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)
    assert grid(0.16, (0.01, 1.0), 3) == (0.01, 0.1, 1.0)
    with pytest.raises(UsageError, match="0 < low < high"):
        grid(0.1, (1.0, 0.1), 3)


def test_a_ceiling_ends_the_first_unbroken_stretch() -> None:
    assert ceiling({1.0: True, 2.0: True, 4.0: False}) == 2.0
    assert ceiling({1.0: True, 2.0: False, 4.0: True}) == 1.0, "a lucky rate is no ceiling"
    assert ceiling({1.0: False, 2.0: True, 4.0: True}) == 4.0, "too slow is not too fast"
    assert ceiling({1.0: False}) is None


def _runs(strategy: str, *cells: tuple[float, ...]) -> list[object]:
    """Runs at learning rates 1, 2, 4 …: accuracies by seed; a negative one diverged."""
    return [
        run(strategy, seed, abs(value), "diverged" if value < 0 else "finished", rate=2.0**place)
        for place, values in enumerate(cells)
        for seed, value in enumerate(values)
    ]


def test_the_rows_by_hand() -> None:
    runs = frame(
        # Stable at 1 and 2; at 4 the mean is just under half of the best, at 8 stable again.
        *_runs("none", (0.7, 0.7), (0.8, 0.8), (0.39, 0.4), (0.7, 0.7)),
        # One diverged seed is enough, however good the mean is.
        *_runs("norm", (0.9, 0.9), (0.9, 0.8), (0.7, 0.5), (0.9, -0.85)),
        # All of the grid; at the lowest rate it learns too little, exactly half is enough at 8.
        *_runs("agc", (0.2, 0.2), (0.8, 0.9), (0.9, 0.9), (0.45, 0.45)),
        *_runs("soft", (-0.1, -0.1), (0.3, -0.1), (-0.1, 0.1), (-0.1, -0.1)),
    )
    rows = {row["strategy"]: row for row in table(runs)}
    assert list(rows) == ["agc", "norm", "none", "soft"]
    assert [rows[name]["ceiling"] for name in rows] == [8.0, 4.0, 2.0, None]
    assert [rows[name]["ceiling_text"] for name in rows] == ["≥ 8", "4", "2", "< 1"]
    assert [rows[name]["factor"] for name in rows] == [4.0, 2.0, None, None]
    assert [rows[name]["factor_text"] for name in rows] == ["≥ ×4", "×2", "–", "–"]
    assert rows["none"]["stable_above"] == [8.0]
    assert (rows["norm"]["best_lr"], rows["norm"]["accuracy"]) == (1.0, pytest.approx(0.9))
    assert (rows["norm"]["diverged"], rows["soft"]["diverged"]) == (1, 6)
    json.dumps(list(rows.values()), allow_nan=False)


def test_bounds_stay_bounds() -> None:
    never = _runs("norm", (0.9, 0.9), (0.9, 0.9))
    above = {row["strategy"]: row for row in table(frame(*never, *_runs("none", (0.9,), (0.8,))))}
    assert above["norm"]["factor_text"] == "both beyond"
    assert above["norm"]["factor"] is None
    below = {row["strategy"]: row for row in table(frame(*never, *_runs("none", (-0.1,), (-0.1,))))}
    assert below["norm"]["factor_text"] == "–"
    upper = {
        row["strategy"]: row
        for row in table(frame(*_runs("norm", (0.9,), (-0.1,)), *_runs("none", (0.9,), (0.8,))))
    }
    assert upper["norm"]["factor_text"] == "≤ ×0.5"


def test_failed_runs_are_in_no_number_but_told() -> None:
    failed = run("none", 1, math.nan, "failed", rate=2.0)
    runs = frame(*_runs("none", (0.9, 0.9), (0.8,)), failed)
    [row] = table(runs)
    assert (row["ceiling"], row["failed"], row["n_each"]) == (2.0, 1, "1–2")


def test_it_trains_the_grid_once(tmp_path: Path) -> None:
    events: list[Event] = []
    request = asked(
        tmp_path, "norm", "none", points=2, seeds=(3,), lr_range=(0.01, 0.1),
        listener=events.append,
    )  # fmt: skip
    answer = lr_ceiling.run(request)
    trained = [event.config for event in events if event.kind == "done"]
    assert len(trained) == lr_ceiling.run_count(request) == 4
    assert [(c.strategy, c.lr, c.seed) for c in trained] == [
        (text, lr, 3) for text in ("none", "norm") for lr in (0.01, 0.1)
    ]
    assert {config.split for config in trained} == {"validation"}
    events.clear()
    assert list(lr_ceiling.run(request).rows) == list(answer.rows)
    assert {event.kind for event in events} == {"cached"}
    assert set(answer.columns.values()) <= set(answer.rows[0])
    [draw] = answer.figures.values()
    text = figures.save(draw(), tmp_path / "figure.svg").read_text()
    assert "norm" in text


def test_none_always_takes_part(tmp_path: Path) -> None:
    names = {labels["strategy"] for labels, _ in lr_ceiling.cells_of(asked(tmp_path, "agc"))}
    assert names == {"none", "agc"}
    default = {labels["strategy"] for labels, _ in lr_ceiling.cells_of(asked(tmp_path))}
    assert {"none", "norm", "agc"} < default
    assert TINY.lr in {labels["rate"] for labels, _ in lr_ceiling.cells_of(asked(tmp_path))}
    with pytest.raises(UsageError, match="there twice"):
        lr_ceiling.run(asked(tmp_path, "agc", "agc()"))
    with pytest.raises(UsageError, match="at least one seed"):
        lr_ceiling.run(asked(tmp_path, "agc", seeds=(1, 1)))
