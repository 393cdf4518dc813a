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
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gclip.results.budget import BudgetCurve
from gclip.results.evidence import (
    BETTER,
    CLAIMS,
    LESS,
    MORE,
    NOTHING,
    TOO_FEW,
    TOO_FEW_TRAINED,
    WHEN,
    WORSE,
)
from gclip.results.statistics import (
    expected_best_of_k,
    rule,
    seeds_needed,
    trained_from,
)
from gclip.studies import thresholds
from gclip.studies._pairs import TESTS, better, compared, too_few
from gclip.studies._runs import (
    Cell,
    failures,
    own_space,
    scored,
    seeds_of,
    spellings,
    summary,
    trained,
)
from gclip.studies._words import listed, percent, plural
from gclip.tuning.space import LR, check_overrides
from gclip.tuning.sqlite import read_study, study_file
from gclip.tuning.study import Answer, Request
from gclip.tuning.trials import counted

if TYPE_CHECKING:
    import pandas as pd

    from gclip.training import RunConfig
    from gclip.tuning.plan import Plan

USES = ("trials", "seeds", "lr_range", "space", "seeds_per_trial")

TRIALS = 25
RIVALS = ("none", "norm")
"""Whom the others are compared with, tuned like them, where they take part."""
FEW = 4
"""The small budget of the table, beside one trial and all of them."""
BAND = (0.1, 0.9)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What the trials of one strategy came to.

    Attributes:
        study: the name of the Optuna study that keeps the trials.
        trials: how many ended, those that failed among them.
        diverged: how many of them diverged, and scored chance.
        scores: validation accuracies of the trials that did not fail, in their order.
        best: the run of the best trial; None where all failed.
    """

    study: str
    trials: int
    diverged: int
    scores: tuple[float, ...]
    best: RunConfig | None


def run(request: Request) -> Answer:
    """One row a strategy, the most accurate on fresh seeds first."""
    plans, seeds, trials = plans_of(request), fresh_seeds(request), trials_of(request)
    tuned = {text: tune(request, plan, trials) for text, plan in plans.items()}
    cells: list[Cell] = [
        ({"strategy": text}, found.best.replace(seed=seed, split=request.base.split))
        for seed in seeds
        for text, found in tuned.items()
        if found.best is not None
    ]
    runs = trained(request, cells)
    rows = table(tuned, runs)
    curves = {text: curve(found.scores) for text, found in tuned.items() if found.scores}
    figures = {
        "budget": partial(_curves, curves, plans["none"].base),
        "budget_final": partial(_final, rows, runs),
    }
    return Answer(
        rows=rows,
        columns=columns(rows, trials, request.base.split),
        notes=[*_notes(rows, plans, seeds, trials, request.base.split), *failures(runs)],
        figures=figures if any(row["n"] for row in rows) else {},
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
    made = sum(len(chosen) - 1 - place for place in range(len(rivals)))
    chosen_seeds: tuple[int, ...] = seeds_of(request, range(seeds_needed(made)))
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
    found = {}
    for text in chosen:
        space = own_space(request, text)
        name = f"{request.name or 'budget'}-{_plain(text)}-{request.base.task}"
        asked = dataclasses.replace(request, space=space, sampler="random", pruner="none")
        found[text] = thresholds.plan_of(asked, text, name=name)
        found[text].check_trials(trials_of(request))
    return found


def tune(request: Request, plan: Plan, trials: int) -> Tuned:
    """Make the trials that are missing. Where there are more, the first ones count: they were
    drawn at random, so that is what a smaller budget would have been."""
    thresholds.tune(request, plan, trials)
    with read_study(study_file(request.store.path, plan.name)) as study:
        found = thresholds.outcome_of(plan, counted(study)[:trials])
    return Tuned(
        study=plan.name,
        trials=found.counts.trials,
        diverged=found.counts.diverged,
        scores=found.scores,
        best=found.best,
    )


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text).strip("-")


def curve(scores: Sequence[float]) -> BudgetCurve:
    """The budget curve of the scores of n random trials, exactly, over all choices of k of them."""
    low, high = (best_of_k_quantile(scores, share) for share in BAND)
    return BudgetCurve(expected_best_of_k(scores), low, high)


def best_of_k_quantile(scores: Sequence[float], share: float) -> NDArray[np.float64]:
    """The smallest score that the best of k reaches or stays below in a `share` of all choices of k
    out of the n trials, for k = 1 … n: the i-th lowest is at or above the best in C(i, k)/C(n, k).
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = ordered.size
    found = np.empty(n)
    for k in range(1, n + 1):
        total = math.comb(n, k)
        # Whole numbers: exact, and never too large.
        place = next(i for i in range(k, n + 1) if math.comb(i, k) >= share * total)
        found[k - 1] = ordered[place - 1]
    return found


def table(tuned: Mapping[str, Tuned], runs: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a strategy, from its trials and from the fresh runs of its best one (`strategy`,
    `seed`, `accuracy`, `status`), the most accurate first.
    """
    fresh = {text: runs[runs["strategy"] == text] if len(runs) else runs for text in tuned}
    rivals = [text for text in RIVALS if text in tuned and len(fresh[text])]
    least = trained_from(scored(runs)) if len(runs) else math.nan
    pairs: dict[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]] = {}
    for text in tuned:
        for rival in rivals:
            # Each pair once: norm beside none says what none beside norm would.
            if text not in (rival, *rivals[: rivals.index(rival)]) and len(fresh[text]):
                pairs[text, rival] = (fresh[text], fresh[rival])
    against = compared(pairs, least)
    rows = []
    for text, found in tuned.items():
        best = found.best
        budget = expected_best_of_k(found.scores) if found.scores else np.empty(0)
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
            **(summary(fresh[text], least) if len(fresh[text]) else _NO_RUNS),
        }
        shown = (row["best_of_1"], row["best_of_few"], row["best_of_all"])
        row["budget_text"] = "·".join(percent(value) for value in shown)
        for rival in RIVALS:
            row |= _versus(rival, against.get((text, rival)), text in rivals and text == rival)
        rows.append(row)
    return sorted(rows, key=lambda row: (-(row["accuracy"] or 0.0), row["strategy"]))


_NO_RUNS: dict[str, Any] = {
    **dict.fromkeys(("accuracy", "low", "high", "clip_rate", "diverged_low", "diverged_high")),
    **dict.fromkeys(("trained_low", "trained_high", "iqm_trained", "mean_trained")),
    **dict.fromkeys(("mean_trained_low", "mean_trained_high", "trained_from")),
    "trained": 0,
    "trained_text": "–",
    "iqm_text": "–",
    "n": 0,
    "accuracy_text": "–",
    "diverged": 0,
    "failed": 0,
}


def _versus(rival: str, found: dict[str, Any] | None, itself: bool) -> dict[str, Any]:
    names = (
        *("pairs", "difference", "low", "high", "p", "p_holm"),
        *("both", "ours_only", "theirs_only", "p_trains", "difference_trained", "p_trained"),
    )
    found = found or {}
    evidence = found.get("evidence")
    shown = found.get("text", "–")
    return {
        **{f"{rival}_{name}": found.get(name) for name in names},
        f"{rival}_evidence": evidence or ("baseline" if itself else None),
        f"{rival}_shown": shown,
        f"{rival}_text": f"{shown} {evidence}"
        if evidence and set(evidence.split(", ")) & {*CLAIMS}
        else shown,
    }


def columns(rows: Sequence[Mapping[str, Any]], trials: int, split: str) -> dict[str, str]:
    """The table's columns; what nobody has is left out."""
    shown = {
        "tuned": "tuned",
        "lr": "lr_text",
        f"best of 1·{FEW}·{trials}": "budget_text",
        f"{split} accuracy": "accuracy_text",
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


def _notes(
    rows: Sequence[Mapping[str, Any]],
    plans: Mapping[str, Plan],
    chosen: Sequence[int],
    trials: int,
    split: str,
) -> list[str]:
    seeds = len(chosen)
    rates = plans["none"].space.dimensions[LR]
    notes = [
        f"Every strategy: {plural(trials, 'random trial')}; with its fields the learning rate was "
        f"searched in {rates}, the same values for all. best of 1·{FEW}·{trials}: the expected "
        "validation accuracy in % of the best of so many trials, which looks better than it is.",
        f"{split} accuracy in %: each strategy's best trial, trained again with "
        f"{plural(seeds, 'fresh seed')}; mean with a 95 % interval that holds where some seeds do "
        "not train, too. Differences are paired by seed (their intervals are each by itself). "
        "Without a word, no difference is shown. Tuning was done once: claims are about the tuned "
        "strategies in this table.",
    ]
    least = next((row["trained_from"] for row in rows if row["trained_from"] is not None), None)
    if least is not None:
        notes.append(TESTS.format(family="the table", rule=f"trained: {rule(least)}"))
    unequal = [row for row in rows if row["trials"] != trials or row["trials_failed"]]
    if unequal:
        said = ", ".join(
            f"{row['strategy']} {row['trials']} ({row['trials_failed']} failed)" for row in unequal
        )
        notes.append(f"Trials are not equal, which is unfair to those with fewer: {said}.")
    comparisons = sum(row[f"{rival}_p"] is not None for row in rows for rival in RIVALS)
    return [*notes, *too_few(seeds, comparisons), *worth(rows)]


def worth(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which strategies are worth their tuning: what the evidence supports, and no more."""
    said: list[str] = []
    found = [row["none_evidence"] for row in rows]
    if any(each not in (None, "baseline", TOO_FEW) for each in found) and not any(
        map(better, found)
    ):
        said.append("No strategy is shown to be worth its tuning here.")
    for rival in RIVALS:
        for evidence, sentence in _SENTENCES.items():
            some = [row for row in rows if evidence in (row[f"{rival}_evidence"] or "").split(", ")]
            if not some:
                continue
            names = [
                f"{row['strategy']} ({row[f'{rival}_shown']} points)"
                if evidence in (BETTER, WORSE, MORE, LESS, NOTHING)
                else str(row["strategy"])
                for row in some
            ]
            said.append(f"{sentence.format(rival=f'tuned {rival}')} {listed(names)}.")
    return said


_SENTENCES = {
    BETTER: "Worth its tuning here: better than {rival} after as many trials:",
    MORE: "Worth its tuning here: trains more often than {rival} after as many trials:",
    f"{BETTER}{WHEN}": "Better than {rival} when trained, after as many trials:",
    WORSE: "Not worth it here: worse than {rival} after as many trials:",
    LESS: "Not worth it here: trains less often than {rival} after as many trials:",
    f"{WORSE}{WHEN}": "Worse than {rival} when trained, after as many trials:",
    NOTHING: "No difference to {rival} shown (which is no proof that there is none):",
    TOO_FEW: "Too few seeds to tell from {rival}:",
    TOO_FEW_TRAINED: "Too few runs trained to tell from {rival}:",
}


def _curves(curves: Mapping[str, BudgetCurve], base: RunConfig) -> Any:
    from gclip.figures import _budget

    return _budget.curves(curves, base)


def _final(rows: Sequence[Mapping[str, Any]], runs: pd.DataFrame) -> Any:
    from gclip.figures import _budget

    return _budget.final(rows, runs)
