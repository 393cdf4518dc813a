"""How the study of thresholds answers: a row for each strategy, and what to do with the best."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gclip.results.metric_text import score_text, score_with_unit
from gclip.studies._words import data_of, order_of
from gclip.text.screen import percent
from gclip.training.metric import Metric
from gclip.tuning.commands import as_options
from gclip.tuning.outcome import Outcome
from gclip.tuning.study import Request
from gclip.tuning.trials import config_of, no_best

_COLUMNS = {
    "strategy": "strategy",
    "trials": "trials",
    "div.": "diverged",
    "pruned": "pruned",
    "failed": "failed",
    "validation": "score_text",
    "best": "spelling",
    "lr": "lr_text",
}
_SHOWN = {"clip_rate": "steps clipped", "cost": "seconds"}


def row(outcome: Outcome) -> dict[str, Any]:
    """A study as a row of the table."""
    found, best = outcome.counts, outcome.best
    return {
        "study": outcome.name,
        "strategy": str(outcome.plan.space.strategy),
        "trials": found.trials,
        "finished": found.finished,
        "diverged": found.diverged,
        "pruned": found.pruned,
        "failed": found.failed,
        "score": outcome.score,
        "score_text": score_text(outcome.metric, outcome.score),
        "trial": outcome.number,
        "spelling": "–" if best is None else best.strategy,
        "lr": None if best is None else best.lr,
        "lr_text": "–" if best is None else f"{best.lr:g}",
    }


def columns(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Nobody needs to read that nothing was pruned and nothing failed."""
    nothing = {
        name
        for name in ("pruned", "failed")
        if not any(getattr(outcome.counts, name) for outcome in outcomes)
    }
    return {heading: key for heading, key in _COLUMNS.items() if key not in nothing}


def notes(outcomes: Sequence[Outcome], request: Request) -> list[str]:
    """The best of each study, and how to use and to check the best of all."""
    lines: list[str] = []
    for outcome in outcomes:
        best = outcome.best
        lines.append(f"study {outcome.name}: {outcome.counts}; kept in {request.store.path}")
        if best is None:
            lines.append(no_best(outcome.counts))
            continue
        lines.append(
            f"best: {best.strategy} at lr {best.lr:g}, "
            f"{score_with_unit(outcome.metric, outcome.score)} validation {outcome.metric.name} "
            f"(trial {outcome.number})"
        )
        lines += _front_lines(outcome)
    tuned = [outcome for outcome in outcomes if outcome.best is not None]
    if not tuned:
        return lines
    first = min(tuned, key=lambda outcome: order_of(outcome.score, outcome.metric))
    best = first.best
    if best is None:
        return lines
    options = as_options(best, request.execution)
    seeds = first.plan.seeds_per_trial
    words = "one seed" if seeds == 1 else f"{seeds} seeds"
    what = "This score is" if len(tuned) == 1 else "These scores are each"
    whose = "it looks better than it is" if len(tuned) == 1 else "they look better than they are"
    rival = "" if best.strategy == "none" else f' -s "{best.strategy}"'
    lines += [
        "",
        "To use it:" if len(tuned) == 1 else "To use the best of them:",
        f'  gclip train -s "{best.strategy}"{options}',
        f'  clipper = gclip.Clipper(model, "{best.strategy}")    # in Python, with lr={best.lr:g}',
        "",
        f"{what} the best of {first.counts.trials} tries with {words}, so {whose}.",
    ]
    if len(tuned) == 1:
        lines += [
            f"On fresh seeds and {data_of('test', first.metric)}:",
            f"  gclip compare -s none{rival}{options}",
        ]
    return lines


def _front_lines(outcome: Outcome) -> list[str]:
    if not outcome.front:
        return []
    names = outcome.plan.sought
    lines = [
        f"No finished trial beats one of these {len(outcome.front)} in one objective without "
        "losing in another:"
    ]
    for trial in outcome.front:
        config = config_of(trial)
        values = ", ".join(
            _shown(name, value, outcome.metric)
            for name, value in zip(names, trial.values, strict=True)
        )
        lines.append(f"  {values}: {config.strategy} at lr {config.lr:g} (trial {trial.number})")
    return lines


def _shown(name: str, value: float, metric: Metric) -> str:
    if name not in _SHOWN:
        return f"{score_with_unit(metric, value)} {metric.name}"
    text = f"{value:.2f}" if name == "cost" else f"{percent(value)} %"
    return f"{text} {_SHOWN[name]}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """A study as ``--json`` has it."""
    return {
        "study": outcome.name,
        "strategy": str(outcome.plan.space.strategy),
        "space": {name: str(each) for name, each in outcome.plan.space.dimensions.items()},
        "sampler": outcome.plan.sampler,
        "pruner": outcome.plan.pruner,
        "objectives": list(outcome.plan.sought),
        "seeds": list(outcome.plan.seeds),
        "trials": outcome.counts.trials,
        "diverged": outcome.counts.diverged,
        "pruned": outcome.counts.pruned,
        "failed": outcome.counts.failed,
        "score": outcome.score,
        "metric": outcome.metric.to_dict(),
        "trial": outcome.number,
        "best": None if outcome.best is None else json.loads(outcome.best.to_json()),
        "front": [
            {
                "trial": trial.number,
                "strategy": config_of(trial).strategy,
                "lr": config_of(trial).lr,
                **dict(zip(outcome.plan.sought, trial.values, strict=True)),
            }
            for trial in outcome.front
        ],
    }
