"""What did the comparison find? One row a strategy, with n and the evidence beside every claim."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError
from gclip.results.experiments import differing_settings
from gclip.results.intervals import finite, iqm, mean_interval, wilson
from gclip.results.paired import holm, probability_of_improvement, sign_flip

if TYPE_CHECKING:
    import pandas as pd

ENOUGH_PAIRS = 10
"""Fewer pairs than this support no claim."""
SIGNIFICANT = 0.05
COLUMNS = (
    *("strategy", "n", "accuracy", "low", "high", "iqm"),
    *("pairs", "difference", "diff_low", "diff_high", "p", "p_holm", "prob_improve", "evidence"),
    *("clip_rate", "verdict", "diverged", "div_low", "div_high", "failed", "seconds"),
)


def compare_table(runs: pd.DataFrame, baseline: str = "none") -> pd.DataFrame:
    """One row a strategy (COLUMNS), the most accurate first, each compared with ``baseline``.

    ``runs`` is a frame of ``gclip.results.load`` with at most one run for each strategy and seed.

    - ``n`` runs that finished or diverged; ``accuracy`` their mean with the t interval
      [``low``, ``high``], ``iqm``. Diverged runs score chance and count. Pruned and failed runs
      have no score; ``failed`` counts the latter.
    - ``difference`` to the baseline over the ``pairs`` of runs that share a seed, with the paired-t
      interval; ``p`` of the sign-flip test, ``p_holm`` corrected over all strategies of the table;
      ``prob_improve``; ``evidence`` says what may be claimed.
    - ``clip_rate`` mean share of clipped steps, ``verdict`` the most frequent one; ``diverged`` the
      rate with Wilson's interval; ``seconds`` mean per run.

    Intervals are at 95 %. What cannot be computed is NaN (one run has no interval; the baseline has
    no difference to itself). Raises UsageError when runs are ambiguous or a score is missing.
    """
    import pandas as pd

    scored = runs[runs["status"].isin(["finished", "diverged"])]
    _require_one_run_each(scored)
    _require_scores(scored)
    accuracy = {
        str(strategy): rows.set_index("seed")["accuracy"].astype(float)
        for strategy, rows in scored.groupby("strategy", sort=True)
    }
    table = []
    for strategy in sorted(set(runs["strategy"])):
        rows = scored[scored["strategy"] == strategy]
        failed = (runs["strategy"] == strategy) & (runs["status"] == "failed")
        table.append(
            {
                "strategy": strategy,
                **_own(rows),
                **_versus(accuracy, strategy, baseline),
                "failed": int(failed.sum()),
            }
        )
    for row, corrected in zip(table, holm([row["p"] for row in table]), strict=True):
        row["p_holm"] = corrected
        row["evidence"] = _evidence(row, baseline, baseline in accuracy)
    frame = pd.DataFrame(table, columns=list(COLUMNS))
    order = frame.sort_values(["accuracy", "strategy"], ascending=[False, True], kind="stable")
    return order.reset_index(drop=True)


def shown(value: float, digits: int = 3) -> str:
    """A number for people: ``n/a`` for NaN."""
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _own(rows: pd.DataFrame) -> dict[str, Any]:
    """What a strategy's runs say without any other."""
    mean = mean_interval(rows["accuracy"])
    rate = wilson(int((rows["status"] == "diverged").sum()), len(rows))
    verdicts = rows["verdict"].dropna().mode()
    return {
        "n": len(rows),
        "accuracy": mean.value,
        "low": mean.low,
        "high": mean.high,
        "iqm": iqm(rows["accuracy"]),
        "clip_rate": float(rows["clip_rate"].mean()),
        "verdict": str(verdicts.iloc[0]) if len(verdicts) else "",
        "diverged": rate.value,
        "div_low": rate.low,
        "div_high": rate.high,
        "seconds": float(rows["seconds"].mean()),
    }


def _versus(accuracy: dict[str, pd.Series[float]], strategy: str, baseline: str) -> dict[str, Any]:
    """A strategy against the baseline, over the seeds that both have."""
    if strategy == baseline or strategy not in accuracy or baseline not in accuracy:
        none = dict.fromkeys(("difference", "diff_low", "diff_high", "p", "prob_improve"), math.nan)
        return {"pairs": 0, **none}
    ours, theirs = accuracy[strategy].align(accuracy[baseline], join="inner")
    differences = finite(ours - theirs)
    interval = mean_interval(differences)
    return {
        "pairs": len(differences),
        "difference": interval.value,
        "diff_low": interval.low,
        "diff_high": interval.high,
        "p": sign_flip(differences),
        "prob_improve": probability_of_improvement(ours, theirs),
    }


def _evidence(row: dict[str, Any], baseline: str, present: bool) -> str:
    if row["strategy"] == baseline:
        return "baseline"
    if not present:
        return f"no run of {baseline}"
    if row["pairs"] < ENOUGH_PAIRS:
        return "too few seeds to tell"
    if row["p_holm"] >= SIGNIFICANT:
        return "no difference shown"
    return "better" if row["difference"] > 0 else "worse"


def _require_one_run_each(scored: pd.DataFrame) -> None:
    twice = scored[scored.duplicated(["strategy", "seed"], keep=False)]
    if twice.empty:
        return
    first = twice.iloc[0]
    same = twice[(twice["strategy"] == first["strategy"]) & (twice["seed"] == first["seed"])]
    names = [*differing_settings(same), *(["code"] if same["code"].nunique() > 1 else [])]
    raise UsageError(
        f"the runs hold {len(same)} results of {first['strategy']} with seed {first['seed']}, "
        f"which differ in {', '.join(names) or 'nothing'}: choose the runs of one experiment"
    )


def _require_scores(scored: pd.DataFrame) -> None:
    for key, strategy, accuracy in scored[["key", "strategy", "accuracy"]].to_numpy():
        finite(accuracy, f"the accuracy of run {key[:12]} ({strategy})")
