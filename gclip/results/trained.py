"""Which runs trained at all? Near the edge of stability a run learns, or it ends near chance.

Such outcomes are all or nothing: their mean is of no run, and says neither how often training works
nor how good it is where it does. So both are told: *trained k of n*, and the score of those k.

A run trained if it finished clearly better than the worst: at least a quarter of the way from the
metric's worst value to the best run that it is compared with. Of accuracy the worst is chance, and
the odds of a right answer must be at least twice those of chance, too (so that nothing has trained
where even the best run ended near chance); of another metric nothing has trained where no run
finished better than the worst value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gclip.results.intervals import iqm, t_interval, wilson, within
from gclip.results.metrics import is_accuracy, metric_of, scores_of
from gclip.training.metric import ACCURACY, Metric

if TYPE_CHECKING:
    import pandas as pd

WAY = 0.25
RULE = "a quarter of the way from chance to the best run, and at least twice the odds of chance"
RULE_OF_OTHERS = "a quarter of the way from the worst value to the best run"


def trained_from(runs: pd.DataFrame, metric: Metric | None = None) -> float:
    """The least score of a run that trained (the largest, where lower is better), for all the
    ``runs`` that are compared.

    Args:
        runs: one row a run: `status`, and what `gclip.results.metric_of` and its `score` are read
            from (or `accuracy` in [0, 1] and, where known, `chance`). Give all the runs of a table:
            the best of them is what the others are held against.
        metric: of the runs; read from them if left out.
    """
    metric = metric_of(runs) if metric is None else metric
    worst = metric.worst
    finished = (runs["status"] == "finished").to_numpy(dtype=bool)
    best = metric.best([*scores_of(runs)[finished]])
    if is_accuracy(metric):
        best = worst if np.isnan(best) else best
        twice_the_odds = 2 * worst / (1 + worst)
        return max(worst + WAY * (best - worst), twice_the_odds)
    if not metric.improves(best, worst):
        return float(np.nextafter(worst, metric.sign * np.inf))
    return worst + WAY * (best - worst)


def trained(runs: pd.DataFrame, least: float, metric: Metric | None = None) -> NDArray[np.bool_]:
    """For each row whether that run trained; `least` is of `trained_from`."""
    metric = metric_of(runs) if metric is None else metric
    finished = (runs["status"] == "finished").to_numpy(dtype=bool)
    found: NDArray[np.bool_] = finished & (metric.sign * (scores_of(runs) - least) >= 0)
    return found


def trained_summary(
    runs: pd.DataFrame, least: float, metric: Metric | None = None
) -> dict[str, Any]:
    """Of one strategy's scored runs: how many trained, and how good those are.

    ``trained`` the count, ``trained_low`` and ``trained_high`` Wilson's 95 % interval of its share;
    of those that trained ``iqm_trained`` the interquartile mean, ``mean_trained`` with the ends of
    its t interval ``mean_trained_low`` and ``mean_trained_high``, cut at the ends of the metric's
    range. NaN without any.
    """
    metric = metric_of(runs) if metric is None else metric
    mask = trained(runs, least, metric)
    share = wilson(int(mask.sum()), len(mask))
    scores = scores_of(runs)[mask]
    mean = within(t_interval(scores), (metric.low, metric.high))
    return {
        "trained": int(mask.sum()),
        "trained_low": share.low,
        "trained_high": share.high,
        "iqm_trained": iqm(scores),
        "mean_trained": mean.value,
        "mean_trained_low": mean.low,
        "mean_trained_high": mean.high,
    }


def rule(least: float, metric: Metric = ACCURACY) -> str:
    """The rule in words, with its number: ``finished with 30.1 % or more: a quarter …``."""
    way = "more" if metric.better == "higher" else "less"
    words = RULE if is_accuracy(metric) else RULE_OF_OTHERS
    return f"finished with {metric.text(least)} or {way}: {words}"
