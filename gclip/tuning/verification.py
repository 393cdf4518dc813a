"""Is what a study says of itself true, as far as that can be known?

A damaged database often still reads: what was written twice must agree, and a score must lie in its
metric's range.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gclip.errors import UsageError
from gclip.training.metric import Metric
from gclip.tuning.objectives import directions, metric_of_study
from gclip.tuning.proposals import place_of
from gclip.tuning.trials import config_of, counted, summary_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

NOT_OURS = "it holds a study that gclip did not make"
_VARIED = {"strategy", "code", "lr", "seed"}  # from trial to trial


def check_owner(storage: BaseStorage, name: str) -> None:
    """Raises `UsageError` for a file that somebody else keeps a study in."""
    import optuna

    names = optuna.get_all_study_names(storage)
    if not names:
        return
    if name not in names:
        raise UsageError(f"it holds no {name!r}")
    study = optuna.load_study(study_name=name, storage=storage)
    if "settings" not in study.user_attrs and study.get_trials(deepcopy=False):
        raise UsageError(NOT_OURS)


def check_trials(study: Study) -> None:
    """Raises an error of some kind for trials that do not read, or contradict themselves."""
    everything = study.get_trials(deepcopy=False)
    settings = study.user_attrs["settings"]
    metric = metric_of_study(study)
    way = study.directions[0].name.lower()
    if way != directions(["score"], metric)[0]:
        raise UsageError(f"it {way}s {metric.name}, of which {metric.better} is better")
    for trial in everything:
        place_of(everything, trial)
        complete = trial.state.name == "COMPLETE"
        if complete or "config" in trial.user_attrs:
            config_of(trial)
            trained = trial.user_attrs["config"]
            for name in (settings.keys() & trained.keys()) - _VARIED:
                if settings[name] != trained[name]:
                    raise UsageError(
                        f"trial {trial.number} trained with {name} {trained[name]!r}, but the "
                        f"study is of {settings[name]!r}"
                    )
        if complete:
            _check_score(trial, metric)
    summary_of(study.study_name, counted(study), metric)


def _check_score(trial: FrozenTrial, metric: Metric) -> None:
    """Raises `UsageError` for a complete trial whose score cannot be."""
    score = float(trial.values[0])
    attributes = trial.user_attrs
    runs = attributes.get("accuracies", attributes.get("scores", [score]))
    mean = sum(runs) / len(runs)
    inside = metric.low <= score <= metric.high
    if not inside or not math.isclose(mean, score, rel_tol=1e-9, abs_tol=1e-9):
        raise UsageError(
            f"trial {trial.number} has the {metric.name} {score:g}, and its runs {runs!r}"
        )
