"""The trials of searches as a data frame, which figures and reports read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.results.metrics import METRIC_COLUMNS, metric_cells
from gclip.tuning.plan import Plan
from gclip.tuning.sqlite import read_study
from gclip.tuning.trials import best_of, config_of, counted, status_of

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import FrozenTrial

TRIAL_COLUMNS = (
    *("study", "strategy", "sampler", "trial", "status", "score", "best", "spelling", "lr"),
    *("base_lr", "params", "distributions", "keys", "seconds", "clip_rate", *METRIC_COLUMNS),
)
"""``strategy`` is what was tuned, ``spelling`` what the trial tried of it, ``best`` whether it won;
``params`` and ``distributions`` are JSON objects by field (`optuna.distributions`), ``keys`` those
of its runs, with blanks between."""


def trials_frame(studies: Iterable[Path]) -> pd.DataFrame:
    """One row a trial (TRIAL_COLUMNS) that has ended, study by study, in their order.

    Args:
        studies: their files (`gclip.tuning.sqlite.studies_in`).

    Raises:
        UnreadableStudy: a file cannot be used.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for path in studies:
        with read_study(path) as study:
            plan = Plan.from_study(study, path)
            rows += rows_of(plan, counted(study))
    return pd.DataFrame(rows, columns=list(TRIAL_COLUMNS))


def rows_of(plan: Plan, trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """The rows of one study's trials.

    Args:
        plan: of the study.
        trials: those that have ended (`gclip.tuning.trials.counted`).
    """
    best = best_of(trials, plan.metric)
    return [_row(plan, trial, best is trial) for trial in trials]


def _row(plan: Plan, trial: FrozenTrial, best: bool) -> dict[str, Any]:
    from optuna.distributions import distribution_to_json

    attributes = trial.user_attrs
    config = config_of(trial) if "config" in attributes else None
    values = trial.values if trial.state.name == "COMPLETE" else None
    distributions = {
        name: json.loads(distribution_to_json(each)) for name, each in trial.distributions.items()
    }
    return {
        "study": plan.name,
        "strategy": str(plan.space.strategy),
        "sampler": plan.sampler,
        "trial": trial.number,
        "status": status_of(trial),
        "score": None if values is None else float(values[0]),
        "best": best,
        "spelling": None if config is None else config.strategy,
        "lr": None if config is None else config.lr,
        "base_lr": plan.base.lr,
        "params": json.dumps(trial.params, sort_keys=True),
        "distributions": json.dumps(distributions, sort_keys=True),
        "keys": " ".join(attributes.get("keys", ())),
        "seconds": attributes.get("seconds"),
        "clip_rate": attributes.get("clip_rate"),
        **metric_cells(plan.metric),
    }
