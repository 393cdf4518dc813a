"""What is drawn is what was computed: each figure's numbers beside the same, made another way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from scipy import stats

from gclip import figures
from gclip.figures import forest, learning_curves, ranks, stability_map
from gclip.results import Results
from gclip.results.metrics import metric_of
from gclip.results.statistics import compare_table, mean_interval
from tests.figures import made_up


def dots(axes: Any, marker_size: float | None = None) -> list[tuple[float, float]]:
    """The means: points with an edge."""
    return [
        tuple(offset)
        for part in axes.collections
        if hasattr(part, "get_sizes") and len(part.get_offsets()) == 1
        for offset in np.asarray(part.get_offsets())
    ]


def test_the_forest_is_the_table(compared: Results) -> None:
    table = compare_table(compared.runs, "none")
    rows = forest.differences(table, metric_of(compared.runs))
    axes = figures.draw("forest", compared).axes[0]
    assert dots(axes) == [(pytest.approx(row["value"]), place) for place, row in enumerate(rows)]
    assert [row["value"] for row in rows] == sorted((row["value"] for row in rows), reverse=True)
    by_name = table.set_index("strategy")
    for row in rows:
        found = by_name.loc[row["strategy"]]
        assert row["value"] in (found["difference"], found["difference_trained"])


def test_a_profile_is_the_share_of_runs_that_reach_a_score(compared: Results) -> None:
    axes = figures.draw("performance_profile", compared).axes[0]
    scored = compared.scored().runs
    lines = {line.get_color(): line for line in axes.lines}
    from gclip.figures._looks import looks

    for text, look in looks(compared.strategies).items():
        scores = scored.loc[scored["strategy"] == text, "score"].to_numpy()
        x, y = (np.asarray(each) for each in lines[look.colour].get_data())
        for at in (0.3, 0.8, 0.9, 0.95):
            step = y[np.searchsorted(x, at, side="right") - 1]
            assert step == pytest.approx((scores > at).mean())


def test_ranks_and_their_critical_difference() -> None:
    runs = made_up.rates().runs
    one = runs[runs["rate"] == 0.1].drop(columns="rate")
    results = made_up.results(runs=one)
    table = ranks.ranks(results)
    assert table.loc[0].to_dict() == {"none": 3.0, "agc": 2.0, "norm": 1.0}
    found = ranks.Ranked.of(table)
    # Demšar (2006): q for three and α = .05 is 2.343.
    assert found.critical == pytest.approx(2.343 * math.sqrt(3 * 4 / (6 * 3)), abs=1e-3)
    assert found.p == pytest.approx(stats.friedmanchisquare([3, 3, 3], [2, 2, 2], [1, 1, 1]).pvalue)
    assert [
        label.get_text() for label in figures.draw("ranks", results).axes[0].get_yticklabels()
    ] == [*("norm", "agc", "none")]


def test_the_map_has_the_mean_of_what_was_tried_and_hatches_divergence() -> None:
    rows = made_up.thresholds().runs
    grid = [rows[rows["strategy"] == "norm"].assign(lr=lr, score=rows["accuracy"] * lr)
            for lr in made_up.RATES]  # fmt: skip
    import pandas as pd

    runs = pd.concat(grid, ignore_index=True)
    runs.loc[runs["lr"] == 1.0, "status"] = "diverged"
    results = made_up.results("thresholds", runs=runs)
    tried = stability_map._tried(results.runs)
    assert len(tried) == 9
    cell = tried[(tried["value"] == 0.1) & (tried["lr"] == 0.1)].iloc[0]
    same = rows[(rows["strategy"] == "norm") & (rows["value"] == 0.1)]["accuracy"]
    assert cell["score"] == pytest.approx(0.1 * same.mean())
    assert tried.loc[tried["lr"] == 1.0, "diverged"].eq(1.0).all()
    axes = figures.draw("stability_map", results).axes[0]
    mesh = axes.collections[0].get_array()
    middle = np.asarray(mesh).reshape(stability_map.CELLS, stability_map.CELLS)[45, 45]
    assert middle == pytest.approx(cell["score"])
    assert any(getattr(part, "hatches", None) for part in axes.collections)


def test_thresholds_have_the_intervals_of_their_means() -> None:
    results = made_up.thresholds()
    runs = results.runs
    axes = next(a for a in figures.draw("sensitivity", results).axes if a.get_title() == "norm")
    line = axes.lines[-1].get_xydata()
    band = np.asarray(axes.collections[0].get_paths()[0].vertices)
    for value, middle in line:
        mean = mean_interval(
            runs[(runs["strategy"] == "norm") & (runs["value"] == value)]["accuracy"]
        )
        assert middle == pytest.approx(mean.value)
        at = band[np.isclose(band[:, 0], value)][:, 1]
        assert (at.min(), at.max()) == (pytest.approx(mean.low), pytest.approx(mean.high))
    assert band[:, 1].min() >= 0
    assert band[:, 1].max() <= 1


def test_ceilings_are_the_studys() -> None:
    from gclip.studies import lr_ceiling

    results = made_up.rates()
    said = {axes.get_title() for axes in figures.draw("lr_ceiling", results).axes}
    for row in lr_ceiling.table(results.runs):
        more = " or more" if row["ceiling_is_least"] else ""
        assert f"{row['strategy']}\nstable up to {row['ceiling']:g}{more}" in said


def test_violins_are_of_the_norms_before_and_after(compared: Results) -> None:
    from gclip.figures import norm_distributions

    norms = norm_distributions._norms(compared.scored().steps)
    own = norms[norms["strategy"] == "norm(max_norm=0.3)"]
    after = own[own["side"] == "after clipping"]["norm"]
    assert after.max() == pytest.approx(0.3, rel=1e-5)
    assert own[own["side"] == "before clipping"]["norm"].max() > 1
    assert set(own["phase"]) == {"1st", "2nd", "3rd"}


def test_only_limits_that_change_are_drawn(compared: Results) -> None:
    figure = figures.draw("limits", compared)
    [axes] = figure.axes
    assert axes.get_title().startswith("percentile")
    steps = compared.scored().steps
    own = steps[steps["strategy"] == "percentile"].groupby("step")["limit"].median()
    drawn = axes.lines[1].get_ydata()
    assert np.nanmax(drawn) <= own.max() * 1.001
    assert np.nanmin(drawn) >= own.min() * 0.999


def test_costs_are_means_of_seconds_and_scores(compared: Results) -> None:
    axes = figures.draw("cost", compared).axes[0]
    scored = compared.scored().runs
    means = scored.groupby("strategy")[["seconds", "score"]].mean()
    expected = sorted((row.seconds, row.score) for row in means.itertuples())
    assert sorted(dots(axes)) == [pytest.approx(each) for each in expected]


def test_importances_are_optunas() -> None:
    from gclip.tuning.inspection import importances_of

    trials = made_up.trials()
    axes = figures.draw("importances", made_up.searched()).axes[0]
    shares = importances_of(trials[trials["strategy"] == "agc"])
    assert shares is not None
    assert [bar.get_width() for bar in axes.patches] == [pytest.approx(v) for v in shares.values()]
    assert importances_of(trials[trials["strategy"] == "none"]) is None


@pytest.mark.parametrize("few", [8, 1], ids=["together", "a panel each"])
@pytest.mark.parametrize(("low", "scale"), [(1e-3, "log"), (0.0, "linear"), (0.5, "linear")])
def test_losses_over_decades_have_a_logarithmic_axis_and_plain_means(
    few: int, low: float, scale: str, compared: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_curves, "FEW", few)
    finished = compared.runs[compared.runs["status"] == "finished"]
    chance = np.random.default_rng(0)
    rows = [
        {"key": run["key"], "strategy": run["strategy"], "seed": run["seed"], "epoch": epoch,
         "accuracy": 0.5, "score": 0.5, "train_loss": loss * float(chance.uniform(0.5, 2))}
        for run in finished.to_dict("records")
        for epoch, loss in enumerate((2.0, 1.5, low), start=1)
    ]  # fmt: skip
    curves = pd.DataFrame(rows)
    drawn = figures.draw("learning_curves", Results(finished, curves, compared.steps))
    axes = [each for each in drawn.axes if each.get_yscale() == scale and each.lines]
    assert any("logarithmic" in text for text in texts_of(drawn)) == (scale == "log")
    means = curves.groupby(["strategy", "epoch"])["train_loss"].mean().unstack().to_numpy()
    lines = [np.asarray(line.get_ydata(), float) for each in axes for line in each.lines]
    for mean in means:
        assert any(len(y) == 3 and np.allclose(y, mean, rtol=1e-9) for y in lines)


def texts_of(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]
