"""How high a learning rate does clipping allow? The highest stable one of each strategy.

Every strategy, with its threshold as given, is trained over the same grid of learning rates and
the same seeds. A learning rate is *stable* for a strategy when none of its seeds diverged and its
mean accuracy is at least half of that strategy's best; of another metric, when the mean is at least
a quarter of the way from the worst value to the strategy's best run. The *ceiling* is the end of
the unbroken stretch of stable learning rates that begins at the lowest stable one: beyond it, a
lucky learning rate is no help.

The ceiling is known to one step of the grid. One that is the grid's last value is a lower bound.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gclip.results.metric_text import interval_words
from gclip.results.metrics import is_accuracy, metric_of
from gclip.results.stability import SHARE, ceiling, least_mean, stable
from gclip.results.trained import RULE_OF_OTHERS
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
from gclip.studies._words import factor, measured, order_of
from gclip.text.screen import percent
from gclip.training.metric import Metric
from gclip.tuning.dimension import rounded
from gclip.tuning.space import check_lr_range
from gclip.tuning.study import Answer, Request

if TYPE_CHECKING:
    import pandas as pd

USES = ("points", "seeds", "lr_range")

POINTS = 8
SEEDS = (1000, 1001, 1002)
BELOW, ABOVE = 8.0, 16.0
"""The grid reaches from an eighth of the given learning rate to sixteen times it."""
SCORE_KEYS = ("score", "accuracy", "low", "high", "score_text", "accuracy_text")


def columns(metric: Metric) -> dict[str, str]:
    """Heading to key."""
    return {
        "strategy": "strategy",
        "ceiling": "ceiling_text",
        "vs none": "factor_text",
        f"best {metric.name}": "score_text",
        "at lr": "best_lr",
        "clipped %": "clipped_text",
        "div.": "diverged",
        "n": "n_each",
    }


def run(request: Request) -> Answer:
    """One row a strategy, the highest ceiling first."""
    cells = cells_of(request)
    runs = trained(request, cells)
    rows = table(runs)
    return Answer(
        rows=rows,
        columns=columns(metric_of(runs)),
        notes=[*_notes(runs, rows), *failures(runs)],
        figures={"lr_ceiling": drawing("lr_ceiling", "lr_ceiling", runs, rows)},
        labels=labels_of(cells),
        more={"grid": _cells(runs), "split": "validation"},
        ok=any(row["score"] is not None for row in rows),
    )


def run_count(request: Request) -> int:
    """How many runs there will be, for a display of how far they are."""
    return len(cells_of(request))


def cells_of(request: Request) -> list[Cell]:
    """All runs, seed by seed: a study that is interrupted has whole curves."""
    chosen = spellings(request)
    rates = grid(request.base.lr, request.lr_range, points_of(request, POINTS))
    base = request.base.replace(split="validation")
    return [
        ({"strategy": text, "rate": lr}, base.replace(strategy=text, lr=lr, seed=seed))
        for seed in seeds_of(request, SEEDS)
        for text in chosen
        for lr in rates
    ]


def grid(lr: float, lr_range: tuple[float, float] | None, points: int) -> tuple[float, ...]:
    """Learning rates from low to high, evenly on a log scale."""
    low, high = check_lr_range(*((lr / BELOW, lr * ABOVE) if lr_range is None else lr_range))
    return tuple(rounded(float(value)) for value in np.geomspace(low, high, points))


def table(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a strategy from one row a run (`strategy`, `rate`, `seed`, `accuracy`, `status`,
    `clip_rate`), the highest ceiling first; each beside that of ``none``.
    """
    metric = metric_of(runs)
    rows = [_row(str(text), some, metric) for text, some in runs.groupby("strategy", sort=True)]
    none = next((row for row in rows if row["strategy"] == "none"), None)
    for row in rows:
        row |= _beside(row, none)
    return sorted(
        rows,
        key=lambda row: (-(row["ceiling"] or 0.0), order_of(row["score"], metric), row["strategy"]),
    )


def _row(text: str, runs: pd.DataFrame, metric: Metric) -> dict[str, Any]:
    cells = {lr: summary(some, metric=metric) for lr, some in parts(runs, "rate").items()}
    steady = stable(cells, metric, least_mean(runs, metric))
    highest = ceiling(steady)
    known = {lr: metric.sign * cell["score"] for lr, cell in cells.items() if cell["n"]}
    best = max(known, key=lambda lr: known[lr], default=None)
    at_least = highest == max(cells)
    cell = cells[best] if best is not None else {}
    if highest is None:
        said = f"< {min(cells):g}"
    else:
        said = f"≥ {highest:g}" if at_least else f"{highest:g}"
    return {
        "strategy": text,
        "ceiling": highest,
        "ceiling_is_least": at_least,
        "ceiling_text": said,
        "stable_above": [lr for lr, fine in steady.items() if fine and lr > (highest or math.inf)],
        "best_lr": best,
        **{name: cell.get(name) for name in (*SCORE_KEYS, "clip_rate")},
        "clipped_text": percent(cell.get("clip_rate"), 0),
        "diverged": sum(cell["diverged"] for cell in cells.values()),
        "failed": sum(cell["failed"] for cell in cells.values()),
        "n_each": runs_each(cells.values()),
    }


def _beside(row: dict[str, Any], none: dict[str, Any] | None) -> dict[str, Any]:
    """The factor over the ceiling of ``none``: a bound where either is one, unknown for both."""
    nothing = {"factor": None, "factor_text": "–"}
    if none is None or row is none or not none["ceiling"] or not row["ceiling"]:
        return nothing
    ours, theirs = row["ceiling_is_least"], none["ceiling_is_least"]
    if ours and theirs:
        return nothing | {"factor_text": "both beyond"}
    times = row["ceiling"] / none["ceiling"]
    bound = "≥ " if ours else "≤ " if theirs else ""
    return {"factor": times, "factor_text": bound + factor(times)}


def _notes(runs: pd.DataFrame, rows: list[dict[str, Any]]) -> list[str]:
    seeds = sorted(int(seed) for seed in runs["seed"].unique())
    rates = sorted(float(rate) for rate in runs["rate"].unique())
    step = (rates[-1] / rates[0]) ** (1 / (len(rates) - 1))
    metric = metric_of(runs)
    rule = f"mean accuracy is at least {100 * SHARE:g} % of the strategy's best"
    if not is_accuracy(metric):
        rule = f"mean is better than {RULE_OF_OTHERS} of the strategy"
    notes = [
        f"Stable: none of the {len(seeds)} seeds ({', '.join(map(str, seeds))}) diverged and the "
        f"{rule}. The ceiling ends the unbroken stretch of stable learning rates.",
        f"It is known to one step of the grid, {factor(step)}; ≥ and < where the grid ends first.",
        f"{measured('Validation', metric)}, the mean with a {interval_words(metric)}; best of the "
        "grid: it looks better than it is. Thresholds are as given, not tuned.",
    ]
    lucky = [row for row in rows if row["stable_above"]]
    if lucky:
        notes.append(
            "Stable again above an unstable learning rate: "
            + "; ".join(
                f"{row['strategy']} at {', '.join(f'{lr:g}' for lr in row['stable_above'])}"
                for row in lucky
            )
            + "."
        )
    return notes


def _cells(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Every learning rate of every strategy."""
    rows = []
    metric = metric_of(runs)
    for text, some in runs.groupby("strategy"):
        cells = {lr: summary(rows, metric=metric) for lr, rows in parts(some, "rate").items()}
        steady = stable(cells, metric, least_mean(some, metric))
        rows += [
            {"strategy": text, "lr": lr, "stable": steady[lr], **cell} for lr, cell in cells.items()
        ]
    return rows
