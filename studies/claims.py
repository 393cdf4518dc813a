"""What of that which is published about clipping is supported here? Claims, each with a verdict.

Every claim is a file in ``studies/published``: what is said and by whom, the smallest setting that
is faithful to it, and what would support it. Its two arms are trained with the same seeds; the
differences are paired, and one Holm correction goes over all the claims. A verdict is *supported
here*, *not supported here* (the opposite is shown, or a difference that would matter is ruled out
by its interval), or *cannot tell*. Each is of one small setting, and says no more than that.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gclip.errors import UsageError
from gclip.results.evidence import SIGNIFICANT, compare_pairs, shown_difference
from gclip.results.intervals import Interval, t_interval
from gclip.results.metric_text import p_text
from gclip.results.metrics import metric_of, scores_of
from gclip.results.paired import holm, sign_flip
from gclip.results.trained import trained as are_trained
from gclip.results.trained import trained_from
from gclip.studies._pairs import better, worse
from gclip.studies._published import Claim, claims
from gclip.studies._runs import Cell, failures, labels_of, number, scored, seeds_of, trained
from gclip.studies._words import factor, interval
from gclip.text.screen import percent
from gclip.training.metric import ACCURACY
from gclip.tuning.study import Answer, Request

if TYPE_CHECKING:
    import pandas as pd

USES = ("seeds",)

COLUMNS = {
    "claim": "name",
    "compared": "compared",
    "first": "ours_text",
    "second": "theirs_text",
    "difference": "difference_text",
    "p": "p_text",
    "verdict": "verdict",
    "n": "n",
}
SUPPORTED, NOT_SUPPORTED, CANNOT_TELL = "supported here", "not supported here", "cannot tell"


def run(request: Request) -> Answer:
    """One row a claim."""
    all_claims = claims()
    cells = cells_of(request)
    runs = trained(request, cells)
    rows = [row_of(claim, runs[runs["claim"] == claim.name]) for claim in all_claims]
    judge(rows, all_claims)
    return Answer(
        rows=rows,
        columns=COLUMNS,
        notes=[*map(_sentence, all_claims), *_notes(len(all_claims)), *failures(runs)],
        more={"claims": [_told(claim) for claim in all_claims]},
        labels=labels_of(cells),
        ok=any(row["n"] for row in rows),
    )


def run_count(request: Request) -> int:
    """How many runs there will be, for a display of how far they are."""
    return len(cells_of(request))


def cells_of(request: Request) -> list[Cell]:
    """All runs, claim by claim.

    Raises:
        UsageError: settings of runs or strategies are given, which claims bring themselves.
    """
    from gclip.training import task_defaults

    if request.strategies:
        raise UsageError("the study claims has strategies of its own; leave out -s")
    if request.base != task_defaults(request.base.task).replace(data=request.base.data):
        raise UsageError(
            "each claim has a setting of its own (studies/published); leave out the options of runs"
        )
    cells: list[Cell] = []
    for claim in claims():
        cells += claim.configs(seeds_of(request, range(claim.seeds)))
    return cells


def row_of(claim: Claim, runs: pd.DataFrame) -> dict[str, Any]:
    """What was measured for a claim: both arms, their paired difference, its p-value alone."""
    counting = scored(runs)
    names = tuple(claim.arms)
    arms = [counting[counting["arm"] == arm] for arm in names]
    shared = sorted(set(arms[0]["seed"]) & set(arms[1]["seed"]))
    arms = [arm[arm["seed"].isin(shared)].sort_values(["seed", "rate"]) for arm in arms]
    row: dict[str, Any] = {
        "name": claim.name,
        "ours": names[0],
        "theirs": names[1],
        "n": len(shared),
    }
    if len(shared) < 2:
        nothing = {"compared": claim.compares, "p": None, "difference": None, "low": None}
        words = dict.fromkeys(("ours_text", "theirs_text", "difference_text"), "–")
        return row | nothing | words | {"high": None, "direction": 0}
    ours, theirs = arms
    if claim.compares == "ceiling":
        return row | _ceilings(claim, ours, theirs)
    return row | (_scores if claim.compares == "score" else _clip_rates)(ours, theirs)


def judge(rows: list[dict[str, Any]], all_claims: tuple[Claim, ...]) -> None:
    """Add ``p_holm`` and ``verdict`` to the rows of all claims, which are one family."""
    corrected = holm([math.nan if row["p"] is None else row["p"] for row in rows])
    for row, claim, p in zip(rows, all_claims, corrected, strict=True):
        row["p_holm"] = number(p)
        row["p_text"] = "–" if math.isnan(p) else p_text(p).removeprefix("p").removeprefix("=")
        row["verdict"] = verdict(claim, row)


def verdict(claim: Claim, row: dict[str, Any]) -> str:
    """What may be said of a claim.

    ``direction`` is 1 where the first arm is better (or its ceiling or clip rate higher), −1 where
    it is worse; `low` and `high` are the interval of the difference in that direction.
    """
    if row["p_holm"] is None or row["low"] is None:
        return CANNOT_TELL
    shown = row["direction"] if row["p_holm"] < SIGNIFICANT else 0
    margin = math.log2(claim.margin) if claim.compares == "ceiling" else claim.margin
    if claim.expects == "equal":
        if -margin < row["low"] and row["high"] < margin:
            return SUPPORTED
        return NOT_SUPPORTED if row["low"] > margin or row["high"] < -margin else CANNOT_TELL
    supported = shown > 0
    refuted = shown < 0 or row["high"] < margin
    if claim.expects == "not better":
        supported, refuted = refuted, supported
    return SUPPORTED if supported else NOT_SUPPORTED if refuted else CANNOT_TELL


def _scores(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    import pandas as pd

    metric = metric_of(pd.concat([ours, theirs]))
    least = trained_from(pd.concat([ours, theirs]), metric)
    found = compare_pairs({"it": (ours, theirs)}, least, metric)["it"]
    said = found["evidence"]
    ends = shown_difference(found)
    signed = sorted((metric.sign * ends.low, metric.sign * ends.high))
    texts = [
        f"{interval(*t_interval(scores_of(arm)), metric=metric)}, "
        f"{int(are_trained(arm, least, metric).sum())}/{len(arm)} trained"
        for arm in (ours, theirs)
    ]
    return {
        "compared": metric.name,
        "ours_text": texts[0],
        "theirs_text": texts[1],
        "difference": number(ends.value),
        "difference_text": interval(*ends, sign=True, metric=metric),
        "low": number(signed[0]),
        "high": number(signed[1]),
        "p": number(found["p_holm"]),
        # Both at once (trains more often, worse when trained) is neither.
        "direction": int(better(said)) - int(worse(said)),
    }


def _ceilings(claim: Claim, ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    import pandas as pd

    both = pd.concat([ours, theirs])
    least = trained_from(both, metric_of(both))
    logs = [np.log2(ceilings(claim, arm, least)) for arm in (ours, theirs)]
    found = _difference(logs[0] - logs[1])
    ends = Interval(*(float(2 ** found[name]) for name in ("difference", "low", "high")))
    return found | {
        "compared": "highest lr that trains",
        "ours_text": f"{float(2 ** logs[0].mean()):.3g}",
        "theirs_text": f"{float(2 ** logs[1].mean()):.3g}",
        "difference_text": f"{factor(ends.value)} [{ends.low:.2g}, {ends.high:.2g}]",
    }


def ceilings(claim: Claim, runs: pd.DataFrame, least: float) -> NDArray[np.float64]:
    """For each seed, the end of the unbroken stretch of learning rates with which it trains.

    A seed that trains with none has half of the lowest.
    """
    metric, found = metric_of(runs), []
    for _, some in runs.groupby("seed", sort=True):
        trains = dict(zip(some["rate"], are_trained(some, least, metric), strict=True))
        # A rate whose run failed is not among them, and ends the stretch.
        stretch = list(itertools.takewhile(trains.get, claim.rates))
        found.append(stretch[-1] if stretch else claim.rates[0] / 2)
    return np.asarray(found, dtype=np.float64)


def _clip_rates(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    rates = [arm["clip_rate"].to_numpy(dtype=np.float64) for arm in (ours, theirs)]
    found = _difference(rates[0] - rates[1])
    return found | {
        "compared": "steps clipped",
        "ours_text": f"{percent(float(rates[0].mean()))} %",
        "theirs_text": f"{percent(float(rates[1].mean()))} %",
        "difference_text": interval(
            found["difference"], found["low"], found["high"], sign=True, metric=ACCURACY
        ),
    }


def _difference(differences: NDArray[np.float64]) -> dict[str, Any]:
    ends = t_interval(differences)
    return {
        "difference": number(ends.value),
        "low": number(ends.low),
        "high": number(ends.high),
        "p": number(sign_flip(differences)),
        "direction": int(np.sign(differences.mean())),
    }


def _sentence(claim: Claim) -> str:
    first, second = claim.arms
    return (
        f"{claim.name}: {claim.claim} ({claim.source}). Here: {claim.setting} First: {first}; "
        f"second: {second}."
    )


def _notes(count: int) -> list[str]:
    return [
        "Differences are first less second, paired by seed, with 95 % intervals; p is of the test "
        f"that they are none, Holm-corrected over the {count} claims. Not supported here: the "
        "opposite is shown, or the interval rules out a difference that would matter. Where runs "
        "of one arm do not train, McNemar's test decides which trains more often, and the "
        "interval of the mean, which holds for any scores, is wide. Each verdict is of one small "
        "setting."
    ]


def _told(claim: Claim) -> dict[str, Any]:
    names = ("name", "claim", "source", "setting", "compares", "expects", "margin")
    return {name: getattr(claim, name) for name in names}
