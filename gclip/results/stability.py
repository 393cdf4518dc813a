"""At which learning rates does a strategy train, and where does that end?

A learning rate is *stable* for a strategy when none of its seeds diverged and its mean accuracy is
at least half of that strategy's best; of another metric, when the mean is at least a quarter of the
way from the worst value to the strategy's best run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gclip.results.comparable import scored_runs
from gclip.results.metrics import is_accuracy, metric_of, scores_of
from gclip.results.trained import trained_from
from gclip.training.metric import ACCURACY, Metric

if TYPE_CHECKING:
    import pandas as pd

SHARE = 0.5
"""Of a strategy's best accuracy: with less than that it does not train."""


def stable(
    cells: dict[float, dict[str, Any]], metric: Metric = ACCURACY, least: float | None = None
) -> dict[float, bool]:
    """Which learning rates are stable.

    Args:
        cells: for each what its runs came to: `n`, `diverged`, and the mean `score` (or
            `accuracy`).
        metric: of the runs.
        least: the least good mean of a stable learning rate; by default a share of the best.
    """
    name = "accuracy" if is_accuracy(metric) else "score"
    best = metric.best(cell[name] for cell in cells.values() if cell["n"])
    bound = SHARE * best if least is None else least
    return {
        lr: bool(cell["n"]) and not cell["diverged"] and metric.sign * (cell[name] - bound) >= 0
        for lr, cell in sorted(cells.items())
    }


def least_mean(runs: pd.DataFrame, metric: Metric) -> float | None:
    """What one strategy's mean must reach; None for the share of its best accuracy."""
    return None if is_accuracy(metric) else trained_from(scored_runs(runs), metric)


def ceiling(steady: dict[float, bool]) -> float | None:
    """The end of the unbroken stretch of stable rates that begins at the lowest stable one."""
    highest = None
    for lr in sorted(steady):
        if steady[lr]:
            highest = lr
        elif highest is not None:
            break
    return highest


def ceiling_of(runs: pd.DataFrame, rates: pd.Series[float]) -> tuple[float | None, bool]:
    """The highest stable learning rate of one strategy's runs, and whether it is the last tried.

    Args:
        runs: one row a run: `status`, `score` or `accuracy`.
        rates: the learning rate of each.
    """
    metric = metric_of(runs)
    cells: dict[float, dict[str, Any]] = {}
    for rate in sorted(set(rates)):
        some = scored_runs(runs[rates == rate])
        mean = float(scores_of(some).mean()) if len(some) else float("nan")
        diverged = int((some["status"] == "diverged").sum())
        cells[float(rate)] = {
            "n": len(some), "diverged": diverged, "accuracy": mean, "score": mean,
        }  # fmt: skip
    highest = ceiling(stable(cells, metric, least_mean(runs, metric)))
    return highest, highest is not None and highest == max(cells)
