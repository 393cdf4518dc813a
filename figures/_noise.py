"""What does each strategy withstand? Accuracy under every disturbance, beside the clean one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, PercentFormatter

from gclip.results.comparable import scored_runs

from ._rows import spread, whisker
from ._studies import looks_of
from ._style import BASELINE, MARKS, canvas, caption, panels, seeds, split, styled, title, wrapped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ._style import Look

CLEAN = "clean"
WIDE = 1.62


@styled
def draw(runs: pd.DataFrame) -> Figure:
    """A panel a condition, a row a strategy, the one with the best mean over all on top.

    Args:
        runs: one row a run: `disturbance`, `level`, `strategy`, `seed`, `status`, `accuracy`.
    """
    scored = scored_runs(runs).reset_index(drop=True)
    conditions = list(
        dict.fromkeys(zip(runs["disturbance"], runs["level"].astype(float), strict=True))
    )
    overall = scored.groupby("strategy")["accuracy"].mean()
    order = sorted(overall.index, key=lambda text: (-overall[text], text))
    look = looks_of(list(runs["strategy"]))
    figure = canvas(1.9 + WIDE * len(conditions), 2.1 + 0.4 * len(order))
    grid = panels(figure, len(conditions), len(conditions), sharey=True)
    heights = spread(scored)
    clean = scored[scored["disturbance"] == CLEAN].groupby("strategy")["accuracy"].mean()
    for axes, (name, level) in zip(grid, conditions, strict=True):
        at_level = scored[(scored["disturbance"] == name) & (scored["level"] == level)]
        axes.set_xlim(-0.03, 1.05)
        for place, text in enumerate(order):
            own = at_level[at_level["strategy"] == text]
            _row(axes, own, place, heights, look[text])
            if name != CLEAN and text in clean.index and len(own):
                axes.scatter(clean[text], place, s=46, marker="|", color=BASELINE, zorder=2)
        axes.set_title(_title(name, level), pad=5)
        axes.set_xlabel(f"{split(runs)} accuracy (%)", fontsize=8)
        axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(order)), [wrapped(text, 30) for text in order])
    grid[0].set_ylim(len(order) - 0.4, -0.6)
    figure.legend(handles=_legend(), loc="outside upper right", ncols=4)
    title(figure, "Accuracy under disturbances", runs)
    per_cell = scored[scored["disturbance"] == CLEAN]
    caption(
        figure,
        f"Points: one run each, a seed at the same height in every row; {seeds(per_cell)}."
        if len(per_cell)
        else "",
        "Bars: 95 % interval of the mean, which holds where some do not train, too. Label noise: "
        "share of wrong training labels; gradient noise: heavy-tailed, times each tensor's root "
        "mean square; "
        "spikes: chance of a step with gradients 1000 times too large. Diverged runs score chance.",
    )
    return figure


def _row(axes: Axes, runs: pd.DataFrame, place: int, heights: pd.Series[float], look: Look) -> None:
    if runs.empty:
        return
    for status, marker in MARKS.items():
        some = runs[runs["status"] == status]
        axes.scatter(
            some["accuracy"], place + heights[some.index], s=12, marker=marker,
            color=look.colour, alpha=0.65, linewidths=0.8 if marker == "x" else 0,
        )  # fmt: skip
    mean = whisker(axes, place, runs["accuracy"], 1.3)
    axes.scatter(mean.value, place, s=24, marker="D", color=look.colour, edgecolors="black",
                 linewidths=0.8, zorder=4)  # fmt: skip


def _title(name: str, level: float) -> str:
    return name if name == CLEAN else f"{name.replace('_', ' ')} {level:g}"


def _legend() -> list[Line2D]:
    def mark(marker: str, label: str, **more: object) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, color=BASELINE, markersize=5,
                      label=label, **more)  # type: ignore[arg-type]  # fmt: skip

    return [
        mark("o", "a run"),
        mark("x", "diverged"),
        mark("D", "mean"),
        mark("|", "mean of its clean runs"),
    ]
