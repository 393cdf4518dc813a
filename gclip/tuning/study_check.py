"""Are the studies beside a store whole, and do they say of its runs what the runs say?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.errors import UsageError
from gclip.results.inventory import read_run, size_of
from gclip.results.metrics import is_accuracy
from gclip.results.run_files import StoredRun
from gclip.results.run_list import score_of
from gclip.tuning.grid_answers import answers_in
from gclip.tuning.objectives import finite_score, metric_of_study
from gclip.tuning.sqlite import read_study, studies_in
from gclip.tuning.trials import complete

if TYPE_CHECKING:
    from optuna import Study

    from gclip.results import Store


@dataclass(frozen=True, kw_only=True)
class CheckedStudy:
    """One study's file.

    Attributes:
        path: of the file.
        size: bytes.
        trials: how many it has; None where it cannot be read.
        damaged: why it cannot be used; "" where it can.
    """

    path: Path
    size: int
    trials: int | None = None
    damaged: str = ""


def check_studies(store: Store) -> list[CheckedStudy]:
    """Every study of a store, read; and the answers of those without trials that do not read."""
    found: list[CheckedStudy] = []
    for path in studies_in(store.path).values():
        size = size_of(path)
        try:
            with read_study(path) as study:
                said = _differing(study, store)
                trials = len(study.get_trials(deepcopy=False))
        except UsageError as error:
            found.append(CheckedStudy(path=path, size=size, damaged=str(error)))
            continue
        found.append(CheckedStudy(path=path, size=size, trials=trials, damaged=said))
    folder = store.path / "studies" / "answers"
    return found + [
        CheckedStudy(path=folder, size=0, damaged=said)
        for said in answers_in(store.path).unreadable
    ]


def _differing(study: Study, store: Store) -> str:
    """Where a trial says another score of a run than the run that is stored; "" where none does."""
    metric = metric_of_study(study)
    for trial in complete(study.get_trials(deepcopy=False)):
        attributes = trial.user_attrs
        scores = attributes.get("accuracies", attributes.get("scores", ()))
        for key, score in zip(attributes.get("keys", ()), scores, strict=False):
            run = read_run(store, str(key))
            if not isinstance(run, StoredRun) or run.status not in ("finished", "diverged"):
                continue
            _, stored = score_of(run.result)
            if run.status == "diverged" and not is_accuracy(metric):
                stored = None
            own = finite_score(stored, metric)
            if not math.isclose(float(score), own, rel_tol=1e-9, abs_tol=1e-12):
                return (
                    f"trial {trial.number} says {metric.name} {score:g} of run {key[:12]}, which "
                    f"has {own:g}"
                )
    return ""
