"""Norms of layers in a store: beside the steps, which stay what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gclip
from gclip.clipping.layer_record import COLUMNS, LayerRecord
from gclip.results import Results, Store, experiments, load_layers, load_steps, newest
from gclip.results.layer_frame import LAYER_COLUMNS
from gclip.training import RunConfig, RunResult
from tests.training import toy_problem  # noqa: F401 - registers its problems

Make = Callable[..., Any]
NAN = float("nan")


def record(points: int = 3) -> LayerRecord:
    random = np.random.default_rng(0)
    arrays = {name: random.random((points, 3)).astype(np.float32) for name in COLUMNS}
    arrays["skipped"] = np.array([[0, 0, NAN], [0.5, 0.5, 0], [NAN, NAN, 1]], np.float32)[:points]
    return LayerRecord(
        names=("a.conv", "a.head", "b.head"),
        players=("a", "a", "b"),
        step=np.arange(points) * 4,
        **arrays,
    )


def result(layers: LayerRecord | None, **changes: Any) -> RunResult:
    config = RunConfig(strategy="norm", watch="layer" if layers else "", **changes)
    steps = {"norm": np.arange(12, dtype=np.float32), "loss": np.ones(12, np.float32)}
    return RunResult(config=config, accuracy=0.5, steps=steps, layers=layers)


def test_what_is_stored_is_loaded_back(tmp_path: Path) -> None:
    store, kept = Store(tmp_path, create=True), record()
    key = store.save(result(kept)).name
    stored = store.read(key)
    assert stored is not None
    assert stored.result["layers"] == ["a.conv", "a.head", "b.head"]
    assert stored.steps().keys() == {"norm", "loss"}
    assert stored.length() == 12
    for found in (stored.layers(), store.load(key).layers):
        assert found is not None
        assert (found.names, found.players) == (kept.names, kept.players)
        for name in ("step", *COLUMNS):
            np.testing.assert_array_equal(getattr(found, name), getattr(kept, name))
    assert set(store.load(key).steps) == {"norm", "loss"}


def test_the_frame_has_a_row_for_each_point_at_which_a_player_stepped(
    tmp_path: Path, make: Make
) -> None:
    store, kept = Store(tmp_path, create=True), record()
    store.save(make("norm", 7))  # of a run that was not watched, as from before
    assert list(load_layers(store).columns) == list(LAYER_COLUMNS)
    assert load_layers(store).empty
    store.save(result(kept))
    frame = load_layers(store)
    rows = frame[["player", "layer", "depth", "step"]].to_numpy().tolist()
    assert rows == [
        ["a", "conv", 0, 0], ["a", "conv", 0, 4], ["a", "head", 1, 0], ["a", "head", 1, 4],
        ["b", "head", 0, 4], ["b", "head", 0, 8],
    ]  # fmt: skip
    for name in COLUMNS:
        values = getattr(kept, name).astype(float)
        expected = [*values[:2, 0], *values[:2, 1], *values[1:, 2]]
        np.testing.assert_array_equal(frame[name], expected)
    assert set(load_steps(store)["step"]) == set(range(12))
    assert len(load_steps(store, points=6)) == 6 + 3  # blocks of two; the other run has six steps


def test_results_and_their_parts_have_them(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    watched, plain = result(record()), result(None, seed=1)
    store.save(watched), store.save(plain)
    results = Results.read(store)
    assert set(results.layers["key"]) == {watched.config.key}
    assert results.only([plain.config.key]).layers.empty
    assert len(results.scored().layers) == 6
    assert Results(results.runs, results.curves, results.steps).layers.empty


def test_watching_makes_no_other_experiment(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    store.save(result(record())), store.save(result(None)), store.save(result(None, seed=1))
    runs = gclip.results.load(store)
    assert list(experiments(runs)) == [""]
    assert sorted(newest(runs)["seed"]) == [0, 1]


def test_a_comparison_has_the_layers_of_its_runs(tmp_path: Path) -> None:
    found = gclip.compare(
        ["none", "norm"], seeds=1, task="toy-line", epochs=1, watch="layer", progress=False,
        store=tmp_path / "runs", workers=1, device="cpu",
    )  # fmt: skip
    frame = found.layers()
    assert set(frame["strategy"]) == {"none", "norm"}
    assert frame.groupby("strategy")["layer"].unique().map(list).to_dict() == {
        "none": ["0", "3"], "norm": ["0", "3"]
    }  # fmt: skip
    unclipped = frame[frame["strategy"] == "none"]
    assert (unclipped["before"] == unclipped["after"]).all()


def test_a_record_that_lacks_an_array_is_told() -> None:
    arrays = record().arrays()
    del arrays["layers/after"]
    with pytest.raises(gclip.UsageError, match="a record of layers lacks after"):
        LayerRecord.from_arrays(("a",), (), arrays)
