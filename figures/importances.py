"""Which field mattered? The share of the score's variance that each searched field explains."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import seaborn as sns
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import PercentFormatter

from gclip.errors import UsageError
from gclip.results.frames import ordered

from ._looks import looks
from ._style import (
    caption,
    columns_for,
    left_out,
    letters,
    of_results,
    panels,
    pt,
    room,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from gclip.results import Results


USUAL = False


def applies(results: Results) -> bool:
    """Whether some strategy's trials are enough, and searched more than one field."""
    from gclip.tuning.inspection import FEWEST

    if "distributions" not in results.trials or results.trials.empty:
        return False
    ended = results.trials[results.trials["status"].isin(["finished", "diverged"])]
    several = ended[ended["params"].map(lambda text: len(json.loads(text)) > 1)]
    by_strategy = several.groupby("strategy")["score"]
    return bool(((by_strategy.size() >= FEWEST) & (by_strategy.nunique() > 1)).any())


@of_results
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A panel a strategy, a bar a field, the most important on top.

    fANOVA (Hutter, Hoos, Leyton-Brown, 2014), as Optuna computes it.

    Args:
        results: of a study that searched.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: no strategy has enough trials of several fields.
    """
    from gclip.tuning.inspection import FEWEST

    shares = _shares(results)
    if not shares:
        raise UsageError(
            f"importances need {FEWEST} complete trials, two searched fields and different scores"
        )
    strategies = ordered(shares)
    look = looks(strategies)
    columns = columns_for(len(strategies), 1.6, figure)
    lines = -(-len(strategies) // columns)
    most = max(len(each) for each in shares.values())
    figure = room(figure, 0.35 + lines * (0.45 + 0.17 * most))
    grid = panels(figure, len(strategies), columns, sharex=True)
    for axes, text in zip(grid, strategies, strict=True):
        own = shares[text]
        sns.barplot(x=list(own.values()), y=list(own), color=look[text].colour, ax=axes,
                    saturation=1, width=0.65)  # fmt: skip
        axes.set_title(wrapped(text, letters(0.84 / columns, figure=figure)), fontsize="small")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(most - 0.4, -0.6)
        axes.spines["top"].set(color=look[text].colour, linewidth=pt(2.2))
    grid[0].set_xlim(0, 1)
    grid[0].xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    grid[0].locator_params(axis="x", nbins=4)
    for axes in grid[-columns:]:
        axes.set_xlabel("Variance explained (%)")
    title(figure, "Which field mattered", results.runs.drop(columns="lr", errors="ignore"))
    counts = results.trials.groupby("strategy").size()
    others = [text for text in ordered(results.trials["strategy"]) if text not in shares]
    n = sorted({int(counts[text]) for text in strategies})
    caption(
        figure,
        f"fANOVA of n = {' or '.join(map(str, n))} trials a strategy; what is missing to 100 % is "
        "explained by fields together, or by chance.",
        left_out(others, "one field, or too few trials"),
    )
    return figure


def _shares(results: Results) -> dict[str, dict[str, float]]:
    """By strategy, the share of each field, the largest first."""
    from gclip.tuning.inspection import importances_of

    if not applies(results):
        return {}
    found = {str(text): importances_of(some) for text, some in results.trials.groupby("strategy")}
    return {text: shares for text, shares in found.items() if shares}
