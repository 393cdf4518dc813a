"""The figure of layers: its data, what it marks, and that it is left out where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gclip import figures
from gclip.errors import UsageError
from gclip.figures import layers
from gclip.figures.layers import Heat
from gclip.results import Results, Store

Fill = Callable[..., Store]
INF, NAN = float("inf"), float("nan")


def frame(rows: list[tuple[Any, ...]], seed: int = 0) -> pd.DataFrame:
    """Rows of player, layer, step, before, after, before_max, skipped."""
    names = ["player", "layer", "step", "before", "after", "before_max", "skipped"]
    return pd.DataFrame(rows, columns=names).assign(key=f"k{seed}", strategy="norm", seed=seed)


def test_a_run_becomes_a_map_with_what_is_marked() -> None:
    rows = [
        ("", "first", 0, 4.0, 1.0, 4.0, 0.0),
        ("", "first", 2, INF, NAN, INF, 1.0),
        ("", "first", 4, 3.0, 2.0, INF, 0.5),
        ("", "last", 0, 8.0, 2.0, 9.0, 0.0),
        ("", "last", 2, 7.0, NAN, 7.0, 1.0),
        ("", "last", 4, 0.0, 0.0, 0.0, 0.5),
    ]
    other = frame([(*row[:3], 99.0, *row[4:]) for row in rows], seed=3)
    heat = Heat.of(pd.concat([other, frame(rows)]))
    assert (heat.seed, heat.labels, heat.width) == (0, ("first", "last"), 2)
    np.testing.assert_array_equal(heat.edges, [0, 2, 4, 6])
    np.testing.assert_array_equal(heat.before, [[4, INF, 3], [8, 7, 0]])
    np.testing.assert_array_equal(heat.after, [[1, NAN, 2], [2, NAN, 0]])
    assert heat.not_finite.tolist() == [False, False, True]  # the second is black as a whole
    assert heat.skipped.tolist() == [False, False, True]


def test_between_the_steps_of_a_player_its_colours_stay() -> None:
    rows = [
        *[("a", "w", step, 1.0 + step, 1.0, 1.0, 0.0) for step in (0, 2)],
        *[("b", "w", step, 10.0 + step, 1.0, 1.0, 0.0) for step in (1, 3)],
    ]
    heat = Heat.of(frame(rows))
    assert (heat.labels, heat.breaks, heat.width) == (("a.w", "b.w"), (1,), 1)
    np.testing.assert_array_equal(heat.before, [[1, 1, 3, 3], [NAN, 11, 11, 13]])


def test_one_scale_over_nearly_everything() -> None:
    rows = [("", "w", step, 10.0**step, 1e-3, 1.0, 0.0) for step in range(4)]
    scale = layers._scale({"norm": Heat.of(frame(rows))})
    assert scale.vmin == pytest.approx(1e-3)
    assert 700 < float(scale.vmax or 0) <= 1000
    exploding = [("", "w", step, 10.0 ** (30 * (step == 99)), 1.0, 1.0, 0.0) for step in range(100)]
    scale = layers._scale({"norm": Heat.of(frame(exploding))})
    assert float(scale.vmax or 0) <= 1e4
    assert layers._scale({"norm": Heat.of(frame([("", "w", 0, 0.0, 0.0, 0.0, 0.0)]))}).vmax == 10


def test_all_panels_share_scale_and_steps_and_thin_their_labels(fill: Fill) -> None:
    results = Results.read(fill(("none", "norm(max_norm=0.3)"), 2, watch="layer"))
    figure = figures.draw("layers", results)
    panels = figure.axes[:4]
    meshes = [axes.collections[0] for axes in panels]
    assert len({(mesh.norm.vmin, mesh.norm.vmax) for mesh in meshes}) == 1
    assert {axes.get_xlim() for axes in panels} == {(0.0, 225.0)}
    labels = [text.get_text() for text in panels[0].get_yticklabels()]
    assert labels[0] == "body.0"
    assert labels[-1] == "body.19"
    assert len(labels) <= layers.LABELS
    heat = Heat.of(results.layers[results.layers["strategy"] == "norm(max_norm=0.3)"])
    drawn = np.ma.filled(meshes[2].get_array(), np.nan)
    np.testing.assert_allclose(drawn.reshape(heat.before.shape), heat.before)


def test_without_layers_it_is_left_out(fill: Fill, tmp_path: Path) -> None:
    store = fill(("none", "norm"), 2)
    results = Results.read(store)
    assert not figures.applies("layers", results)
    assert figures.applies("norms", results)
    drawn = figures.draw_all(store, tmp_path, usual=True, formats=["svg"])
    assert "layers.svg" not in {path.name for path in drawn}
    with pytest.raises(UsageError, match=r"no finished run has norms of its layers.*--watch layer"):
        figures.draw_all(store, tmp_path, only=["layers"])
    assert figures.applies("layers", Results.read(fill(("none",), 1, "other", watch="layer")))
