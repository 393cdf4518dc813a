"""How do all figures look alike? Colours, sizes, titles, captions.

A strategy has one colour, dash and marker in all figures of the same runs. The colours stay apart
for colour-blind readers; there are nine of them, so dash and marker tell more strategies apart.
"""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, cast

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import PlaceHolderLayoutEngine

from gclip.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Wong (2011) and seaborn's "colorblind", without yellow (too pale for a line) and grey.
PALETTE = (
    *("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#d55e00"),
    *("#56b4e9", "#8c5a2b", "#7a3db8", "#f08ac0"),
)
BASELINE = "#303030"
DASHES: tuple[Any, ...] = ("", (4, 1.5), (1, 1), (5, 1, 1, 1))
MARKERS = ("o", "s", "D", "^", "v", "P", "<", ">")
MARKS = {"finished": "o", "diverged": "x"}
"""Of a run's point, by how the run ended."""
FEW = 8
"""Up to so many strategies share one panel; more get a panel each."""


@dataclass(frozen=True)
class Look:
    """How one strategy is drawn, in every figure."""

    colour: str
    dash: Any
    marker: str


def looks(strategies: Sequence[str]) -> dict[str, Look]:
    """One look a strategy: ``none`` is dark grey, the others take the colours in turn."""
    by_strategy = {}
    others = [name for name in strategies if name != "none"]
    for index, name in enumerate(others):
        turn, colour = divmod(index, len(PALETTE))
        dash = DASHES[turn % len(DASHES)]
        by_strategy[name] = Look(PALETTE[colour], dash, MARKERS[index % len(MARKERS)])
    if "none" in strategies:
        by_strategy["none"] = Look(BASELINE, "", "o")
    return by_strategy


@contextmanager
def theme() -> Iterator[None]:
    """The style, whatever the reader's own matplotlib settings are, and only inside the block."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(sns.axes_style("whitegrid"))
        mpl.rcParams.update(
            {
                "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
                "font.size": 9,
                "axes.titlesize": 9,
                "axes.labelsize": 9,
                "xtick.labelsize": 8,
                "ytick.labelsize": 8,
                "legend.fontsize": 8,
                "legend.frameon": False,
                "axes.edgecolor": "#999999",
                "grid.color": "#e4e4e4",
                "savefig.dpi": 150,
                "svg.hashsalt": "gclip",
            }
        )
        yield


Draws = ParamSpec("Draws")


def styled(draw: Callable[Draws, Figure | SubFigure]) -> Callable[Draws, Figure]:
    """Draw in the common style, and lay the figure out once for all formats."""

    @functools.wraps(draw)
    def styled_draw(*args: Draws.args, **more: Draws.kwargs) -> Figure:
        with theme():
            figure = cast("Figure", draw(*args, **more))
            if not isinstance(figure.get_layout_engine(), PlaceHolderLayoutEngine):
                figure.draw_without_rendering()
                figure.set_layout_engine("none")  # from now on a placeholder: once is enough
        return figure

    return styled_draw


def finished(draw: Callable[Draws, Figure | SubFigure]) -> Callable[Draws, Figure | SubFigure]:
    """Of the runs that came to an end, in the common style, and laid out once for all formats.

    What is drawn into a given ``ax`` or ``figure`` keeps the style and the layout of its owner.

    Raises:
        UsageError: no run is finished.
    """

    @functools.wraps(draw)
    def draw_finished(*args: Draws.args, **into: Draws.kwargs) -> Figure | SubFigure:
        results: Any = args[0]
        scored = results.scored()
        if scored.runs.empty:
            raise UsageError("no run is finished yet, so there is nothing to draw")
        rest: Any = args[1:]
        if any(place is not None for place in (*rest, *into.values())):
            return draw(scored, *rest, **into)
        return styled(draw)(scored)  # type: ignore[call-arg]

    return draw_finished


def room(figure: Figure | SubFigure | None, width: float, height: float) -> Figure | SubFigure:
    """The figure to draw into: the given one, or an empty one of this size (inches).

    Legends stand outside the panels, which takes a layout: a figure without one gets
    ``constrained``.
    """
    if figure is None:
        return canvas(width, height)
    whole: Any = figure.get_figure(root=True)
    if whole.get_layout_engine() is None:
        whole.set_layout_engine("constrained")
    return figure


def canvas(width: float, height: float) -> Figure:
    """An empty figure (inches) that no global state of pyplot knows of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(figure: Any, count: int, columns: int, **share: Any) -> list[Axes]:
    """``count`` axes in a grid of ``columns``, in reading order."""
    rows = math.ceil(count / columns)
    grid = figure.subplots(rows, columns, squeeze=False, **share)
    flat = [axes for row in grid for axes in row]
    for axes in flat[count:]:
        axes.remove()
    for axes in flat[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)  # the last row may be short
    return flat[:count]


def title(figure: Figure | SubFigure, text: str, runs: pd.DataFrame) -> None:
    """What is shown, and under it the setting that all runs share."""
    figure.suptitle(f"{text}\n{setting(runs)}", x=0.01, ha="left", fontsize=11)


def caption(figure: Figure | SubFigure, *sentences: str) -> None:
    """One paragraph under the figure: what marks and bands are."""
    wide = max(40, int(figure.bbox.width / figure.dpi * 15.5))
    text = textwrap.fill(" ".join(sentence for sentence in sentences if sentence), wide)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color="#444444")


def setting(runs: pd.DataFrame) -> str:
    """What all the runs have in common, such as ``digits · lenet · sgd, lr 0.2 · 5 epochs``."""

    def common(name: str, text: str = "{}") -> str:
        values = list(runs[name].unique()) if name in runs else []
        if len(values) != 1:
            return ""
        value = values[0]
        return text.format(f"{value:g}" if isinstance(value, float) else value)

    optimizer = ", ".join(filter(None, [common("optimizer"), common("lr", "lr {}")]))
    parts = [common("task"), common("model"), optimizer]
    epochs = common("epochs", "{} epochs")
    parts += [common("batch_size", "batch {}"), "1 epoch" if epochs == "1 epochs" else epochs]
    return " · ".join(filter(None, parts))


def split(runs: pd.DataFrame) -> str:
    """``Test`` or ``Validation``: the images that were scored."""
    names = list(runs["split"].unique()) if "split" in runs else []
    return str(names[0]).capitalize() if len(names) == 1 else "Test"


def wrapped(strategy: str, width: int = 30) -> str:
    """A strategy's spelling in lines of at most ``width``, broken after commas if possible."""
    return "\n".join(textwrap.wrap(strategy, width, break_on_hyphens=False)) or strategy


def counted(runs: pd.DataFrame) -> str:
    """``n = 10, 2 diverged``."""
    diverged = int((runs["status"] == "diverged").sum())
    return f"n = {len(runs)}" + (f", {diverged} diverged" if diverged else "")


def seeds(runs: pd.DataFrame) -> str:
    """How many runs stand behind each strategy: ``n = 10 seeds`` or ``n = 4 to 10 seeds``."""
    counts = runs.groupby("strategy").size()
    return f"n = {extent(counts)} seed{'s' if counts.max() != 1 else ''} a strategy"


def extent(counts: Iterable[int]) -> str:
    """``10``, or ``4 to 10`` where they differ."""
    known = sorted(counts)
    low, high = known[0], known[-1]
    return str(low) if low == high else f"{low} to {high}"


def extremes(values: Iterable[float]) -> tuple[float, float]:
    """The lowest and the highest run, as seaborn wants it: a band that needs no assumption, and
    that shows it where some runs do not train."""
    vector = np.asarray(list(values), dtype=float)
    return float(np.nanmin(vector)), float(np.nanmax(vector))
