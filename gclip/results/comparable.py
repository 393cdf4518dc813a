"""Which runs of a store belong to one comparison?

A store may hold several: other tasks, other learning rates, trials of a study. Runs that agree in
everything but strategy and seed are one experiment; averages and pairs make sense only inside one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# What may differ inside one experiment. Its code, and whether the rules of stepping have a say, go
# with the strategy.
_OF_STRATEGY = {"code", "stepping"}
# What is recorded beside a run changes nothing of it.
_BESIDE = {"watch"}
_FREE = {"strategy", "seed", *_OF_STRATEGY, *_BESIDE}


def scored_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows that count: finished, or diverged, which score the worst value."""
    return runs[runs["status"].isin(["finished", "diverged"])]


def experiments(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each experiment in ``runs`` (a frame of ``load``), by name.

    The name has as many of the differing settings as it takes to tell the experiments apart,
    ``"task=digits lr=0.1"``; it is ``""`` if there is only one. Sorted by name.
    """
    if runs.empty:
        return {}
    differing = differing_settings(runs)
    if not differing:
        return {"": runs}
    kinds = runs[differing].drop_duplicates()
    telling: list[str] = []
    apart = 1
    for name in differing:
        parts = len(kinds.drop_duplicates([*telling, name]))
        if parts > apart:
            telling.append(name)
            apart = parts
        if apart == len(kinds):
            break
    found = {}
    for values, rows in runs.groupby(telling, sort=False, dropna=False):
        pairs = zip(telling, values, strict=True)
        found[" ".join(f"{name}={value}" for name, value in pairs)] = rows.reset_index(drop=True)
    return dict(sorted(found.items()))


def differing_settings(runs: pd.DataFrame) -> list[str]:
    """The config fields, besides strategy, its code and the seed, in which the runs differ."""
    fixed = [name for name in settings(runs) if name not in _FREE]
    return [name for name in fixed if runs[name].nunique(dropna=False) > 1]


def settings(runs: pd.DataFrame) -> list[str]:
    """The columns of ``runs`` that are config fields, the telling ones first."""
    return list(runs.columns[1 : list(runs.columns).index("status")])


def newest(runs: pd.DataFrame) -> pd.DataFrame:
    """One run for each experiment, strategy and seed: the newest, should its code have changed."""
    same = [name for name in settings(runs) if name not in _OF_STRATEGY | _BESIDE]
    order = runs["date"].fillna("").astype(str).sort_values(kind="stable").index
    chosen = runs.loc[order].drop_duplicates(same, keep="last")
    return runs.loc[runs.index.isin(chosen.index)].reset_index(drop=True)
