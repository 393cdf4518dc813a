"""What did the comparison find? One row a strategy, with n and the evidence beside every claim."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gclip.clipping.verdicts import verdict_of
from gclip.errors import UsageError
from gclip.results.comparable import differing_settings, scored_runs
from gclip.results.evidence import TOO_FEW, compare_pairs, finite_scores
from gclip.results.intervals import iqm, mean_interval, wilson
from gclip.results.metrics import is_accuracy, metric_of, scores_of, with_scores
from gclip.results.trained import trained_from, trained_summary
from gclip.training.metric import Metric

if TYPE_CHECKING:
    import pandas as pd

_PAIRED = {
    "pairs": "pairs",
    "difference": "difference",
    "diff_low": "low",
    "diff_high": "high",
    "p": "p",
    "p_holm": "p_holm",
    "prob_improve": "prob_improve",
    "evidence": "evidence",
    "both": "both",
    "ours_only": "ours_only",
    "theirs_only": "theirs_only",
    "p_trains": "p_trains",
    "difference_trained": "difference_trained",
    "diff_trained_low": "trained_low",
    "diff_trained_high": "trained_high",
    "p_trained": "p_trained",
}
"""The table's columns about pairs, and what `compare_pairs` calls them."""
_COUNTS = ("pairs", "both", "ours_only", "theirs_only")
COLUMNS = (
    *("strategy", "n", "score", "accuracy", "low", "high", "iqm"),
    *("trained", "trained_low", "trained_high", "trained_from"),
    *("iqm_trained", "mean_trained", "mean_trained_low", "mean_trained_high"),
    *_PAIRED,
    *("clip_rate", "limited_rate", "skipped_rate", "not_finite_rate", "verdict"),
    *("diverged", "div_low", "div_high", "failed", "seconds"),
)


def compare_table(runs: pd.DataFrame, baseline: str = "none") -> pd.DataFrame:
    """One row a strategy (COLUMNS), the best first, each compared with ``baseline``.

    ``runs`` is a frame of ``gclip.results.load`` with at most one run for each strategy and seed.

    - ``n`` runs that finished or diverged; ``score`` their mean, in the unit of the runs' metric
      (`gclip.results.metric_of`), with an interval that holds for all-or-nothing outcomes too
      [``low``, ``high``] where the metric has a range, else a t interval (`mean_interval`),
      ``iqm``; ``accuracy`` the same mean where that is the metric, else NaN. Diverged runs score
      the metric's worst value (of accuracy: chance) and count. Pruned and failed runs have no
      score; ``failed`` counts the latter.
    - ``trained`` of the n: runs that finished with at least ``trained_from`` (at most, where lower
      is better), a quarter of the way from the worst value to the best run of the table
      (`gclip.results.trained`), with
      Wilson's interval of their share [``trained_low``, ``trained_high``]; of those that trained
      the interquartile mean ``iqm_trained``, and ``mean_trained`` with its t interval.
    - ``difference`` to the baseline (ours less theirs, whichever is better) over the ``pairs`` of
      runs that share a seed, with its interval, ``p`` of the sign-flip test on all of them,
      ``prob_improve``; ``both``,
      ``ours_only`` and ``theirs_only``: in how many pairs both runs trained, or one alone;
      ``p_trains`` of McNemar's test on the latter; ``difference_trained`` with its t interval and
      ``p_trained`` of the sign-flip test where both trained; ``p_holm`` corrected over all tests of
      the table; ``evidence`` says what may be claimed (`gclip.results.evidence.compare_pairs`).
    - ``clip_rate`` mean share of the steps in which anything was clipped, ``limited_rate`` of those
      whose norm shrank by more than 1 %, ``skipped_rate`` and ``not_finite_rate`` of those left out
      or not finite; ``verdict`` on these shares (`gclip.clipping.verdicts`), so on all runs
      together; ``diverged`` the rate with Wilson's interval; ``seconds`` mean per run.

    Intervals are at 95 %. What cannot be computed is NaN (one run has no interval; the baseline has
    no difference to itself).

    Raises:
        UsageError: runs are ambiguous or of several metrics, or a score is missing.
    """
    import pandas as pd

    scored = scored_runs(runs)
    _require_one_run_each(scored)
    metric = metric_of(runs)
    _require_scores(scored, metric)
    least = trained_from(scored, metric)
    by_strategy = {str(text): rows for text, rows in scored.groupby("strategy", sort=True)}
    theirs = by_strategy.get(baseline)
    versus = {}
    if theirs is not None:
        pairs = {text: (rows, theirs) for text, rows in by_strategy.items() if text != baseline}
        versus = compare_pairs(pairs, least, metric)
    table = []
    for strategy in sorted(set(runs["strategy"])):
        rows = scored[scored["strategy"] == strategy]
        failed = (runs["strategy"] == strategy) & (runs["status"] == "failed")
        found = versus.get(strategy)
        if strategy == baseline:
            paired = _nothing("baseline")
        elif theirs is None:
            paired = _nothing(f"no run of {baseline}")
        elif found is None:
            paired = _nothing(TOO_FEW)
        else:
            paired = {name: found[key] for name, key in _PAIRED.items()}
        table.append(
            {
                "strategy": strategy,
                **_own(rows, least, metric),
                **paired,
                "failed": int(failed.sum()),
            }
        )
    frame = pd.DataFrame(table, columns=list(COLUMNS))
    order = frame.sort_values(
        ["score", "strategy"], ascending=[metric.better == "lower", True], kind="stable"
    )
    return order.reset_index(drop=True)


def shown(value: float, digits: int = 3) -> str:
    """A number for people: ``n/a`` for NaN."""
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _nothing(evidence: str) -> dict[str, Any]:
    """The columns about pairs where there are none."""
    none = {name: 0 if name in _COUNTS else math.nan for name in _PAIRED}
    return {**none, "evidence": evidence}


def _own(rows: pd.DataFrame, least: float, metric: Metric) -> dict[str, Any]:
    """What a strategy's runs say without any other."""
    scores = scores_of(rows)
    mean = mean_interval(scores, bounds=(metric.low, metric.high))
    rate = wilson(int((rows["status"] == "diverged").sum()), len(rows))
    shares = shares_of(rows)
    return {
        "n": len(rows),
        "score": mean.value,
        "accuracy": mean.value if is_accuracy(metric) else math.nan,
        "low": mean.low,
        "high": mean.high,
        "iqm": iqm(scores),
        **trained_summary(rows, least, metric),
        "trained_from": least,
        "clip_rate": shares["clip_rate"],
        "limited_rate": shares["limited_rate"],
        "skipped_rate": shares["skipped"],
        "not_finite_rate": shares["not_finite"],
        "verdict": verdict_of(**shares),
        "diverged": rate.value,
        "div_low": rate.low,
        "div_high": rate.high,
        "seconds": float(rows["seconds"].mean()),
    }


def shares_of(rows: pd.DataFrame) -> dict[str, float]:
    """What `verdict_of` judges: means over the runs, each of which counts alike."""

    def mean(name: str, of: str = "") -> float:
        if name not in rows or (of and of not in rows):
            return math.nan
        return float((rows[name] / rows[of] if of else rows[name]).mean())

    return {
        **{name: mean(name) for name in ("clip_rate", "limited_rate")},
        **{name: mean(name, of="steps") for name in ("skipped", "not_finite")},
    }


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


def _require_scores(scored: pd.DataFrame, metric: Metric) -> None:
    columns = with_scores(scored)[["key", "strategy", "score"]]
    for key, strategy, score in columns.to_numpy():
        finite_scores(score, metric, f"the {metric.name} of run {key[:12]} ({strategy})")
