"""Which of the runs are one comparison: at most one run for each strategy and seed?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gclip.errors import UsageError
from gclip.results.comparable import scored_runs
from gclip.results.metrics import with_scores

if TYPE_CHECKING:
    import pandas as pd

    from gclip.results import Results

_GRIDS = ("rate", "value", "disturbance")
"""What a study calls its runs by that vary more than the strategy."""


def ended(results: Results) -> pd.DataFrame:
    """The runs that came to an end, without reading what belongs to each of them."""
    return scored_runs(results.runs).reset_index(drop=True)


def compared(results: Results) -> pd.DataFrame:
    """The runs that finished or diverged, one for each strategy and seed, with their `score`.

    Of a study that tuned strategies these are the tuned ones on fresh seeds. No row where the runs
    are no comparison: of a grid, or of trials.
    """
    runs = with_scores(ended(results))
    if "form" in runs:
        runs = runs[runs["form"] == "tuned"]
    elif len(results.trials) or any(name in runs for name in _GRIDS):
        return runs.iloc[:0]
    if not one_setting(runs) or runs.duplicated(["strategy", "seed"]).any():
        return runs.iloc[:0]
    return runs.reset_index(drop=True)


def one_setting(runs: pd.DataFrame) -> bool:
    """Whether the runs trained the same on the same, but for what figures of studies vary."""
    fixed = ("task", "model", "optimizer", "batch_size", "epochs", "metric")
    return all(runs[name].nunique() <= 1 for name in fixed if name in runs)


def is_compared(results: Results, strategies: int = 2, seeds: int = 2) -> bool:
    """Whether they are a comparison of so many strategies and seeds at least."""
    return _are_enough(compared(results), strategies, seeds)


def _are_enough(runs: pd.DataFrame, strategies: int, seeds: int) -> bool:
    return runs["strategy"].nunique() >= strategies and runs["seed"].nunique() >= seeds


def require(results: Results, strategies: int = 2, seeds: int = 2) -> pd.DataFrame:
    """`compared`, or the sentence that says what there has to be.

    Raises:
        UsageError: it is none, or too small a one.
    """
    runs = compared(results)
    if not _are_enough(runs, strategies, seeds):
        raise UsageError(
            f"this figure compares at least {strategies} strategies on at least {seeds} seeds, one "
            "run for each strategy and seed: choose such runs (gclip compare makes them)"
        )
    return runs


def baseline_of(runs: pd.DataFrame) -> str:
    """What the others are compared with: ``none`` if it takes part, else ``norm``, else the first
    by spelling."""
    present = sorted(set(runs["strategy"]))
    return next((name for name in ("none", "norm") if name in present), present[0])
