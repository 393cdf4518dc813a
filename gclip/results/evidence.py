"""What may be claimed of strategies that are compared pair by pair, seed by seed?

Where every run trained, the sign-flip test on the paired differences decides: *better* or *worse*.
Where some runs of the family did not train (`gclip.results.trained`), it would say something about
the mean that nobody has shown, because such differences are not symmetric. There two things are
tested, each by itself: whether one strategy *trains more often* (McNemar's exact test on the pairs
in which one run trained and the other did not), and whether it is *better when trained* (the
sign-flip test on the pairs in which both did).

One Holm correction goes over all tests of the family. A test on fewer than `INFORMATIVE` pairs
could not be significant even alone, so it is not made. n pairs cannot give a p-value below 2 /
2ⁿ, so whether n are enough depends on the number of comparisons too: 2 / 2ⁿ · m < .05.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gclip.errors import UsageError
from gclip.results.intervals import Interval, finite, mean_interval, t_interval, within
from gclip.results.metrics import is_accuracy, metric_of_pairs, scores_of
from gclip.results.paired import holm, mcnemar, probability_of_improvement, sign_flip
from gclip.results.trained import trained
from gclip.training.metric import ACCURACY, Metric

if TYPE_CHECKING:
    import pandas as pd

ENOUGH_PAIRS = 10
"""Fewer pairs than this support no claim, however few the comparisons are."""
SIGNIFICANT = 0.05
INFORMATIVE = 6
"""The fewest pairs whose smallest p-value, 2 / 2⁶, is below `SIGNIFICANT`."""

TOO_FEW = "too few seeds to tell"
TOO_FEW_TRAINED = "too few trained to tell"
NOTHING = "no difference shown"
MORE, LESS = "trains more often", "trains less often"
BETTER, WORSE = "better", "worse"
WHEN = " when trained"
CLAIMS = (BETTER, WORSE, BETTER + WHEN, WORSE + WHEN, MORE, LESS)

Name = TypeVar("Name", bound=Hashable)


def smallest_p(pairs: int) -> float:
    """The smallest two-sided p-value that `pairs` pairs can give, 2 / 2ⁿ."""
    return min(2.0 ** (1 - pairs), 1.0)


def out_of_reach(pairs: int, comparisons: int) -> bool:
    """Whether so many comparisons of so few pairs could show nothing, however large it were."""
    return pairs < ENOUGH_PAIRS or comparisons * smallest_p(pairs) >= SIGNIFICANT


def seeds_needed(comparisons: int) -> int:
    """The fewest seeds with which `comparisons` comparisons can show a difference; at least ten.

    10 are enough for up to 25 comparisons, 11 for up to 51, 12 for up to 102.

    Raises:
        UsageError: a number below 0.
    """
    if comparisons < 0:
        raise UsageError(f"comparisons must be at least 0, but got {comparisons}")
    seeds = ENOUGH_PAIRS
    while out_of_reach(seeds, comparisons):
        seeds += 1
    return seeds


def compare_pairs(
    pairs: Mapping[Name, tuple[pd.DataFrame, pd.DataFrame]],
    least: float,
    metric: Metric | None = None,
) -> dict[Name, dict[str, Any]]:
    """Every comparison of one family: ours with theirs, over the seeds that both have.

    Args:
        pairs: for each comparison two frames of scored runs, at most one run a seed (`seed`,
            `score` or `accuracy`, `status`).
        least: the least score of a run that trained (`trained_from` all the family's runs).
        metric: of all the runs; read from them if left out.

    Each answer holds

    - ``pairs``, ``difference`` (mean of all the differences, ours less theirs, in the metric's own
      unit) with the ends ``low`` and ``high`` of its interval: a paired t interval where all pairs
      of the family trained, else the one of `mean_interval`, which holds for all-or-nothing
      outcomes too where the metric has a range; both within the range of a difference.
    - ``p`` of the sign-flip test on all the differences, which supports a claim only where all
      pairs of the family trained; ``prob_improve``, by the metric's direction as all claims are.
    - ``both``, ``ours_only``, ``theirs_only``: in how many pairs both runs trained, or one alone;
      ``p_trains`` of McNemar's test, ``difference_trained`` with its t interval ``trained_low`` and
      ``trained_high``, and ``p_trained`` of the sign-flip test, over the pairs in which both did.
    - ``p_holm``: the corrected p-value of what is claimed (the largest of two), or the smallest
      where nothing is; NaN without a test. ``evidence``: what may be claimed.

    What cannot be computed is NaN.

    Raises:
        UsageError: a score is missing.

    Example:
        >>> import pandas as pd
        >>> def runs(*accuracies):
        ...     rows = [(seed, each, "finished") for seed, each in enumerate(accuracies)]
        ...     return pd.DataFrame(rows, columns=["seed", "accuracy", "status"])
        >>> pair = (runs(*[0.9] * 10), runs(*[0.8] * 10))
        >>> found = compare_pairs({"agc": pair}, least=0.3)["agc"]
        >>> found["pairs"], round(found["difference"], 6), found["p"], found["evidence"]
        (10, 0.1, 0.001953125, 'better')
    """
    metric = metric_of_pairs(pairs.values()) if metric is None else metric
    compared = {
        name: _PairedScores.of(ours, theirs, least, metric)
        for name, (ours, theirs) in pairs.items()
    }
    all_trained = all(each.both.all() for each in compared.values())
    found = {name: each.numbers(all_trained) for name, each in compared.items()}
    add_evidence(list(found.values()), metric)
    return found


@dataclass(frozen=True, kw_only=True)
class _PairedScores:
    """The scores of one comparison, seed by seed, and which of these runs trained."""

    ours: NDArray[np.float64]
    theirs: NDArray[np.float64]
    ours_trained: NDArray[np.bool_]
    theirs_trained: NDArray[np.bool_]
    metric: Metric

    @classmethod
    def of(
        cls, ours: pd.DataFrame, theirs: pd.DataFrame, least: float, metric: Metric
    ) -> _PairedScores:
        seeds = sorted(set(ours["seed"]) & set(theirs["seed"]))
        own, other = (runs.set_index("seed").loc[seeds] for runs in (ours, theirs))
        return cls(
            ours=finite_scores(scores_of(own), metric),
            theirs=finite_scores(scores_of(other), metric),
            ours_trained=trained(own, least, metric),
            theirs_trained=trained(other, least, metric),
            metric=metric,
        )

    @property
    def both(self) -> NDArray[np.bool_]:
        return self.ours_trained & self.theirs_trained

    def numbers(self, all_trained: bool) -> dict[str, Any]:
        differences = self.ours - self.theirs
        if all_trained:
            interval = within(t_interval(differences), self.metric.differences)
        else:
            interval = mean_interval(differences, bounds=self.metric.differences)
        return {
            "pairs": len(differences),
            "difference": interval.value,
            "low": interval.low,
            "high": interval.high,
            "p": sign_flip(differences),
            "prob_improve": probability_of_improvement(self.ours, self.theirs, self.metric.better),
            **self.tests(),
        }

    def tests(self) -> dict[str, Any]:
        only = int((self.ours_trained & ~self.theirs_trained).sum())
        other = int((self.theirs_trained & ~self.ours_trained).sum())
        where_both = (self.ours - self.theirs)[self.both]
        interval = within(t_interval(where_both), self.metric.differences)
        return {
            "both": len(where_both),
            "ours_only": only,
            "theirs_only": other,
            "p_trains": mcnemar(only, other) if len(self.ours) else math.nan,
            "difference_trained": interval.value,
            "trained_low": interval.low,
            "trained_high": interval.high,
            "p_trained": sign_flip(where_both),
        }


def finite_scores(
    scores: NDArray[np.float64], metric: Metric, what: str = ""
) -> NDArray[np.float64]:
    """The scores, every one of them a finite number.

    Args:
        scores: of runs that finished or diverged.
        metric: of these runs.
        what: whose they are, for the error.

    Raises:
        UsageError: one is not.
    """
    if is_accuracy(metric):
        return finite(scores, what or "accuracies")
    worst = f"the metric's worst value, {metric.text(metric.worst)},"
    return finite(scores, what or f"values of {metric.name}", worst=worst)


def shown_difference(found: Mapping[str, Any], low: str = "low", high: str = "high") -> Interval:
    """The difference for a table's cell, from `compare_pairs`: that of the pairs in which both
    trained, where those are all or at least `INFORMATIVE`, else that of all pairs.

    ``low`` and ``high`` are the names that the latter's ends have.
    """
    if found["both"] and found["both"] >= min(found["pairs"], INFORMATIVE):
        names = ("difference_trained", "trained_low", "trained_high")
    else:
        names = ("difference", low, high)
    return Interval(*(float(found[name]) for name in names))


def add_evidence(comparisons: list[dict[str, Any]], metric: Metric = ACCURACY) -> None:
    """Add ``p_holm`` and ``evidence`` to the comparisons of one family (`compare_pairs`)."""
    when = "" if all(each["both"] == each["pairs"] for each in comparisons) else WHEN
    tests: list[tuple[dict[str, Any], str, int, float]] = []
    for each in comparisons:
        one_trained, both = each["ours_only"] + each["theirs_only"], each["both"]
        if one_trained >= INFORMATIVE:
            claim = MORE if each["ours_only"] > each["theirs_only"] else LESS
            tests.append((each, claim, one_trained, each["p_trains"]))
        if both >= INFORMATIVE:
            claim = (BETTER if metric.improves(each["difference_trained"], 0) else WORSE) + when
            tests.append((each, claim, both, each["p_trained"]))
    corrected = holm([p for *_, p in tests])
    compared = sum(each["pairs"] > 0 for each in comparisons)
    for each in comparisons:
        own = [
            (claim, pairs, p)
            for (of, claim, pairs, _), p in zip(tests, corrected, strict=True)
            if of is each
        ]
        claims = [(claim, p) for claim, _, p in own if p < SIGNIFICANT]
        if out_of_reach(each["pairs"], compared):
            claims = []
            each["evidence"] = TOO_FEW
        elif claims:
            each["evidence"] = ", ".join(claim for claim, _ in claims)
        elif any(len(tests) * smallest_p(pairs) < SIGNIFICANT for _, pairs, _ in own):
            each["evidence"] = NOTHING
        else:
            each["evidence"] = TOO_FEW_TRAINED
        if claims:
            each["p_holm"] = max(p for _, p in claims)
        else:
            each["p_holm"] = min((p for *_, p in own), default=math.nan)
