"""Where a record says something else than the one before it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gclip.results.comparable import scored_runs
from gclip.results.intervals import Interval, mean_interval
from gclip.results.metric_text import interval_text, score_text
from gclip.results.metrics import metric_of, scores_of

if TYPE_CHECKING:
    import pandas as pd

    from gclip.results.record import Record
    from gclip.training.metric import Metric

_GROUPS = ("role", "search", "of", "strategy", "lr")


def differences(before: Record, after: Record) -> list[str]:
    """What differs, a sentence each: winners, and means outside the interval of the earlier ones.

    Trials are compared by their winners. A mean of several runs is to lie within the 95 % interval
    that the earlier record gives it; one of a single run is not compared.
    """
    said = [
        f"{name}: not in the record before"
        for name in after.sections
        if name not in before.sections
    ]
    for name in after.sections:
        if name in before.sections:
            own = [each.runs[each.runs["section"] == name] for each in (before, after)]
            said += _winners(name, *own)
            said += _means(name, *own)
    return said


def _winners(name: str, before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    was, now = (
        {
            (str(row["search"]), str(row["of"])): (str(row["strategy"]), float(row["lr"]))
            for row in frame[frame["role"] == "tuned"].to_dict("records")
        }
        for frame in (before, after)
    )
    return [
        f"{name}: the winner of {of} ({search}) was {was[search, of][0]} at lr "
        f"{was[search, of][1]:.4g}, and is {found[0]} at lr {found[1]:.4g}"
        for (search, of), found in now.items()
        if was.get((search, of), found) != found
    ]


def _means(name: str, before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    said = []
    keys = [each for each in _GROUPS if each in before and each in after]
    now = dict(iter(after[after["role"] != "trial"].groupby(keys, dropna=False)))
    for which, some in before[before["role"] != "trial"].groupby(keys, dropna=False):
        other = now.get(which)
        if other is None or len(some) < 2 or _same(some, other):
            continue
        metric = metric_of(some)
        ends, mean = _interval(some, metric), _interval(other, metric).value
        if not (math.isnan(mean) or ends.low <= mean <= ends.high):
            role, strategy = str(which[0]), str(which[keys.index("strategy")])
            text = interval_text(metric, ends.value, ends.low, ends.high)
            said.append(
                f"{name}: {role} {strategy} scored {text}, and scores "
                f"{score_text(metric, mean)} ({len(other)} runs)"
            )
    return said


def _same(some: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether they are the same runs with the same scores."""
    scores = [frame.set_index("key")["score"].sort_index() for frame in (some, other)]
    return bool(scores[0].equals(scores[1]))


def _interval(runs: pd.DataFrame, metric: Metric) -> Interval:
    counting = scored_runs(runs).reset_index(drop=True)
    return mean_interval(scores_of(counting), bounds=(metric.low, metric.high))
