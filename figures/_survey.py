"""How large are the gradients of each scope, and where would suggested limits lie?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ._looks import looks
from ._page import page
from ._style import canvas, caption, letters, pt, styled, title, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gclip.survey.suggestions import Suggestion, Suggestions

MEASURED = {
    "global": "L2 norm of all gradients together",
    "layer": "L2 norm of each layer's gradients",
    "tensor": "L2 norm of each tensor's gradient",
    "unit": "L2 norm of each unit's gradient (an output row or filter)",
    "element": "each tensor's largest element",
}
Norms = npt.NDArray[np.floating[Any]]
_MOST = 20_000  # norms drawn of a scope
_BARS = 60
_TAIL = 0.005
_HIGH, _ROW = 0.7, 0.12  # inches: of a distribution, of a strategy


@styled
def draw(norms: Mapping[str, Norms], suggestions: Suggestions, setting: str = "") -> Figure:
    """A panel a scope: its norms above, and below them the limits that each strategy would set."""
    useful = [row for row in suggestions if row.value is not None and row.limit]
    look = looks([row.spelling for row in useful])
    rows = {scope: [row for row in useful if row.scope == scope] for scope in norms}
    heights = [part for scope in norms for part in (_HIGH, _ROW * (len(rows[scope]) + 0.6))]
    figure = canvas(sum(heights) + 0.36 * len(norms) + 0.5)
    grid = figure.subplots(2 * len(norms), 1, height_ratios=heights, squeeze=False)[:, 0]
    for place, (scope, values) in enumerate(norms.items()):
        above, below = grid[2 * place], grid[2 * place + 1]
        above.sharex(below)
        _distribution(above, values)
        _limits(below, rows[scope], {row.spelling: look[row.spelling].colour for row in useful})
        _range(below, values, rows[scope])
        above.set_title(f"{scope}: {MEASURED[scope]}", loc="left")
    grid[-1].set_xlabel("Size of the gradient")
    target = f"{100 * suggestions.clip_rate:g} %"
    title(figure, f"Gradient norms without clipping, and limits for {target} of the steps", setting)
    caption(
        figure,
        f"Bars: norms of {suggestions.steps:,} steps; the highest and lowest 0.5 % are cut "
        "off. Dots: median limit of each strategy with its suggested threshold; lines: 10 to "
        "90 % of its limits over steps and groups. In brackets: share of the steps whose "
        "total norm would shrink by more than 1 %, by replaying the norms.",
    )
    return figure


def _distribution(axes: Axes, values: Norms) -> None:
    drawn = _inner(values)
    if drawn.size:
        sns.histplot(
            x=drawn[:: -(-drawn.size // _MOST)],
            bins=_BARS if drawn.min() < drawn.max() else 1,
            log_scale=True,
            stat="percent",
            color="#4c9be8",
            edgecolor="white",
            linewidth=pt(0.3),
            ax=axes,
        )
    axes.set(ylabel="Share (%)", xlabel="")
    axes.tick_params(labelbottom=False)
    sns.despine(ax=axes, left=True)


def _limits(axes: Axes, rows: list[Suggestion], colours: Mapping[str, str]) -> None:
    axes.set_xscale("log")
    for place, row in enumerate(rows):
        colour = colours[row.spelling]
        middle = row.limit or np.nan
        low, high = row.limits or (middle, middle)
        axes.plot([low, high], [place, place], color=colour, linewidth=pt(1.5), alpha=0.5)
        axes.plot([middle], [place], marker="o", markersize=pt(3), color=colour)
    labels = [f"{row.spelling} ({100 * (row.limited_rate or 0):.0f} %)" for row in rows]
    axes.set_yticks(
        range(len(rows)), [wrapped(label, letters(0.36)) for label in labels], fontsize="small"
    )
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    if not rows:
        text = "no strategy with a suggestion works on this scope by default"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center",
                  fontsize="small", color=page().style.ink)  # fmt: skip
    sns.despine(ax=axes, left=True)


def _inner(values: Norms) -> Norms:
    """What a logarithmic axis can show, without the outermost."""
    fine = values[np.isfinite(values) & (values > 0)]
    if not fine.size:
        return fine
    low, high = np.quantile(fine, [_TAIL, 1 - _TAIL])
    inner: Norms = fine[(fine >= low) & (fine <= high)]
    return inner


def _range(axes: Axes, values: Norms, rows: list[Suggestion]) -> None:
    """The axis shows all norms drawn, and limits unless they are very far away."""
    drawn = _inner(values)
    if drawn.size:
        low, high = float(drawn.min()), float(drawn.max())
        for row in rows:
            if row.limit is not None and low / 30 < row.limit < high * 30:
                low, high = min(low, row.limit), max(high, row.limit)
        axes.set_xlim(low / 1.3, high * 1.3)
        if high / low < 3000:
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
