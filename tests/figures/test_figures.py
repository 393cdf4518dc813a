"""Figures: found, drawn from any store, told apart, and the same bytes every time."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from gclip import figures
from gclip.errors import UsageError
from gclip.figures import learning_curves
from gclip.results import Results, Store

Fill = Callable[..., Store]
FEW = ("none", "value(clip_value=1)", "norm(max_norm=0.3)")
OF_DIVERGED = {
    "scores": "10.0 [2, 86] 0/2",
    "learning_curves": "none (n = 2, 2 diverged)",
    "norms": "none n = 2, 2 diverged",
}
"""What figures say of two runs that diverged at once: those score chance."""
ALL = ("clip_rate", "learning_curves", "norms", "scores")


def texts(figure: Figure) -> str:
    """All that can be read in a figure."""
    from matplotlib.text import Text

    found = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    return "\n".join(text.get_text() for text in found)


def test_names_are_the_files_of_the_folder() -> None:
    assert set(ALL) <= set(figures.names())
    assert all(figures.describe(name) for name in figures.names())


def settings_for(name: str) -> dict[str, Any]:
    """What runs must be like for a figure to have something to show."""
    return {"watch": "layer"} if name == "layers" else {}


@pytest.mark.parametrize("name", ["scores", "clip_rate"])
def test_many_strategies_stay_legible(fill: Fill, name: str) -> None:
    strategies = ["none", *(f"norm(max_norm={i}, scope=tensor)" for i in range(1, 30))]
    figure = figures.draw(name, Results.read(fill(strategies, 1, **settings_for(name))))
    text = "".join(texts(figure).split())
    assert all(strategy.replace(" ", "") in text for strategy in strategies)
    width, height = figure.get_size_inches()
    assert height > 1.5 * width  # it grows with what it shows
    # No text of one row or panel may run into that of the next.
    for axes in figure.axes:
        boxes = [t.get_window_extent() for t in axes.get_yticklabels() if t.get_text()]
        boxes.sort(key=lambda box: box.y0)
        assert all(a.y1 < b.y0 + 1 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("name", [*ALL, "layers"])
def test_one_run_is_enough(fill: Fill, name: str) -> None:
    figure = figures.draw(name, Results.read(fill(["norm"], 1, **settings_for(name))))
    text = texts(figure)
    assert "norm" in text
    assert "n = 1" in text
    assert all(
        np.isfinite(axes.dataLim.get_points()).all() for axes in figure.axes if axes.has_data()
    )
    assert any(axes.has_data() for axes in figure.axes)


@pytest.mark.parametrize("name", ALL)
def test_runs_that_all_diverged_at_once_are_drawn(fill: Fill, name: str) -> None:
    results = Results.read(fill(["none"], 2))
    results.runs["status"] = "diverged"
    results.runs[["accuracy", "score"]] = 0.1
    nothing = Results(results.runs, results.curves.iloc[:0], results.steps.iloc[:0])
    text = texts(figures.draw(name, nothing)).replace("\n", " ")
    assert "none" in text
    assert OF_DIVERGED.get(name, "n = 2") in text


def test_the_same_store_gives_the_same_bytes(tmp_path: Path, fill: Fill) -> None:
    store = fill(FEW[:2], 2, watch="layer")
    some = ("layers", "scores")  # a map, and text
    first = figures.draw_all(store, tmp_path / "a", only=some)
    assert [path.name for path in first] == [
        f"{name}.{kind}" for name in some for kind in ("png", "svg")
    ]
    # Again elsewhere: another process, whose user has settings and a random state of their own.
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nlines.linewidth: 9\nsavefig.dpi: 30\n")
    code = (
        "import sys; import numpy as np; np.random.seed(7); "
        "from gclip import figures; figures.draw_all(sys.argv[1], sys.argv[2], only=sys.argv[3:])"
    )
    settings = {**os.environ, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    command = [sys.executable, "-c", code, str(store.path), str(tmp_path / "b"), *some]
    subprocess.run(command, check=True, env=settings)
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in first[1].read_bytes()
    assert b"date" not in first[1].read_bytes()


def test_drawing_leaves_no_trace(fill: Fill) -> None:
    from matplotlib import pyplot

    before = dict(mpl.rcParams)
    figures.draw("scores", Results.read(fill(FEW, 2)))
    assert dict(mpl.rcParams) == before
    assert pyplot.get_fignums() == []


def test_what_is_not_there_is_one_sentence(tmp_path: Path, fill: Fill) -> None:
    store = fill(["norm"], 1)
    with pytest.raises(UsageError, match=r"unknown figure 'norm'.*did you mean 'norms'.*scores"):
        figures.draw_all(store, tmp_path, only=["norm"])
    with pytest.raises(UsageError, match="unknown figure format 'gif'.*png, svg"):
        figures.draw_all(store, tmp_path, formats=["gif"])
    with pytest.raises(UsageError, match=r"the store '.*no-such' does not exist"):
        figures.draw_all(tmp_path / "no-such", tmp_path)
    with pytest.raises(UsageError, match="nothing to draw"):
        figures.draw_all(Store(tmp_path / "empty", create=True), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the figure"):
        figures.draw_all(store, tmp_path / "file", only=["scores"], formats=["png"])


def test_each_experiment_has_its_folder_and_keys_choose(tmp_path: Path, fill: Fill) -> None:
    fill(FEW[:2], 1)
    fill(FEW[:2], 1, task="cifar10", data="abc")
    store = fill(["norm"], 1, task="cifar10", data="abc", lr=0.5)  # a single run
    out = tmp_path / "figures"
    with pytest.warns(UserWarning, match="1 runs of other settings stand alone"):
        files = figures.draw_all(store, out, only=["scores"], formats=["png"])
    assert [str(path.relative_to(out)) for path in files] == [
        "task=cifar10,lr=0.2/scores.png",
        "task=digits,lr=0.2/scores.png",
    ]
    alone = Results.read(store).runs.query("lr == 0.5")["key"]
    files = figures.draw_all(store, out, only=["scores"], formats=["png"], keys=alone)
    assert files == [out / "scores.png"]


def test_a_new_figure_is_one_dropped_file(
    tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        '"""How many runs?"""\n'
        "from matplotlib.figure import Figure\n"
        "def draw(results):\n"
        "    figure = Figure()\n"
        "    figure.suptitle(f'{len(results.runs)} runs')\n"
        "    return figure\n"
    )
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(tmp_path)])
    assert "mine" in figures.names()
    assert figures.describe("mine") == "How many runs?"
    files = figures.draw_all(fill(["norm"], 2), tmp_path, only=["mine"])
    assert [path.name for path in files] == ["mine.png", "mine.svg"]
    sys.modules.pop("gclip.figures.mine")


def test_a_diverged_run_stays_in_the_mean_at_chance(fill: Fill) -> None:
    results = Results.read(fill(["none"], 10)).scored()
    diverged = results.runs[results.runs["status"] == "diverged"]
    assert 3 < len(diverged) < 10
    curves = learning_curves.completed(results)
    assert (curves.groupby("epoch").size() == 10).all()
    last = curves[curves["epoch"] == 5].set_index("key")
    assert (last.loc[diverged["key"], "score"] == 0.1).all()
    assert last.loc[diverged["key"], "train_loss"].isna().all()
    assert last["score"].mean() == pytest.approx(results.runs["score"].mean())


def test_diverged_runs_have_a_mark_of_their_own(fill: Fill) -> None:
    results = Results.read(fill(["none"], 10)).scored()
    figure = figures.draw("scores", results)
    count = int((results.runs["status"] == "diverged").sum())
    assert "a run that diverged" in texts(figure)
    assert f"{count} of 10 runs diverged" in texts(figure).replace("\n", " ")
    crosses = figure.axes[0].collections[1]
    assert len(np.asarray(crosses.get_offsets())) == count


@pytest.mark.parametrize("count", [3, 12])
def test_a_single_epoch_is_a_point(fill: Fill, count: int) -> None:
    results = Results.read(fill([f"norm(max_norm={i})" for i in range(1, count)], 2))
    first = dataclasses.replace(results, curves=results.curves[results.curves["epoch"] == 1])
    figure = figures.draw("learning_curves", first)
    for axes in figure.axes:
        points = [line for line in axes.lines if len(line.get_xdata()) == 1]
        assert any(line.get_marker() not in ("", "None", None) for line in points)


@pytest.mark.parametrize("name", ["scores", "norms", "forest", "learning_curves"])
def test_figures_draw_into_a_place_of_the_callers(compared: Results, name: str) -> None:
    """Its style is theirs, nothing is drawn beside it, and what it shows is the same."""
    results = compared
    whole = Figure(figsize=(9, 8), layout="constrained")
    above, below = whole.subfigures(2, 1)
    other = below.subplots()
    with mpl.rc_context({"font.size": 13.0}):
        if name in ("scores", "forest"):
            ax = above.subplots()
            given = getattr(figures, name).draw(results, ax=ax)
            assert given is above
            assert ax.xaxis.get_label().get_size() == 13.0
        else:
            given = getattr(figures, name).draw(results, figure=above)
            assert given is above
    assert not other.has_data()
    whole.draw_without_rendering()
    assert whole.get_layout_engine() is not None, "the layout stays the caller's"
    alone = figures.draw(name, results)
    shown, by_itself = (_drawn(each) for each in (above, alone))
    assert shown == by_itself
    assert len(above.axes) == len(alone.axes)


def _drawn(figure: Any) -> list[tuple[str, int]]:
    """What kind of things stand in each axes, and how many."""
    return [
        (type(each).__name__, len(getattr(each, "get_offsets", list)()))
        for axes in figure.axes
        for each in (*axes.collections, *axes.lines)
    ]


def test_a_figure_without_a_layout_gets_one_for_its_legends(fill: Fill) -> None:
    figure = Figure()
    assert figures.norms.draw(Results.read(fill(FEW, 2)), figure=figure) is figure
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert all(not legend.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_figures_by_their_names_are_those_of_draw(compared: Results) -> None:
    assert set(ALL) <= set(dir(figures))
    one, two = (
        figures.image_of(figure, "svg")
        for figure in (figures.scores.draw(compared), figures.draw("scores", compared))
    )
    assert one == two
    with pytest.raises(AttributeError, match="no attribute 'acuracy'"):
        _ = figures.acuracy
    nothing = compared.only([])
    with pytest.raises(UsageError, match="no run is finished yet"):
        figures.scores.draw(nothing)


def test_the_norms_of_updates_are_called_so(fill: Fill, compared: Results) -> None:
    of_gradients = texts(figures.draw("norms", compared))
    assert "Gradient norm, whole model" in of_gradients
    assert "update" not in of_gradients
    drawn = figures.draw("norms", Results.read(fill(("norm", "clippy"), 1)))
    both = texts(drawn).replace("\n", " ")
    assert "Norm of gradient or update" in both
    assert "Of the optimizer's update, not the gradient: clippy." in both


def test_a_figure_keeps_its_earlier_name(tmp_path):
    assert figures.accuracy is figures.scores
    assert figures.describe("accuracy") == figures.describe("scores")
