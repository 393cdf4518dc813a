"""What does a better score cost? The score over the time of a run, a point a strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from gclip.results.frames import ordered
from gclip.results.intervals import mean_interval, t_interval
from gclip.results.metrics import metric_of

from ._compared import compared, is_compared, require
from ._looks import looks
from ._metrics import axis_label, clip_axis, format_axis, interval_of_mean, mark_worst
from ._over import even_on_log, log_axis
from ._page import page
from ._style import caption, finished, legend, pt, room, seeds, split, title, upright, wrapped

if TYPE_CHECKING:
    from gclip.results import Results


USUAL = False


def applies(results: Results) -> bool:
    """Whether these are at least two strategies whose runs say how long they took."""
    return is_compared(results) and bool((compared(results)["seconds"] > 0).any())


@finished
def draw(results: Results, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Up and to the left is better (of a loss: down); the bars are intervals of both means.

    Args:
        results: of a comparison.
        figure: draw into it; else into one of its own.

    Raises:
        UsageError: these are not runs of a comparison.
    """
    runs = require(results)
    metric, strategies = metric_of(runs), ordered(runs["strategy"])
    look = looks(strategies)
    figure = room(figure, 1.9)
    axes = figure.subplots()
    ink = page().style.ink
    times = []
    for text in strategies:
        own = runs[runs["strategy"] == text]
        score = mean_interval(own["score"], bounds=(metric.low, metric.high))
        time = t_interval(own["seconds"].dropna())
        times.append(time.value)
        colour = look[text].colour
        axes.plot([max(time.low, 0), time.high], [score.value] * 2, color=colour,
                  linewidth=pt(0.8), alpha=0.7)  # fmt: skip
        axes.plot([time.value] * 2, [score.low, score.high], color=colour, linewidth=pt(0.8),
                  alpha=0.7)  # fmt: skip
        axes.scatter(time.value, score.value, s=pt(5.5) ** 2, marker=look[text].marker,
                     color=colour, edgecolors=ink, linewidths=pt(0.5), zorder=3)  # fmt: skip
    if even_on_log(sorted(times)):
        log_axis(axes, min(times), max(times))
    clip_axis(axes, metric)
    format_axis(axes.yaxis, metric)
    mark_worst(axes, metric)
    axes.set(xlabel="Seconds a run", ylabel=upright(figure, axis_label(split(runs), metric), 0.7))
    legend(
        figure,
        [
            Line2D([], [], linestyle="", marker=look[text].marker, color=look[text].colour,
                   markersize=pt(4), label=wrapped(text, 40))
            for text in strategies
        ],
    )  # fmt: skip
    title(figure, "Score and time", runs)
    devices = sorted({str(each) for each in runs.get("device", []) if each})
    caption(
        figure,
        f"Points: means; {seeds(runs)}. Upright bars: {interval_of_mean(metric)}; level bars: 95 % "
        "t interval.",
        f"Seconds are of wall clock on {', '.join(devices) or 'the machine that trained'}, with "
        "whatever else it did; a run that diverged ended early. gclip study run overhead times "
        "strategies side by side.",
    )
    return figure
