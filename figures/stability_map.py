"""Where does training work? The score over learning rate and threshold, divergence hatched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from gclip.errors import UsageError
from gclip.results.frames import ordered
from gclip.results.metrics import metric_of, with_scores
from gclip.results.varied import with_thresholds

from ._compared import ended, one_setting
from ._looks import looks
from ._metrics import axis_label, format_axis, worst_of
from ._over import even_on_log, log_axis
from ._page import page
from ._style import (
    caption,
    columns_for,
    dot,
    finished,
    left_out,
    legend,
    letters,
    panels,
    pt,
    room,
    side_label,
    split,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.results import Results

FEWEST = 3
"""Learning rates, and thresholds, below which there is no map."""
CELLS = 90


USUAL = False


def applies(results: Results) -> bool:
    """Whether some strategy was trained at several learning rates and several thresholds."""
    runs = ended(results)
    return "lr" in runs and one_setting(runs) and len(runs) > 0 and bool(_families(_tried(runs)))


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel a strategy; every point that was tried has the colour of its mean score, and so has
    what is nearer to it than to any other.

    Args:
        results: runs of a grid or trials of a search, over learning rate and threshold.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: no strategy has several of both.
    """
    metric, tried = metric_of(results.runs), _tried(results.runs)
    strategies = _families(tried)
    if not strategies:
        raise UsageError(
            f"no strategy was trained at {FEWEST} learning rates and {FEWEST} thresholds: "
            "gclip study run thresholds -s norm"
        )
    look = looks(strategies)
    shown = tried[tried["strategy"].isin(strategies)]
    columns = columns_for(len(strategies), 1.4, figure)
    rows = -(-len(strategies) // columns)
    figure = room(figure, 0.70 + 1.4 * rows)
    grid = panels(figure, len(strategies), columns, sharey=True)
    low, high = float(shown["score"].min()), float(shown["score"].max())
    norm = Normalize(low, high if high > low else low + 1e-9)
    image: Any = None
    rates = sorted(shown["lr"].unique())
    for axes, text in zip(grid, strategies, strict=True):
        own = shown[shown["strategy"] == text]
        image = _map(axes, own, norm, "viridis" if metric.better == "higher" else "viridis_r")
        axes.set_title(wrapped(text, letters(0.86 / columns, figure=figure)))
        axes.spines["top"].set(color=look[text].colour, linewidth=pt(2.2))
        axes.set_xlabel(str(own["threshold"].iloc[0]))
    if even_on_log([float(rate) for rate in rates]):
        _vertical_log(grid[0])
    grid[0].set_ylim(*_ends(np.array(rates, dtype=float)))
    side_label(figure, "Learning rate")
    bar = figure.colorbar(image, ax=grid, location="bottom", aspect=35, pad=0.02)
    bar.set_label(axis_label(split(_searched(results.runs)), metric))
    format_axis(bar.ax.xaxis, metric, 0)
    soft = page().style.soft
    handles: list[Any] = [Line2D([], [], linestyle="", marker="o", color=soft, label="tried")]
    if (shown["diverged"] >= 0.5).any():
        handles += [
            Line2D([], [], linestyle="", marker="x", color=soft, label="diverged"),
            Patch(facecolor="none", edgecolor=soft, hatch="/////", label="nearest diverged"),
        ]
    legend(figure, handles)
    title(figure, "Learning rate and threshold", results.runs.drop(columns="lr", errors="ignore"))
    others = [text for text in ordered(tried["strategy"]) if text not in strategies]
    several = int(shown["n"].max())
    caption(
        figure,
        f"n = {len(shown)} points tried"
        + (f", each the mean of up to {several} seeds" if several > 1 else "")
        + "; between them the colour is that of the nearest. Hatched: at least half of its runs "
        f"diverged, and score {worst_of(metric)}.",
        left_out(others, "no map: too few learning rates or thresholds"),
    )
    return figure


def _searched(runs: pd.DataFrame) -> pd.DataFrame:
    """Without tuned strategies that were trained again: these were not tried, but found."""
    return runs[runs["form"].isna()] if "form" in runs else runs


def _tried(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a strategy, threshold and learning rate: mean score, share diverged, n."""
    varied = with_thresholds(with_scores(_searched(runs)))
    varied = varied[varied["value"].notna()]
    varied = varied.assign(diverged=(varied["status"] == "diverged").astype(float))
    groups = varied.groupby(["strategy", "threshold", "value", "lr"], as_index=False)
    return groups.agg(score=("score", "mean"), diverged=("diverged", "mean"), n=("score", "size"))


def _families(tried: pd.DataFrame) -> list[str]:
    counts = tried.groupby("strategy")[["value", "lr"]].nunique()
    return [text for text in ordered(counts.index) if (counts.loc[text] >= FEWEST).all()]


def _map(axes: Axes, tried: pd.DataFrame, norm: Normalize, colours: str) -> Any:
    values, rates = (tried[name].to_numpy(dtype=float) for name in ("value", "lr"))
    log_x, log_y = (even_on_log(sorted(set(each.tolist()))) for each in (values, rates))
    x_ends, y_ends = _ends(values), _ends(rates)
    x, y = (_even(ends, log) for ends, log in ((x_ends, log_x), (y_ends, log_y)))
    nearest = _nearest(
        *(_unit(each, ends, log) for each, ends, log in
          ((values, x_ends, log_x), (rates, y_ends, log_y))),
    )  # fmt: skip
    scores = tried["score"].to_numpy(dtype=float)[nearest]
    diverged = tried["diverged"].to_numpy(dtype=float)[nearest] >= 0.5
    edges = [_edges(each, log) for each, log in ((x, log_x), (y, log_y))]
    image = axes.pcolormesh(*edges, scores, norm=norm, cmap=colours, rasterized=True)
    if diverged.any():
        axes.contourf(x, y, diverged.astype(float), levels=[0.5, 1.5], colors="none",
                      hatches=["/////"])  # fmt: skip
    for bad, marker in ((False, "o"), (True, "x")):
        some = (tried["diverged"] >= 0.5) == bad
        axes.scatter(values[some], rates[some], s=dot(5), marker=marker, color="white",
                     edgecolors=None if bad else "black", linewidths=pt(0.8 if bad else 0.4),
                     zorder=3)  # fmt: skip
    axes.grid(visible=False)
    if log_x:
        log_axis(axes, float(values.min()), float(values.max()))
    axes.set_xlim(*x_ends)
    return image


def _ends(values: NDArray[Any]) -> tuple[float, float]:
    """The axis ends a little beyond the data."""
    low, high = float(values.min()), float(values.max())
    if even_on_log(sorted(set(values.tolist()))):
        margin = (high / low) ** 0.04
        return low / margin, high * margin
    margin = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    return low - margin, high + margin


def _even(ends: tuple[float, float], log: bool) -> NDArray[Any]:
    """The middles of the map's cells."""
    inner = (np.arange(CELLS) + 0.5) / CELLS
    if log:
        return np.asarray(ends[0] * (ends[1] / ends[0]) ** inner)
    return np.asarray(ends[0] + (ends[1] - ends[0]) * inner)


def _edges(middles: NDArray[Any], log: bool) -> NDArray[Any]:
    places = np.log(middles) if log else middles
    half = (places[1] - places[0]) / 2
    edges = np.append(places - half, places[-1] + half)
    return np.exp(edges) if log else edges


def _unit(values: NDArray[Any], ends: tuple[float, float], log: bool) -> NDArray[Any]:
    """Places between 0 and 1, as far apart as they look."""
    if log:
        return np.asarray(np.log(values / ends[0]) / np.log(ends[1] / ends[0]))
    return np.asarray((values - ends[0]) / (ends[1] - ends[0]))


def _nearest(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
    """For each cell the index of the nearest point, ``(rows, columns)``."""
    at = (np.arange(CELLS) + 0.5) / CELLS
    across = (at[None, :, None] - x) ** 2 + (at[:, None, None] - y) ** 2
    return np.asarray(across.argmin(axis=2))


def _vertical_log(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
