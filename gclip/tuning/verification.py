"""Is what a study says of itself true, as far as that can be known?

A damaged database often still reads: what was written twice must agree, and what is a share must be
one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gclip.errors import UsageError
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
            _check_score(trial)
    summary_of(study.study_name, counted(study))


def _check_score(trial: FrozenTrial) -> None:
    """Raises `UsageError` for a complete trial whose accuracy cannot be."""
    score = float(trial.values[0])
    runs = trial.user_attrs.get("accuracies", [score])
    if not 0 <= score <= 1 or not math.isclose(sum(runs) / len(runs), score, abs_tol=1e-9):
        raise UsageError(f"trial {trial.number} has the accuracy {score:g}, and its runs {runs!r}")
