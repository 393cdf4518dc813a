"""What may be said about one strategy beside another, from runs that share their seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from gclip.results.metrics import metric_of_pairs
from gclip.results.statistics import (
    CLAIMS,
    compare_pairs,
    out_of_reach,
    seeds_needed,
    shown_difference,
)
from gclip.studies._runs import number, scored
from gclip.studies._words import interval
from gclip.text.screen import plural

if TYPE_CHECKING:
    import pandas as pd

    from gclip.training.metric import Metric

Name = TypeVar("Name", bound=Hashable)

TESTS = (
    "Differences are of the pairs of which both runs trained (±: t interval) or, where those "
    "are fewer than six, of all [95 % interval]. Tests, one Holm correction over {family}: "
    "where all runs trained, better and worse come from a sign-flip test (are the differences "
    "symmetric about 0?). Where some did not, nothing is claimed about means: trains more or "
    "less often is McNemar's exact test on the pairs of which one run trained, better or worse "
    "when trained the sign-flip test on the pairs of which both did. {rule}."
)
"""What the tests of a table test; the rule is that of `gclip.results.statistics.rule`."""


def compared(
    pairs: Mapping[Name, tuple[pd.DataFrame, pd.DataFrame]],
    least: float,
    metric: Metric | None = None,
) -> dict[Name, dict[str, Any]]:
    """Every comparison of a table, ours with theirs, over the seeds that both have: the numbers of
    `gclip.results.statistics.compare_pairs` as JSON has them, and ``text``, the difference.

    Args:
        pairs: two frames of runs for each, at most one run a seed.
        least: the least score of a run that trained.
        metric: of all the runs; read from them if left out.
    """
    metric = metric_of_pairs(pairs.values()) if metric is None else metric
    scored_pairs = {name: (scored(a), scored(b)) for name, (a, b) in pairs.items()}
    found = compare_pairs(scored_pairs, least, metric)
    return {
        name: {
            **{key: number(v) if isinstance(v, float) else v for key, v in each.items()},
            "text": interval(*shown_difference(each), sign=True, metric=metric),
        }
        for name, each in found.items()
    }


def better(evidence: str | None) -> bool:
    """Whether something good may be claimed, and nothing bad."""
    claims = _claims(evidence)
    return bool(claims) and all("worse" not in said and "less" not in said for said in claims)


def worse(evidence: str | None) -> bool:
    """Whether something bad may be claimed, and nothing good."""
    claims = _claims(evidence)
    return bool(claims) and all("worse" in said or "less" in said for said in claims)


def _claims(evidence: str | None) -> list[str]:
    return [said for said in (evidence or "").split(", ") if said in CLAIMS]


def too_few(seeds: int, comparisons: int) -> list[str]:
    """A sentence where so many comparisons of so few seeds could show nothing: how many would."""
    if not comparisons or not out_of_reach(seeds, comparisons):
        return []
    needed = seeds_needed(comparisons)
    return [
        f"With {plural(seeds, 'seed')} and {plural(comparisons, 'comparison')} no difference can "
        f"be shown, however large: too few seeds to tell. With {needed} it can: --seeds {needed}."
    ]
