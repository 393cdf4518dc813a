"""One study looked at: its best trials, which field mattered, and all of it as a table."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.tuning.objectives import metric_of_study
from gclip.tuning.plan import Plan
from gclip.tuning.sqlite import quiet, read_study
from gclip.tuning.trials import (
    complete,
    config_of,
    counted,
    counts,
    front_of,
    status_of,
    superseded,
)

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Study
    from optuna.trial import FrozenTrial

FEWEST = 8
"""Complete trials below which an importance is not worth its name."""


def rows(path: Path) -> list[dict[str, Any]]:
    """One row a trial, in their order: those that were replaced by another attempt, too.

    `trial`, `status`, `attempt`, the values by objective, ``param_…`` for what was searched, what
    trained (`strategy`, `lr`, `keys`), `stopped_at`, `seconds`, `share_clipped`, `message`.
    """
    with read_study(path) as study:
        plan = Plan.from_study(study, path)
        replaced = superseded(study)
        return [_row(trial, plan, replaced) for trial in study.get_trials(deepcopy=False)]


def shown(path: Path, best: int = 5) -> dict[str, Any]:
    """What there is to say about a study, JSON-serialisable.

    `study` (its name), `settings`, `counts` (how its trials ended), `best` (rows as of `rows`),
    `front` (rows; empty with one objective), `importances` (None where there are too few trials)
    and `evaluator`.
    """
    with read_study(path) as study:
        plan = Plan.from_study(study, path)
        trials = counted(study)
        metric = metric_of_study(study)
        ended = sorted(
            complete(trials), key=lambda trial: (-metric.sign * trial.values[0], trial.number)
        )
        front = front_of(trials, plan.sought, metric) if len(plan.sought) > 1 else []
        return {
            "study": path.stem,
            "settings": study.user_attrs.get("settings", {}),
            "metric": metric.to_dict(),
            "counts": str(counts(trials)),
            "best": [_scored(trial, plan) for trial in ended[:best]],
            "front": [_scored(trial, plan) for trial in front],
            "importances": importances(study, plan),
            "evaluator": "fANOVA",
        }


def importances(study: Study, plan: Plan) -> dict[str, float] | None:
    """Which share of the score's variance each field explains, by fANOVA (Hutter et al., 2014).

    The rest to 1 is explained by fields together. None with fewer than `FEWEST` complete trials,
    with one field, or where all score the same.
    """
    names = set(plan.space.dimensions)
    ended = [
        (trial.params, trial.distributions, float(trial.values[0]))
        for trial in complete(counted(study))
        if set(trial.params) == names
    ]
    return _fanova(ended)


def importances_of(trials: pd.DataFrame) -> dict[str, float] | None:
    """The same of the rows of one study (`gclip.tuning.trial_frame`)."""
    from optuna.distributions import json_to_distribution

    ended = [
        (
            json.loads(params),
            {
                name: json_to_distribution(json.dumps(each))
                for name, each in json.loads(distributions).items()
            },
            float(score),
        )
        for params, distributions, score, status in trials[
            ["params", "distributions", "score", "status"]
        ].to_numpy()
        if status in ("finished", "diverged")
    ]
    fields = [set(params) for params, _, _ in ended]
    return _fanova([each for each in ended if set(each[0]) == max(fields, key=len)])


def _fanova(ended: list[tuple[dict[str, Any], dict[str, Any], float]]) -> dict[str, float] | None:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    if len(ended) < FEWEST or len(ended[0][0]) < 2 or len({score for *_, score in ended}) < 2:
        return None
    # A study of these trials alone: pruned ones would count as if their last value were a score.
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = optuna.create_study(direction="maximize")
        alone.add_trials(
            [
                optuna.create_trial(params=params, distributions=distributions, value=score)
                for params, distributions, score in ended
            ]
        )
        importance = FanovaImportanceEvaluator(seed=0).evaluate(alone)
    return {name: float(value) for name, value in sorted(importance.items(), key=lambda e: -e[1])}


def _scored(trial: FrozenTrial, plan: Plan) -> dict[str, Any]:
    return {"score": trial.values[0], **_row(trial, plan)}


def _row(trial: FrozenTrial, plan: Plan, replaced: frozenset[int] = frozenset()) -> dict[str, Any]:
    attributes = trial.user_attrs
    ended = trial.state.is_finished()
    values = trial.values if ended and trial.state.name == "COMPLETE" else None
    config = config_of(trial) if "config" in attributes else None
    return {
        "trial": trial.number,
        "status": "replaced" if ended and trial.number in replaced else status_of(trial),
        "attempt": attributes.get("attempt", 1),
        **{
            name: None if values is None else values[place]
            for place, name in enumerate(plan.sought)
        },
        **{f"param_{name}": trial.params.get(name) for name in plan.space.dimensions},
        "strategy": None if config is None else config.strategy,
        "lr": None if config is None else config.lr,
        "stopped_at": attributes.get("stopped_at"),
        "seconds": attributes.get("seconds"),
        "share_clipped": attributes.get("clip_rate"),
        "keys": " ".join(attributes.get("keys", ())),
        "message": attributes.get("message", ""),
    }
