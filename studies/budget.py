"""Which strategy is worth its tuning? Accuracy against the trials spent, the same for every one.

Every strategy, ``none`` included, gets the same number of trials by random sampling over its
tunable fields and the learning rate together (``none``: the learning rate alone), scored on
validation images with a tuning seed. The k-th trial has the same learning rate for all, so that
nobody is luckier with it than another. Random trials are exchangeable, so the expected best of any
k of them is known exactly for every k: that is the budget curve. The best trial of each strategy is
then trained again with fresh seeds and scored on the test images, and only these runs support
claims: paired differences to tuned ``none`` and tuned ``norm``, one Holm correction over all of
them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gclip.execution.run_all import open_pool
from gclip.results.budget import budget_curve
from gclip.results.evidence import CLAIMS
from gclip.results.metric_text import score_text
from gclip.results.metrics import metric_of
from gclip.results.statistics import expected_best_of_k, seeds_needed, trained_from
from gclip.studies import thresholds
from gclip.studies._budget_notes import FEW, RIVALS, notes
from gclip.studies._pairs import compared
from gclip.studies._runs import (
    Cell,
    drawing,
    failures,
    labels_of,
    scored,
    seeds_of,
    spellings,
    summary,
    trained,
)
from gclip.studies._words import order_of
from gclip.text.names import in_a_name
from gclip.training.metric import ACCURACY, Metric
from gclip.tuning.outcome import outcome_of
from gclip.tuning.space import check_overrides
from gclip.tuning.sqlite import read_study, study_file
from gclip.tuning.study import Answer, Request
from gclip.tuning.trial_frame import TRIAL_COLUMNS, rows_of
from gclip.tuning.trials import counted

if TYPE_CHECKING:
    import pandas as pd

    from gclip.execution.pool import TrainingPool
    from gclip.training import RunConfig
    from gclip.tuning.plan import Plan

USES = ("trials", "seeds", "lr_range", "space", "seeds_per_trial")

TRIALS = 25


@dataclass(frozen=True, kw_only=True)
class TrialResults:
    """What the trials of one strategy came to.

    Attributes:
        study: the name of the Optuna study that keeps the trials.
        trials: how many ended, those that failed among them.
        diverged: how many of them diverged, and scored the worst value.
        scores: validation scores of the trials that did not fail, in their order.
        best: the run of the best trial; None where all failed.
        rows: its trials as `gclip.tuning.trial_frame` has them.
    """

    study: str
    trials: int
    diverged: int
    scores: tuple[float, ...]
    best: RunConfig | None
    rows: Sequence[Mapping[str, Any]] = ()


def run(request: Request) -> Answer:
    """One row a strategy, the best on fresh seeds first."""
    import pandas as pd

    plans, seeds, trials = plans_of(request), fresh_seeds(request), trials_of(request)
    with open_pool(request.store, request.execution.resolved()) as pool:
        tuned = {text: tune(request, plan, trials, pool) for text, plan in plans.items()}
    cells: list[Cell] = [
        (
            {"strategy": text, "form": "tuned"},
            found.best.replace(seed=seed, split=request.base.split),
        )
        for seed in seeds
        for text, found in tuned.items()
        if found.best is not None
    ]
    runs = trained(request, cells)
    metric = metric_of(runs) if len(runs) else plans["none"].metric
    rows = table(tuned, runs, metric)
    curves = {
        text: budget_curve(found.scores, metric.better)
        for text, found in tuned.items()
        if found.scores
    }
    trials_rows = [row for found in tuned.values() for row in found.rows]
    trials_made = pd.DataFrame(trials_rows, columns=list(TRIAL_COLUMNS))
    figures = {
        "budget": drawing("budget", "budget", _setting(plans["none"].base), trials=trials_made),
        "budget_final": drawing("tuned", "budget", runs, rows),
    }
    return Answer(
        rows=rows,
        columns=columns(rows, trials, request.base.split, metric),
        notes=[*notes(rows, plans, seeds, trials, request.base.split, metric), *failures(runs)],
        figures=figures if any(row["n"] for row in rows) else {},
        labels=labels_of(cells),
        searches=[found.study for found in tuned.values()],
        more={
            "curves": {text: found.as_dict() for text, found in curves.items()},
            "studies": {text: found.study for text, found in tuned.items()},
            "seeds": list(seeds),
            "split": request.base.split,
        },
        ok=any(row["n"] for row in rows),
    )


def run_count(request: Request) -> int:
    """How many runs there will be, for a display of how far they are."""
    plans = plans_of(request).values()
    trials = trials_of(request) * sum(plan.seeds_per_trial for plan in plans)
    return trials + len(plans) * len(fresh_seeds(request))


def fresh_seeds(request: Request) -> tuple[int, ...]:
    """Of the final runs; by default as many as so many comparisons need to show a difference."""
    chosen = spellings(request)
    rivals = [rival for rival in RIVALS if rival in chosen]
    comparison_count = sum(len(chosen) - 1 - place for place in range(len(rivals)))
    chosen_seeds: tuple[int, ...] = seeds_of(request, range(seeds_needed(comparison_count)))
    return chosen_seeds


def trials_of(request: Request) -> int:
    """For each strategy, the same."""
    return TRIALS if request.trials is None else request.trials


def plans_of(request: Request) -> dict[str, Plan]:
    """How each strategy is tuned: at random, the learning rate with its fields.

    Raises:
        UsageError: before any trial, for anything that can be known to be wrong.
    """
    chosen = spellings(request)
    check_overrides(chosen, request.space)
    plans = {}
    for text in chosen:
        name = f"{request.name or 'budget'}-{in_a_name(text)}-{in_a_name(request.base.task)}"
        asked = dataclasses.replace(request, sampler="random", pruner="none")
        plans[text] = thresholds.plan_of(asked, text, name=name)
        plans[text].check_trials(trials_of(request))
    return plans


def tune(request: Request, plan: Plan, trials: int, pool: TrainingPool) -> TrialResults:
    """Make the trials that are missing. Where there are more, the first ones count: they were
    drawn at random, so that is what a smaller budget would have been."""
    thresholds.tune(request, plan, trials, pool)
    with read_study(study_file(request.store.path, plan.name)) as study:
        ended = counted(study)[:trials]
        outcome, made = outcome_of(plan, ended), rows_of(plan, ended)
    return TrialResults(
        study=plan.name,
        trials=outcome.counts.trials,
        diverged=outcome.counts.diverged,
        scores=outcome.scores,
        best=outcome.best,
        rows=made,
    )


def _setting(base: RunConfig) -> pd.DataFrame:
    """What all trials had in common, for a figure of them."""
    import pandas as pd

    row = {"key": "", "status": "finished", **json.loads(base.to_json())}
    return pd.DataFrame([row]).drop(columns="lr")


def table(
    tuned: Mapping[str, TrialResults], runs: pd.DataFrame, metric: Metric | None = None
) -> list[dict[str, Any]]:
    """One row a strategy, from its trials and from the fresh runs of its best one (`strategy`,
    `seed`, `score`, `status`), the best first. The metric is read from the runs if left out.
    """
    metric = metric_of(runs) if metric is None else metric
    fresh = {text: runs[runs["strategy"] == text] if len(runs) else runs for text in tuned}
    rivals = [text for text in RIVALS if text in tuned and len(fresh[text])]
    least = trained_from(scored(runs), metric) if len(runs) else math.nan
    pairs: dict[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]] = {}
    for text in tuned:
        for rival in rivals:
            # Each pair once: norm beside none says what none beside norm would.
            if text not in (rival, *rivals[: rivals.index(rival)]) and len(fresh[text]):
                pairs[text, rival] = (fresh[text], fresh[rival])
    against = compared(pairs, least, metric)
    rows = []
    for text, found in tuned.items():
        best = found.best
        budget = expected_best_of_k(found.scores, metric.better) if found.scores else np.empty(0)
        row: dict[str, Any] = {
            "strategy": text,
            "trials": found.trials,
            "trials_failed": found.trials - len(found.scores),
            "trials_diverged": found.diverged,
            "best_of_1": float(budget[0]) if len(budget) else None,
            "best_of_few": float(budget[FEW - 1]) if len(budget) >= FEW else None,
            "best_of_all": float(budget[-1]) if len(budget) else None,
            "tuned": None if best is None else best.strategy,
            "lr": None if best is None else best.lr,
            "lr_text": "–" if best is None else f"{best.lr:.2g}",
            **(summary(fresh[text], least, metric) if len(fresh[text]) else _NO_RUNS),
        }
        shown = (row["best_of_1"], row["best_of_few"], row["best_of_all"])
        row["budget_text"] = "·".join(score_text(metric, value) for value in shown)
        for rival in RIVALS:
            row |= _versus(rival, against.get((text, rival)), text in rivals and text == rival)
        rows.append(row)
    return sorted(rows, key=lambda row: (order_of(row["score"], metric), row["strategy"]))


_NO_RUNS: dict[str, Any] = {
    **dict.fromkeys(
        ("score", "accuracy", "low", "high", "clip_rate", "diverged_low", "diverged_high")
    ),
    **dict.fromkeys(("trained_low", "trained_high", "iqm_trained", "mean_trained")),
    **dict.fromkeys(("mean_trained_low", "mean_trained_high", "trained_from")),
    "trained": 0,
    "trained_text": "–",
    "iqm_text": "–",
    "n": 0,
    "score_text": "–",
    "accuracy_text": "–",
    "diverged": 0,
    "failed": 0,
}


def _versus(rival: str, comparison: dict[str, Any] | None, itself: bool) -> dict[str, Any]:
    names = (
        *("pairs", "difference", "low", "high", "p", "p_holm"),
        *("both", "ours_only", "theirs_only", "p_trains", "difference_trained", "p_trained"),
    )
    comparison = comparison or {}
    evidence = comparison.get("evidence")
    shown = comparison.get("text", "–")
    return {
        **{f"{rival}_{name}": comparison.get(name) for name in names},
        f"{rival}_evidence": evidence or ("baseline" if itself else None),
        f"{rival}_shown": shown,
        f"{rival}_text": f"{shown} {evidence}"
        if evidence and set(evidence.split(", ")) & {*CLAIMS}
        else shown,
    }


def columns(
    rows: Sequence[Mapping[str, Any]], trials: int, split: str, metric: Metric = ACCURACY
) -> dict[str, str]:
    """The table's columns; what nobody has is left out."""
    shown = {
        "tuned": "tuned",
        "lr": "lr_text",
        f"best of 1·{FEW}·{trials}": "budget_text",
        f"{split} {metric.name}": "score_text",
        "trained": "trained_text",
        "vs tuned none": "none_text",
        "vs tuned norm": "norm_text",
        "div.": "diverged",
        "n": "n",
    }
    if not any(row["diverged"] for row in rows):
        del shown["div."]
    if all(row["strategy"] != "norm" for row in rows):
        del shown["vs tuned norm"]
    return shown
