"""How exactly must the threshold be right? Final accuracy over a grid of it, for each strategy.

The threshold is a strategy's first tunable number, or the field that the space gives a range to.
Its grid spans the search range of the class, evenly on the scale of the class, and the default is
one of the values. Everything else stays as it is. ``none`` is trained too, as the line to beat.

Scored on validation images: whoever takes a value from here has not looked at the test images. The
best of many values still looks better than it is; ``budget`` retrains winners on fresh seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gclip
from gclip.errors import UsageError
from gclip.results.metric_text import interval_words, score_text, worst_words
from gclip.results.metrics import is_accuracy, metric_of
from gclip.studies._runs import (
    Cell,
    drawing,
    failures,
    labels_of,
    parts,
    points_of,
    runs_each,
    seeds_of,
    spellings,
    summary,
    trained,
)
from gclip.studies._words import data_of, factor, listed, measured
from gclip.training.metric import Metric
from gclip.tuning.dimension import Dimension
from gclip.tuning.space import LR, check_overrides, fitting, single, space_of
from gclip.tuning.study import Answer, Request

if TYPE_CHECKING:
    import pandas as pd

USES = ("points", "seeds", "space")

POINTS = 7
SEEDS = (1000, 1001, 1002)
TOLERANCE = 0.02
"""Values whose mean accuracy is at most so far below the best one's are as good as it. Of another
metric it is a share of the way from the worst value to the best mean."""
SCORE_KEYS = ("score", "accuracy", "low", "high", "score_text", "accuracy_text", "clip_rate")


def columns(metric: Metric) -> dict[str, str]:
    """Heading to key."""
    return {
        "strategy": "strategy",
        "best": "best_text",
        metric.name: "score_text",
        "plateau": "plateau_text",
        "width": "width_text",
        "default": "default",
        "there": "default_text",
        "div.": "diverged",
        "n": "n_each",
    }


def run(request: Request) -> Answer:
    """One row a strategy, the widest plateau first."""
    grids = grids_of(request)
    cells = cells_of(request, grids)
    runs = trained(request, cells)
    defaults = {text: tried.default for text, tried in grids.items()}
    rows = table(runs, defaults)
    return Answer(
        rows=rows,
        columns=columns(metric_of(runs)),
        notes=[*_notes(runs, rows), *failures(runs)],
        figures={"sensitivity": drawing("sensitivity", "sensitivity", runs, rows)},
        labels=labels_of(cells),
        more={"grid": _cells(runs), "split": "validation"},
        ok=any(row["best"] is not None for row in rows),
    )


def run_count(request: Request) -> int:
    """How many runs there will be, for a display of how far they are."""
    return len(cells_of(request, grids_of(request)))


def grids_of(request: Request) -> dict[str, Grid]:
    """What is tried of each strategy but ``none``, which has no threshold."""
    chosen = [text for text in spellings(request) if text != "none"]
    if not chosen:
        raise UsageError("none has no threshold; name a strategy to vary, with --strategy")
    check_overrides(chosen, request.space)
    points = points_of(request, POINTS)
    return {text: grid(text, points, fitting(text, request.space)) for text in chosen}


def cells_of(request: Request, grids: Mapping[str, Grid]) -> list[Cell]:
    """All runs, seed by seed: a study that is interrupted has whole curves."""
    base = request.base.replace(split="validation")
    cells: list[Cell] = []
    for seed in seeds_of(request, SEEDS):
        none = {"strategy": "none", "threshold": "", "value": math.nan}
        cells.append((none, base.replace(strategy="none", seed=seed)))
        for text, tried in grids.items():
            for value, spelling in tried.spellings.items():
                labels = {"strategy": text, "threshold": tried.threshold, "value": value}
                cells.append((labels, base.replace(strategy=spelling, seed=seed)))
    return cells


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is tried of one strategy.

    Attributes:
        threshold: the field that is varied.
        default: its default, one of the values; None where it is not a number.
        spellings: of the strategy, by value, ascending.
    """

    threshold: str
    default: float | None
    spellings: Mapping[float, str]


def grid(text: str, points: int, overrides: Mapping[str, str] | None = None) -> Grid:
    """The values of a strategy's threshold, with its other settings held as they are spelled.

    Values that the strategy refuses beside its other settings are left out.

    Raises:
        UsageError: the strategy has no tunable number, or its spelling gives a value to the one
            that is varied, or `overrides` ask for more than one range.
    """
    strategy = single(text)
    plain = gclip.create(strategy.name)
    space = space_of(plain, overrides=overrides)
    numeric = [name for name, dimension in space.dimensions.items() if _numeric(dimension)]
    named = {key.rpartition(".")[2] for key in overrides or {}}
    asked = [name for name in numeric if name in named]
    if LR in space.dimensions or space.lr is not None:
        raise UsageError("this study leaves the learning rate alone; give it with --lr")
    if len(asked) > 1:
        raise UsageError(f"this study varies one field, but the space has {listed(asked)}")
    if not numeric:
        raise UsageError(f"{strategy} has no tunable number, so there is no threshold to vary")
    name = (asked or numeric)[0]
    if getattr(strategy, name) != getattr(plain, name):
        raise UsageError(f"{name} is what this study varies; leave it out of {strategy}")
    fixed = {
        field.name: getattr(space.strategy, field.name)
        for field in gclip.fields_of(type(plain))
        if getattr(space.strategy, field.name) != getattr(plain, field.name)
    }
    default = getattr(plain, name)
    values = set(space.dimensions[name].grid(points))
    spellings = {}
    for value in sorted(values if default is None else {default, *values}):
        try:
            spellings[float(value)] = str(dataclasses.replace(strategy, **{**fixed, name: value}))
        except UsageError:
            continue
    at = None if default is None else float(default)
    return Grid(threshold=name, default=at, spellings=spellings)


def _numeric(dimension: Dimension) -> bool:
    return all(
        isinstance(choice, int | float) and not isinstance(choice, bool)
        for choice in dimension.choices
    )


def table(runs: pd.DataFrame, defaults: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """One row a strategy from one row a run (`strategy`, `threshold`, `value`, `seed`, `accuracy`,
    `status`, `clip_rate`, `spelling`), the widest plateau first; the row of ``none`` comes last.

    The plateau is the unbroken stretch of values around the best one whose mean accuracy is at
    most `TOLERANCE` below it; its width is the factor between its ends, at least that if it
    reaches an end of the grid.
    """
    metric = metric_of(runs)
    rows = [_row(text, runs[runs["strategy"] == text], default, metric)
            for text, default in defaults.items()]  # fmt: skip
    rows.sort(key=lambda row: (-(row["width"] or 0.0), row["strategy"]))
    none = summary(runs[runs["strategy"] == "none"], metric=metric)
    return [*rows, {**_BLANK, "strategy": "none", **none, "n_each": str(none["n"])}]


_BLANK: dict[str, Any] = dict.fromkeys(
    (
        *("threshold", "best", "best_text", "best_spelling"),
        *SCORE_KEYS,
        *("plateau_low", "plateau_high", "plateau_text"),
        *("width", "width_is_least", "width_text"),
        *(
            "default",
            "default_score",
            "default_accuracy",
            "default_low",
            "default_high",
            "default_text",
            "values",
        ),
    )
)


def _row(text: str, runs: pd.DataFrame, default: float | None, metric: Metric) -> dict[str, Any]:
    values = parts(runs, "value")
    cells = {value: summary(rows, metric=metric) for value, rows in values.items()}
    # Higher is better of these, whatever the metric.
    means = {
        v: metric.sign * cell["score"] for v, cell in cells.items() if cell["score"] is not None
    }
    at_default = {} if default is None else cells.get(default, {})
    row = {
        **_BLANK,
        "strategy": text,
        "threshold": runs["threshold"].iloc[0],
        "default": default,
        "default_score": at_default.get("score"),
        "default_accuracy": at_default.get("accuracy"),
        "default_low": at_default.get("low"),
        "default_high": at_default.get("high"),
        "default_text": at_default.get("score_text", "–"),
        "values": len(cells),
        "diverged": sum(cell["diverged"] for cell in cells.values()),
        "failed": sum(cell["failed"] for cell in cells.values()),
        "n_each": runs_each(cells.values()),
    }
    if not means:
        return row
    best = max(means, key=lambda value: means[value])
    low, high = plateau(means, best, tolerance_of(cells[best]["score"], metric))
    open_ended = low == min(cells) or high == max(cells)
    width = high / low if low > 0 else None
    least = "≥ " if open_ended else ""
    cell = cells[best]
    return row | {
        "best": best,
        "best_text": f"{row['threshold']}={best:.3g}",
        "best_spelling": values[best]["spelling"].iloc[0],
        **{name: cell[name] for name in SCORE_KEYS},
        "plateau_low": low,
        "plateau_high": high,
        "plateau_text": f"{low:.3g} – {high:.3g}" if low < high else f"{low:.3g}",
        "width": width,
        "width_is_least": open_ended,
        "width_text": least + factor(width) if width is not None else "–",
    }


def tolerance_of(best: float, metric: Metric) -> float:
    """How far from the best mean one may be that is as good as it."""
    return TOLERANCE * (1.0 if is_accuracy(metric) else abs(best - metric.worst))


def plateau(
    means: dict[float, float], best: float, tolerance: float = TOLERANCE
) -> tuple[float, float]:
    """The ends of the unbroken stretch of values around `best` that are as good as it.

    Args:
        means: by value; higher is better.
        best: the value with the best mean.
        tolerance: how far below it a mean may be.
    """
    values = sorted(means)
    # A mean exactly at the tolerance belongs to it, whatever the last bit of the difference.
    good = [means[value] >= means[best] - tolerance - 1e-9 for value in values]
    first = last = values.index(best)
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(values) - 1 and good[last + 1]:
        last += 1
    return values[first], values[last]


def _notes(runs: pd.DataFrame, rows: list[dict[str, Any]]) -> list[str]:
    seeds = sorted(int(seed) for seed in runs["seed"].unique())
    metric = metric_of(runs)
    near, far = f"at most {100 * TOLERANCE:g} points below it", f"{100 * TOLERANCE:g} points below"
    if not is_accuracy(metric):
        way = f"{TOLERANCE:g} of the way from the worst value to the best"
        near, far = f"at most {way} off", f"{way} off"
    notes = [
        f"{measured('Validation', metric)}: the mean over "
        f"{len(seeds)} seeds ({', '.join(map(str, seeds))}) with a "
        f"{interval_words(metric, 'some do')}; a diverged run counts as {worst_words(metric)}.",
        f"plateau: the values around the best whose mean is {near}; width: the factor between its "
        "ends, ≥ where it reaches an end of the grid.",
        "The best of several values on the same seeds looks better than it is. On fresh seeds and "
        f"{data_of('test', metric)}: gclip compare, or gclip study run budget.",
    ]
    moved = {
        row["strategy"]: metric.sign * (row["score"] - row["default_score"])
        for row in rows
        if row["default_score"] is not None
    }
    bounds = {
        row["strategy"]: tolerance_of(row["score"], metric)
        for row in rows
        if row["score"] is not None
    }
    off = [text for text, by in moved.items() if by > bounds[text]]
    if off:
        where = "the best at its default" if is_accuracy(metric) else "at the default"
        notes.append(
            f"More than {far} {where}, on these seeds: "
            + ", ".join(f"{text} ({score_text(metric, moved[text])})" for text in off)
            + "."
        )
    return notes


def _cells(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Every value of every strategy, for those who want the curve itself."""
    metric = metric_of(runs)
    return [
        {"strategy": text, "value": value, **summary(some, metric=metric)}
        for text in dict.fromkeys(runs["strategy"])
        if text != "none"
        for value, some in parts(runs[runs["strategy"] == text], "value").items()
    ]
