"""By what are the runs of a data frame measured, and what did each score?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from gclip.errors import UsageError
from gclip.training.metric import ACCURACY, Metric
from gclip.training.tasks import metric_of_task

if TYPE_CHECKING:
    import pandas as pd

METRIC_COLUMNS = ("metric", "better", "worst", "unit", "lowest", "highest", "decimals")
"""What a frame of runs says of their metric: its name, and all that `metric_of` needs."""


def metric_of(runs: pd.DataFrame) -> Metric:
    """What the runs are measured by.

    Runs stored before there were metrics, and frames without one, have accuracy. Its ``worst`` is
    the chance that the runs recorded, or that of the ten classes of the built-in tasks. A failed
    run has no metric: where all of them failed, it is that of their task.

    Args:
        runs: one row a run: a frame of `gclip.results.load`, or one with a part of its columns.

    Raises:
        UsageError: the runs have several.

    Example:
        >>> import pandas as pd
        >>> metric_of(pd.DataFrame({"accuracy": [0.9], "chance": [0.01]})).worst
        0.01
    """
    if "metric" not in runs or runs.empty:
        return _accuracy(runs)
    measured = runs[runs["metric"].notna()]
    if measured.empty:
        return metric_of_task(str(runs["task"].iloc[0])) if "task" in runs else ACCURACY
    kinds = measured[["metric", "better", "unit"]].drop_duplicates()
    if len(kinds) > 1:
        *most, last = [f"{name} ({better} is better)" for name, better, _ in kinds.to_numpy()]
        raise UsageError(
            f"the runs are measured by {', '.join(most)} and {last}, which make no one table: "
            "choose the runs of one experiment"
        )
    if kinds["metric"].iloc[0] == ACCURACY.name:
        return _accuracy(measured)
    first = {name: measured[name].iloc[0] for name in METRIC_COLUMNS}
    metric = Metric(
        str(first["metric"]),
        better=first["better"],
        worst=float(first["worst"]),
        unit=str(first["unit"]),
        low=float(measured["lowest"].min()),
        high=float(measured["highest"].max()),
        decimals=int(measured["decimals"].max()),
    )
    # As of several chances the highest: to be better than one of them shows nothing.
    return dataclasses.replace(metric, worst=metric.best(measured["worst"]))


def metric_of_pairs(pairs: Iterable[tuple[pd.DataFrame, pd.DataFrame]]) -> Metric:
    """`metric_of` all the runs of a few comparisons; accuracy without any."""
    import pandas as pd

    frames = [runs for pair in pairs for runs in pair if len(runs)]
    return metric_of(pd.concat(frames, ignore_index=True)) if frames else ACCURACY


def metric_cells(metric: Metric) -> dict[str, Any]:
    """The METRIC_COLUMNS of a run."""
    values = (metric.name, metric.better, metric.worst, metric.unit, metric.low, metric.high)
    return dict(zip(METRIC_COLUMNS, (*values, metric.decimals), strict=True))


def scores_of(runs: pd.DataFrame) -> NDArray[np.float64]:
    """The value of each run's metric; of a frame without ``score`` its accuracy. Shape (runs,)."""
    name = "score" if "score" in runs else "accuracy"
    return cast("NDArray[np.float64]", runs[name].to_numpy(dtype=float))


def with_scores(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with a column ``score``."""
    return runs if "score" in runs else runs.assign(score=scores_of(runs))


def is_accuracy(metric: Metric) -> bool:
    """Whether it is the share of right answers, of which chance and its odds are known."""
    return metric.name == ACCURACY.name


def _accuracy(runs: pd.DataFrame) -> Metric:
    known = runs["chance"].dropna() if "chance" in runs else ()
    chance = float(max(known)) if len(known) else math.nan
    return ACCURACY if math.isnan(chance) else dataclasses.replace(ACCURACY, worst=chance)
