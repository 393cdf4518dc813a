"""How do all figures look alike? Their places, titles, captions and legends."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, cast

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.transforms import ScaledTranslation

from gclip.errors import UsageError
from gclip.text.table import fill

from ._page import PAPER, page, theme

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MARKS = {"finished": "o", "diverged": "x"}
"""Of a run's point, by how the run ended."""
FEW = 8
"""Up to so many strategies share one panel; more get a panel each."""
SMALL = 5 / 6
"""Of the text's size: that of ticks, legends and captions."""
_LETTER = 0.54
"""The width of a letter of DejaVu Sans, on average, in sizes of the text."""

_GROWING: weakref.WeakSet[Any] = weakref.WeakSet()
"""Figures that have the height of their panels, to which titles and captions are added."""

Draws = ParamSpec("Draws")


def styled(draw: Callable[Draws, Figure | SubFigure]) -> Callable[Draws, Figure]:
    """Draw in the style of the page, and lay the figure out once for all formats."""

    @functools.wraps(draw)
    def styled_draw(*args: Draws.args, **more: Draws.kwargs) -> Figure:
        with theme():
            figure = cast("Figure", draw(*args, **more))
            engine = figure.get_layout_engine()
            if engine is not None and not isinstance(engine, PlaceHolderLayoutEngine):
                # Hinted text is wider at some resolutions: laid out for the one it is saved with.
                figure.set_dpi(float(mpl.rcParams["savefig.dpi"]))
                if figure.axes:
                    engine.execute(figure)
                figure.set_layout_engine("none")  # from now on a placeholder: once is enough
        return figure

    return styled_draw


@contextlib.contextmanager
def laid_out(figure: Figure) -> Iterator[None]:
    """While a figure is saved that `styled` has laid out: matplotlib draws one that has an engine
    twice, and a placeholder is one."""
    engine = figure.get_layout_engine()
    if not isinstance(engine, PlaceHolderLayoutEngine):
        yield
        return
    with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def of_results(draw: Callable[Draws, Figure | SubFigure]) -> Callable[Draws, Figure | SubFigure]:
    """A figure of results, in the style of the page, and laid out once for all formats.

    What is drawn into a given ``ax`` or ``figure`` keeps the style and the layout of its owner.
    """

    @functools.wraps(draw)
    def draw_results(*args: Draws.args, **into: Draws.kwargs) -> Figure | SubFigure:
        if any(place is not None for place in (*args[1:], *into.values())):
            return draw(*args, **into)
        return styled(draw)(*args, **into)

    return draw_results


def finished(draw: Callable[Draws, Figure | SubFigure]) -> Callable[Draws, Figure | SubFigure]:
    """As `of_results`, of the runs that came to an end.

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
        return of_results(draw)(scored, *rest, **into)

    return draw_finished


def room(figure: Figure | SubFigure | None, height: float) -> Figure | SubFigure:
    """The figure to draw into: the given one, or an empty one, as wide as the page, of a height in
    inches of paper.

    Legends stand outside the panels, which takes a layout: a figure without one gets
    ``constrained``.
    """
    if figure is None:
        return canvas(height)
    whole: Any = figure.get_figure(root=True)
    if whole.get_layout_engine() is None:
        whole.set_layout_engine("constrained")
    return figure


def canvas(height: float) -> Figure:
    """An empty figure, as wide as the page, that no global state of pyplot knows of.

    Args:
        height: in inches of paper, without title, legend and the paragraph below: it grows by
            those.
    """
    figure = Figure(figsize=(page().width, height * page().scale), layout="constrained")
    FigureCanvasAgg(figure)
    _GROWING.add(figure)
    pad = 0.03 * page().scale
    cast("Any", figure.get_layout_engine()).set(w_pad=pad, h_pad=pad)
    return figure


def _grow(figure: Figure | SubFigure, by: float) -> None:
    """Make a figure of ours higher, by inches; another's stays as its owner wants it."""
    if isinstance(figure, Figure) and figure in _GROWING:
        figure.set_figheight(figure.get_figheight() + by)


def inches(figure: Figure | SubFigure | None = None) -> float:
    """How wide a figure is, in inches of paper; by default the page."""
    if figure is None:
        return page().width / page().scale
    return float(figure.bbox.width / figure.dpi) / page().scale


def columns_for(count: int, each: float, figure: Figure | SubFigure | None = None) -> int:
    """How many of `count` panels stand side by side, where each takes so many inches of paper."""
    most = max(1, int((inches(figure) - 0.3) / each))
    rows = math.ceil(count / most)
    return max(1, math.ceil(count / rows))


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


def letters(share: float = 1.0, small: bool = True, figure: Any = None) -> int:
    """How many letters fit into a share of the figure's width."""
    size = PAPER * (SMALL if small else 1.0)
    return max(8, int(share * inches(figure) * 72 / (size * _LETTER)))


def title(figure: Figure | SubFigure, text: str, runs: pd.DataFrame | str) -> None:
    """What is shown, and under it the setting that all runs share, if the page has titles.

    Call it last: the legend goes under it.
    """
    if not page().titled:
        return
    below = runs if isinstance(runs, str) else setting(runs)
    width = letters(0.97, small=False, figure=figure)
    lines = [line for each in (text, below) if each for line in fill(each, width)]
    # Nothing of it is a formula, whatever a study or a strategy is called.
    head = figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize="medium", parse_math=False)
    if not figure.legends:
        _grow(figure, head.get_window_extent().height / figure.dpi)
        return
    own = figure.legends[-1]
    inch = figure.dpi
    high = (head.get_window_extent().height + pt(3)) / inch
    place = figure.transSubfigure + ScaledTranslation(0, -high, figure.dpi_scale_trans)
    own.set_bbox_to_anchor((0.0, 1.0), transform=place)
    # Empty lines under the title keep the legend's place free, in any layout.
    line = page().style.text * 1.2 / 72
    blank = math.ceil(own.get_window_extent().height / inch / line)
    head.set_text("\n".join([*lines, *[""] * blank]))
    _grow(figure, high + blank * line)


def caption(figure: Figure | SubFigure, *sentences: str) -> None:
    """One paragraph under the figure: what marks and bands are, if the page has titles."""
    text = " ".join(sentence for sentence in sentences if sentence)
    if not page().titled or not text:
        return
    text = text.replace("n = ", "n\xa0=\xa0")  # not to be parted
    lines = fill(text, letters(0.98, figure=figure))
    _grow(figure, (len(lines) + 0.5) * SMALL * page().style.text * 1.2 / 72)
    figure.supxlabel(
        "\n".join(lines).replace("\xa0", " "),
        x=0.01, ha="left", fontsize="small", color=page().style.soft, parse_math=False,
    )  # fmt: skip


def legend(figure: Figure | SubFigure, handles: Sequence[Any], columns: int | None = None) -> None:
    """A legend above the panels, in as many columns as there is room for."""
    if not handles:
        return
    longest = max(len(line) for each in handles for line in str(each.get_label()).split("\n"))
    most = columns or max(1, letters(0.98, figure=figure) // (longest + 7))
    rows = math.ceil(len(handles) / most)
    figure.legend(
        handles=handles, loc="upper left" if page().titled else "outside upper left",
        ncols=math.ceil(len(handles) / rows),
        columnspacing=1.2, handlelength=1.9, handletextpad=0.5, borderaxespad=0.2,
        labelspacing=0.35, borderpad=0.3,
    )  # fmt: skip
    if not page().titled:  # else the title knows
        _grow(figure, (rows * 1.35 + 0.6) * SMALL * page().style.text / 72)


def side_label(figure: Figure | SubFigure, text: str) -> None:
    """What all vertical axes of a figure are."""
    figure.supylabel(upright(figure, text), fontsize="medium")


def upright(figure: Figure | SubFigure, text: str, share: float = 1.0) -> str:
    """A label for a vertical axis, in as many lines as a share of the figure's height takes."""
    high = float(figure.bbox.height / figure.dpi) / page().scale
    return "\n".join(fill(text, max(12, int(share * high * 72 / (PAPER * _LETTER)))))


def pt(size: float) -> float:
    """Points on this page of what takes so many on paper: of a line, a marker, a gap."""
    return size * page().scale


def dot(size: float) -> float:
    """A point's area in points squared, on this page."""
    return size * page().scale ** 2


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
    """A strategy's spelling in lines of about ``width``, broken after brackets and commas alone."""
    lines = [""]
    for part in re.split(r"(?<=\()|(?<=, )|(?<= )", strategy):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


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


def left_out(names: Iterable[str], why: str) -> str:
    """The word about panels that would say nothing: ``Left out: none, soft (they have …).``"""
    said = ", ".join(dict.fromkeys(names))
    return f"Left out: {said} ({why})." if said else ""
