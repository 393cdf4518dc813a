"""What came of tuned strategies: each winner and each default, on fresh seeds and test images.

Studies that tuned strategies on the same task belong together. The best trial of each is trained
again with seeds that no tuning has seen, and so is the strategy as it comes (its own default, the
task's default learning rate), and both are scored on the test images. Compared are: tuned with
default, and tuned with the tuned ``norm`` and the tuned ``none``, paired by seed, with one Holm
correction over the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError
from gclip.results.metric_text import interval_words
from gclip.results.metrics import metric_of
from gclip.results.statistics import CLAIMS, rule, seeds_needed, trained_from
from gclip.studies._pairs import TESTS, better, compared, too_few, worse
from gclip.studies._runs import (
    Cell,
    drawing,
    failures,
    labels_of,
    scored,
    seeds_of,
    summary,
    trained,
)
from gclip.studies._tuned import Tuned
from gclip.studies._words import listed, measured, order_of, points
from gclip.text.screen import plural
from gclip.training.metric import ACCURACY, Metric
from gclip.tuning.commands import as_options
from gclip.tuning.samplers import sampler_named
from gclip.tuning.space import LR
from gclip.tuning.study import Answer, Request
from gclip.tuning.trials import Counts

if TYPE_CHECKING:
    import pandas as pd


RIVALS = ("norm", "none")
COMPARED = ("default", *RIVALS)


def run(request: Request, tuned: Sequence[Tuned]) -> Answer:
    """The report of what `tuned_in` found; `request.base` only says which data."""
    seeds = check_seeds(request, tuned)
    every = cells(request, tuned, seeds)
    runs = trained(request, every)
    rows, metric = table(tuned, runs), metric_of(runs)
    return Answer(
        rows=rows,
        columns=columns(rows, metric),
        notes=[*_notes(tuned, rows, seeds, request, metric), *failures(runs)],
        figures={"report": drawing("tuned", "report", runs, rows)}
        if any(row["n"] for row in rows)
        else {},
        labels=labels_of(every),
        searches=[each.plan.name for each in tuned],
        more={"seeds": list(seeds), "split": "test"},
        ok=any(row["n"] for row in rows),
    )


def run_count(request: Request, tuned: Sequence[Tuned]) -> int:
    """How many runs a report needs."""
    runs = cells(request, tuned, check_seeds(request, tuned))
    return len({config.key for _, config in runs})


def check_seeds(request: Request, tuned: Sequence[Tuned]) -> tuple[int, ...]:
    """The reporting seeds, none of which a study was tuned with.

    By default as many as so many comparisons need to show a difference.
    """
    seeds: tuple[int, ...] = seeds_of(request, range(seeds_needed(len(comparisons(tuned)))))
    for each in tuned:
        seen = sorted(set(seeds) & set(each.plan.seeds))
        if seen:
            raise UsageError(
                f"the study {each.plan.name} was tuned with the seed {seen[0]}, so no report may "
                "use it; give other --seeds"
            )
    return seeds


def cells(request: Request, found: Sequence[Tuned], seeds: Sequence[int]) -> list[Cell]:
    """The runs, seed by seed: so that an interrupted report has whole pairs."""
    cells_by_seed: list[Cell] = []
    for seed in seeds:
        for each in found:
            for form, config in (("tuned", each.best), ("default", each.default)):
                labels = {"strategy": each.strategy, "form": form}
                fresh = config.replace(seed=seed, split="test", data=request.base.data)
                cells_by_seed.append((labels, fresh))
    return cells_by_seed


def comparisons(tuned: Sequence[Tuned]) -> list[tuple[str, str]]:
    """Which strategy is compared, and with what: its default, or a tuned rival."""
    rivals = [rival for rival in RIVALS if any(each.strategy == rival for each in tuned)]
    pairs = []
    for each in tuned:
        text = each.strategy
        if each.best.replace(seed=0) != each.default.replace(seed=0):
            pairs.append((text, "default"))
        # Each pair once: norm beside none says what none beside norm would.
        pairs += [
            (text, rival) for rival in rivals if text != rival and (text, rival) != ("none", "norm")
        ]
    return pairs


def table(found: Sequence[Tuned], runs: pd.DataFrame) -> list[dict[str, Any]]:
    """One row a strategy, the best first.

    Args:
        found: what was tuned.
        runs: one row a run: `strategy`, `form` (tuned or default), `seed`, `score`, `status`.
    """
    metric = metric_of(runs)
    tuned = {each.strategy: _of(runs, each.strategy, "tuned") for each in found}
    least = trained_from(scored(runs), metric)
    pairs = {
        (text, other): (
            tuned[text],
            _of(runs, text, "default") if other == "default" else tuned[other],
        )
        for text, other in comparisons(found)
    }
    against = compared(pairs, least, metric)
    rows = []
    for each in found:
        text = each.strategy
        default = summary(_of(runs, text, "default"), least, metric)
        row: dict[str, Any] = {
            "study": each.plan.name,
            "strategy": text,
            "tuned": each.best.strategy,
            "lr": each.best.lr,
            "lr_text": f"{each.best.lr:.3g}",
            "default_lr": each.default.lr,
            "validation": each.score,
            "trials": each.counts.trials,
            "trials_diverged": each.counts.diverged,
            "trials_pruned": each.counts.pruned,
            "trials_failed": each.counts.failed,
            "trials_text": _trials(each.counts),
            **summary(tuned[text], least, metric),
            **{f"default_{name}": value for name, value in default.items()},
        }
        row["trained_text"] += f" · {default['trained_text']}"
        row["diverged_text"] = f"{row['diverged']} · {row['default_diverged']}"
        for other in COMPARED:
            row |= _versus(other, against.get((text, other)))
        rows.append(row)
    return sorted(rows, key=lambda row: (order_of(row["score"], metric), row["strategy"]))


def columns(rows: Sequence[Mapping[str, Any]], metric: Metric = ACCURACY) -> dict[str, str]:
    """Heading to key; what nobody has is left out."""
    shown = {
        "tuned": "tuned",
        "lr": "lr_text",
        f"test {metric.name}": "score_text",
        "trained": "trained_text",
        "vs default": "vs_default_text",
        "vs tuned norm": "vs_norm_text",
        "vs tuned none": "vs_none_text",
        "trials": "trials_text",
        "div.": "diverged_text",
        "n": "n",
    }
    for rival in RIVALS:
        if all(row[f"vs_{rival}_pairs"] is None for row in rows):
            del shown[f"vs tuned {rival}"]
    if not any(row["diverged"] or row["default_diverged"] for row in rows):
        del shown["div."]
    if len({row["trials_text"] for row in rows}) == 1:
        del shown["trials"]  # a note says it
    return shown


def _trials(found: Counts) -> str:
    """``25 (2 diverged)``."""
    return str(found.trials) + (f" ({found.diverged} diverged)" if found.diverged else "")


def _of(runs: pd.DataFrame, strategy: str, form: str) -> pd.DataFrame:
    return runs[(runs["strategy"] == strategy) & (runs["form"] == form)]


def _versus(other: str, comparison: dict[str, Any] | None) -> dict[str, Any]:
    comparison = comparison or {}
    names = (
        *("pairs", "difference", "low", "high", "p", "p_holm", "evidence"),
        *("both", "ours_only", "theirs_only", "p_trains", "difference_trained", "p_trained"),
    )
    evidence, shown = comparison.get("evidence"), comparison.get("text", "–")
    mark = "▲" if better(evidence) else "▼" if worse(evidence) else ""
    text = f"{shown} {mark}".rstrip()
    return {
        **{f"vs_{other}_{name}": comparison.get(name) for name in names},
        f"vs_{other}_text": text,
    }


def _notes(
    tuned: Sequence[Tuned],
    rows: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    request: Request,
    metric: Metric,
) -> list[str]:
    usual = listed(dict.fromkeys(f"{each.default.lr:g}" for each in tuned))
    budgets_in_words = {_trials(each.counts) for each in tuned}
    budget = f"of {plural(tuned[0].counts.trials, 'trial')} " if len(budgets_in_words) == 1 else ""
    notes = [
        f"{measured('test', metric)}: the best {budget or 'trial '}of each study, trained again "
        f"with {plural(len(seeds), 'fresh seed')}; mean with a {interval_words(metric)}. "
        "trained: how many did, tuned and as it comes. vs default: "
        f"beside the strategy as it comes, at lr {usual}. Differences are paired by seed (their "
        "intervals are each by itself). ▲ better or trains more often, ▼ worse or less often: "
        "what may be claimed; without a mark, no difference is shown. Tuning was done once: "
        "claims are about these tuned "
        "values.",
        TESTS.format(
            family="the table",
            rule=f"trained: {rule(rows[0]['trained_from'], metric)}" if rows else "",
        ),
    ]
    budgets = {each.counts.trials - each.counts.failed for each in tuned}
    if len(budgets) > 1:
        said = ", ".join(f"{each.strategy} {each.counts.trials}" for each in tuned)
        notes.append(f"The numbers of trials differ, which favours those with more: {said}.")
    ranges = {str(each.plan.space.dimensions.get(LR, each.plan.base.lr)) for each in tuned}
    if len(ranges) > 1:
        notes.append(f"Learning rates were not searched in the same range: {listed(ranges)}.")
    learning = [each for each in tuned if sampler_named(each.plan.sampler).learns]
    if learning and len(tuned) > 1:
        notes.append(
            "Budgets are compared most fairly by random sampling; here a sampler that learns "
            f"from trials was used: {listed(dict.fromkeys(e.plan.sampler for e in tuned))}."
        )
    missing = [rival for rival in RIVALS if all(each.strategy != rival for each in tuned)]
    if missing:
        first = tuned[0]
        options = as_options(first.default, request.execution)
        which = " ".join(f"-s {rival}" for rival in missing)
        notes.append(
            f"Not compared with tuned {listed(missing)}, which was not tuned here. To tune it:\n"
            f"  gclip study run thresholds {which} --trials {first.counts.trials} --sampler "
            f"{first.plan.sampler}{options} --store {request.store.path}"
        )
    comparison_count = sum(row[f"vs_{other}_p"] is not None for row in rows for other in COMPARED)
    return [*notes, *too_few(len(seeds), comparison_count), *_worth(rows, metric)]


def _worth(rows: Sequence[Mapping[str, Any]], metric: Metric) -> list[str]:
    """What the evidence supports, and no more."""
    words = {"default": "its own default", "norm": "tuned norm", "none": "tuned none"}
    said = []
    for other, name in words.items():
        for claim in CLAIMS:
            some = [row for row in rows if claim in (row[f"vs_{other}_evidence"] or "").split(", ")]
            if some:
                about = "difference_trained" if "when trained" in claim else "difference"
                each = [
                    f"{row['strategy']} ({points(row[f'vs_{other}_{about}'], metric)})"
                    for row in some
                ]
                said.append(f"{_than(claim, name)}: {listed(each)}.")
    return said or ["No difference is shown, which is no proof that there is none."]


def _than(claim: str, name: str) -> str:
    """``Better than tuned norm when trained``."""
    head, when, _ = claim.partition(" when trained")
    return f"{head.capitalize()} than {name}{when}"
