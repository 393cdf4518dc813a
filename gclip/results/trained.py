"""Which runs trained at all? Near the edge of stability a run learns, or it ends near chance.

Such outcomes are all or nothing: their mean is of no run, and says neither how often training works
nor how good it is where it does. So both are told: *trained k of n*, and the accuracy of those k.

A run trained if it finished clearly above chance: at least a quarter of the way from chance to the
best run that it is compared with, and with odds of a right answer of at least twice those of chance
(so that nothing has trained where even the best run ended near chance).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gclip.results.intervals import iqm, t_interval, wilson, within

if TYPE_CHECKING:
    import pandas as pd

CHANCE = 0.1
"""Of the ten classes that the built-in tasks have: for runs stored without it."""
WAY = 0.25
RULE = "a quarter of the way from chance to the best run, and at least twice the odds of chance"


def chance_of(runs: pd.DataFrame) -> float:
    """The accuracy of guessing, as far as the runs recorded it."""
    known = runs["chance"].dropna() if "chance" in runs else ()
    return float(max(known)) if len(known) else CHANCE


def trained_from(runs: pd.DataFrame) -> float:
    """The least accuracy of a run that trained, for all the ``runs`` that are compared.

    ``runs`` has one row a run: `status`, `accuracy` in [0, 1] and, where known, `chance`. Give all
    the runs of a table: the best of them is what the others are held against.
    """
    chance = chance_of(runs)
    finished = runs.loc[runs["status"] == "finished", "accuracy"].dropna()
    best = float(finished.max()) if len(finished) else chance
    twice_the_odds = 2 * chance / (1 + chance)
    return max(chance + WAY * (best - chance), twice_the_odds)


def trained(runs: pd.DataFrame, least: float) -> NDArray[np.bool_]:
    """For each row whether that run trained; `least` is of `trained_from`."""
    finished = (runs["status"] == "finished").to_numpy(dtype=bool)
    found: NDArray[np.bool_] = finished & (runs["accuracy"].to_numpy(dtype=float) >= least)
    return found


def trained_summary(runs: pd.DataFrame, least: float) -> dict[str, Any]:
    """Of one strategy's scored runs: how many trained, and how good those are.

    ``trained`` the count, ``trained_low`` and ``trained_high`` Wilson's 95 % interval of its share;
    of those that trained ``iqm_trained`` the interquartile mean, ``mean_trained`` with the ends of
    its t interval ``mean_trained_low`` and ``mean_trained_high``, cut at 0 and 1. NaN without any.
    """
    mask = trained(runs, least)
    share = wilson(int(mask.sum()), len(mask))
    scores = runs["accuracy"].to_numpy(dtype=float)[mask]
    mean = within(t_interval(scores))
    return {
        "trained": int(mask.sum()),
        "trained_low": share.low,
        "trained_high": share.high,
        "iqm_trained": iqm(scores),
        "mean_trained": mean.value,
        "mean_trained_low": mean.low,
        "mean_trained_high": mean.high,
    }


def rule(least: float) -> str:
    """The rule in words, with its number: ``finished with 30.1 % or more: a quarter …``."""
    return f"finished with {100 * least:.1f} % or more: {RULE}"
