"""Where do gradients vanish or explode? The norm of each layer's over training, before and after.

Drawn of runs with ``watch="layer"``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from gclip.errors import UsageError

from ._looks import looks
from ._style import (
    caption,
    counted,
    finished,
    inches,
    legend,
    letters,
    pt,
    room,
    seeds,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from gclip.results import Results

SIDES = {"before": "before clipping", "after": "after clipping"}
NOT_FINITE, SKIPPED, NOTHING = "#000000", "#d55e00", "#ffffff"
LABELS = 6
"""At most so many layers of a panel have their names beside it."""
_DECADES = 8  # of the colour scale at most: an exploding run must not flatten the others
_FEWEST_ROWS = 4  # a panel is as high as for so many layers


def applies(results: Results) -> bool:
    """Whether there is anything to draw: a run whose layers were watched."""
    return not results.study and bool(len(results.scored().layers))


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """A row a strategy: its layers by steps, the norm as colour, before clipping and after.

    Args:
        results: the runs.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: no run's layers were watched.
    """
    watched = results.layers
    if watched.empty:
        raise UsageError(
            'no finished run has norms of its layers: train with --watch layer (watch="layer")'
        )
    shown = [name for name in results.strategies if (watched["strategy"] == name).any()]
    diverged = results.runs["key"][results.runs["status"] == "diverged"]
    maps = {name: Heat.of(watched[watched["strategy"] == name], diverged) for name in shown}
    heights = [max(_FEWEST_ROWS, min(len(each.labels), 24)) for each in maps.values()]
    high = [0.28 + 0.06 * rows for rows in heights]
    figure = room(figure, 0.70 + sum(high) + 0.3 * len(high))
    grid: Any = figure.subplots(
        len(shown), 2, squeeze=False, sharex=True, sharey="row", height_ratios=high
    )
    end = max(int(heat.edges[-1]) for heat in maps.values())
    norm, colours = _scale(maps), _colours()
    look = looks(results.strategies)
    image: Any = None
    for row, (name, heat) in zip(grid, maps.items(), strict=True):
        runs = results.runs[results.runs["strategy"] == name]
        for axes, side in zip(row, SIDES, strict=True):
            image = _panel(axes, heat, side, colours, norm)
            _end(axes, heat, end)
            axes.spines["top"].set(color=look[name].colour, linewidth=pt(2.2))
        own = wrapped(f"{name}: seed {heat.seed} of {counted(runs)}", letters(0.9, figure=figure))
        row[0].set_title(own, loc="left", pad=pt(6), fontsize="small")
        _name_layers(row[0], heat)
    for axes, side in zip(grid[0], SIDES, strict=True):
        if inches(figure) > 5:
            axes.set_title(SIDES[side].capitalize(), loc="right", pad=pt(6))
    for axes, side in zip(grid[-1], SIDES, strict=True):
        axes.set_xlabel(f"Step, {SIDES[side]}")
    where = "right" if inches(figure) > 5 else "bottom"
    bar = figure.colorbar(image, ax=grid, aspect=40, pad=0.015, extend="both", location=where)
    bar.set_label("Gradient norm of the layer (L2)")
    legend(figure, _legend())
    title(figure, "Gradient norm of each layer over training", results.runs)
    caption(figure, *_notes(results.runs, maps))
    return figure


@dataclass(frozen=True)
class Heat:
    """One run as a map.

    Attributes:
        seed: of the run.
        diverged: whether the run did.
        labels: its layers, the first on top.
        edges: where its points in time begin, and where the last ends, ``(points + 1,)``.
        before: norms ``(layers, points)``; inf where not finite, NaN where there is none.
        after: the same after clipping.
        not_finite: whether some, but not all, steps of a point were not finite, ``(points,)``.
        skipped: whether some, but not all, were skipped, ``(points,)``.
        breaks: above which rows another player begins.
    """

    seed: int
    diverged: bool
    labels: tuple[str, ...]
    edges: NDArray[Any]
    before: NDArray[Any]
    after: NDArray[Any]
    not_finite: NDArray[Any]
    skipped: NDArray[Any]
    breaks: tuple[int, ...]

    @property
    def width(self) -> int:
        """How many steps a point stands for."""
        return int(self.edges[1] - self.edges[0])

    @classmethod
    def of(cls, rows: pd.DataFrame, diverged: Iterable[str] = ()) -> Heat:
        """Of the first seed among rows of `gclip.results.load_layers`.

        Args:
            rows: of one strategy.
            diverged: keys of the runs that did.
        """
        first = rows[rows["seed"] == rows["seed"].min()]
        first = first[first["key"] == first["key"].iloc[0]]
        order = list(dict.fromkeys(zip(first["player"], first["layer"], strict=True)))
        several = len({player for player, _ in order}) > 1
        steps = np.sort(first["step"].unique())
        width = int(np.diff(steps).min()) if len(steps) > 1 else 1
        by_layer = first.groupby(["player", "layer"], sort=False)

        def course(name: str) -> NDArray[Any]:
            lines = []
            for layer in order:
                own = by_layer.get_group(layer)
                # Between two steps of a player nothing is new.
                place = np.searchsorted(own["step"], steps, side="right") - 1
                values = own[name].to_numpy(dtype=float)
                lines.append(np.where(place < 0, math.nan, values[np.maximum(place, 0)]))
            return np.array(lines)

        players, skipped = [player for player, _ in order], course("skipped")
        return cls(
            seed=int(first["seed"].iloc[0]),
            diverged=first["key"].iloc[0] in set(diverged),
            labels=tuple(f"{player}.{layer}" if several else layer for player, layer in order),
            edges=np.append(steps, steps[-1] + width),
            before=course("before"),
            after=course("after"),
            not_finite=(np.isinf(course("before_max")) & ~np.isinf(course("before"))).any(axis=0),
            skipped=np.any((skipped > 0) & (skipped < 1), axis=0),
            breaks=tuple(i for i in range(1, len(players)) if players[i] != players[i - 1]),
        )


def _scale(maps: dict[str, Heat]) -> LogNorm:
    """One scale of colours for all panels, over nearly everything there is."""
    values = np.concatenate([getattr(m, side).ravel() for m in maps.values() for side in SIDES])
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return LogNorm(0.1, 10.0)
    low, middle, high = (float(q) for q in np.quantile(values, [0.005, 0.5, 0.995]))
    reach = 10.0 ** (_DECADES / 2)
    low, high = max(low, middle / reach), min(high, middle * reach)
    return LogNorm(low, high) if high > low else LogNorm(low / 2, high * 2)


def _colours() -> Colormap:
    """viridis without its darkest part, which is not to be taken for black: not finite."""
    colours = ListedColormap(colormaps["viridis"](np.linspace(0.12, 1, 256)))
    return colours.with_extremes(under=colours(0.0), over=colours(1.0), bad=(0, 0, 0, 0))


def _panel(axes: Axes, heat: Heat, side: str, colours: Colormap, norm: LogNorm) -> Any:
    values = getattr(heat, side)
    axes.set_facecolor(NOTHING)
    axes.grid(visible=False)
    whole = (heat.edges[0], -0.5), heat.edges[-1] - heat.edges[0], len(heat.labels)
    # Shows where nothing is drawn over it.
    axes.add_patch(Rectangle(*whole, facecolor=NOTHING, edgecolor="#b0b0b0", hatch="/////", lw=0))
    places = np.arange(len(heat.labels) + 1) - 0.5
    known = np.where(np.isfinite(values), np.maximum(values, np.finfo(float).tiny), np.nan)
    image = axes.pcolormesh(heat.edges, places, known, cmap=colours, norm=norm, rasterized=True)
    broken = np.where(np.isinf(values), 1.0, np.nan)
    axes.pcolormesh(
        heat.edges, places, broken, cmap=ListedColormap([NOT_FINITE]), vmin=0, vmax=1,
        rasterized=True,
    )  # fmt: skip
    axes.hlines(np.array(heat.breaks) - 0.5, heat.edges[0], heat.edges[-1], colors="white", lw=2)
    marked, colour = (heat.not_finite, NOT_FINITE) if side == "before" else (heat.skipped, SKIPPED)
    at = ((heat.edges[:-1] + heat.edges[1:]) / 2)[marked]
    if len(at):
        above = ScaledTranslation(0, pt(3.2) / 72, axes.figure.dpi_scale_trans)
        axes.plot(
            at, np.ones(len(at)), linestyle="", marker="v", markersize=pt(2.6), color=colour,
            markeredgewidth=0, transform=axes.get_xaxis_transform() + above, clip_on=False,
        )  # fmt: skip
    axes.set_ylim(len(heat.labels) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return image


def _end(axes: Axes, heat: Heat, end: int) -> None:
    """All panels have the steps of the longest run; where a shorter one ended is said there."""
    axes.set_xlim(0, end)
    if heat.diverged and heat.edges[-1] < 0.75 * end:
        axes.annotate(
            f"diverged at step {int(heat.edges[-1])}", (heat.edges[-1], 0.5), (6, 0),
            xycoords=axes.get_xaxis_transform(), textcoords="offset points", va="center",
            fontsize="small", color="#555555",
        )  # fmt: skip


def _name_layers(axes: Axes, heat: Heat) -> None:
    """Names beside the map; of many layers every second, third … and the last."""
    count = len(heat.labels)
    every = -(-count // LABELS)
    places = [place for place in range(0, count, every) if count - 1 - place >= every]
    places.append(count - 1)
    axes.set_yticks(places, [heat.labels[place] for place in places], fontsize="small")
    axes.set_ylabel("Layer", fontsize="small")


def _legend() -> list[Any]:
    def mark(colour: str, label: str) -> Line2D:
        return Line2D([], [], linestyle="", marker="v", color=colour, label=label)

    return [
        Patch(facecolor=NOT_FINITE, label="not finite"),
        mark(NOT_FINITE, "some not finite"),
        Patch(facecolor=NOTHING, edgecolor="#b0b0b0", hatch="/////", label="no gradient, skipped"),
        mark(SKIPPED, "some skipped"),
    ]


def _notes(runs: pd.DataFrame, maps: dict[str, Heat]) -> list[str]:
    widths = sorted({heat.width for heat in maps.values()})
    blocks = [width for width in widths if width > 1]
    means = f"geometric means over {' or '.join(map(str, blocks))} steps" if blocks else ""
    return [
        f"Of each strategy its first seed, of {seeds(runs)}.",
        f"Colours: {means or 'the norm at each step'}, on one scale for all panels.",
        "Each model's first layer is on top; a norm of 0 has the darkest colour.",
        "Marks above: at some of the steps that a point stands for." if blocks else "",
        "A run that diverged ends where it stopped."
        if (runs["status"] == "diverged").any()
        else "",
        "Strategies that clip the update, or single examples, leave these gradients as they are."
        if all(np.array_equal(m.before, m.after, equal_nan=True) for m in maps.values())
        else "",
    ]
