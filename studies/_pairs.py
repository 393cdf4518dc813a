"""What may be said about one strategy beside another, from runs that share their seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gclip.results.statistics import ENOUGH_PAIRS, holm, mean_interval, sign_flip
from gclip.studies._runs import number, scored
from gclip.studies._words import interval

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT = 0.05


def paired(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """The difference in accuracy over the seeds that both have, and the p-value of the sign-flip
    test; `judge` says what it amounts to. Each frame has at most one run a seed.
    """
    mine, other = (scored(runs).set_index("seed")["accuracy"] for runs in (ours, theirs))
    mine, other = mine.align(other, join="inner")
    differences = (mine - other).to_numpy(dtype=float)
    found = mean_interval(differences)
    return {
        "pairs": len(differences),
        "difference": number(found.value),
        "low": number(found.low),
        "high": number(found.high),
        "p": number(sign_flip(differences)),
        "text": interval(found.value, found.low, found.high, sign=True),
    }


def judge(comparisons: Sequence[dict[str, Any]]) -> None:
    """Add ``p_holm``, corrected over all the comparisons, and ``evidence``: what may be claimed.

    Fewer than ten pairs support no claim.
    """
    corrected = holm([math.nan if each["p"] is None else each["p"] for each in comparisons])
    for each, p in zip(comparisons, corrected, strict=True):
        each["p_holm"] = number(p)
        each["evidence"] = _evidence(each)


def out_of_reach(pairs: int, comparisons: int) -> bool:
    """Whether so many comparisons of so few pairs could show nothing, however large it were."""
    return pairs < ENOUGH_PAIRS or comparisons * 2.0 ** (1 - pairs) >= SIGNIFICANT


def _evidence(comparison: dict[str, Any]) -> str:
    if comparison["pairs"] < ENOUGH_PAIRS:
        return "too few seeds to tell"
    if comparison["p_holm"] >= SIGNIFICANT:
        return "no difference shown"
    return "better" if comparison["difference"] > 0 else "worse"
