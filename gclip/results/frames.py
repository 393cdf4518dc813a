"""What do tables, statistics and figures read? Data frames made from a store.

``runs`` has one row a run, ``curves`` one a run and epoch, ``steps`` one a run and step (or block
of steps), ``layers`` one a run, layer and point in time, where layers were watched. Diverged runs
are rows like any other: they score the worst value of their metric (of accuracy: chance) and count
everywhere.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gclip.results.comparable import scored_runs
from gclip.results.layer_frame import layers_frame
from gclip.results.metrics import METRIC_COLUMNS, metric_cells
from gclip.results.run_files import StoredRun
from gclip.results.step_frame import STEP_COLUMNS as STEP_COLUMNS
from gclip.results.step_frame import steps_frame
from gclip.results.store import Store
from gclip.training.metric import ACCURACY, Metric

if TYPE_CHECKING:
    import pandas as pd

# A config names these only where they are set: they came after the first runs were stored.
_LATER = {
    "label_noise": 0.0,
    "gradient_noise": 0.0,
    "spikes": 0.0,
    "selection": 0,
    "stepping": 0,
    "dropout": 0.0,
    "model_code": "",
    "problem_code": "",
    "watch": "",
}
# What a run is about; every other field of its config follows in alphabetical order.
_CONFIG = ("task", "model", "optimizer", "lr", "strategy", "seed")
_SCORES = ("accuracy", "chance", "loss", "train_loss")
_RATES = ("clip_rate", "group_rate", "limited_rate", "steps", "skipped", "not_finite")
_QUANTILES = {
    0.05: "norm_q05",
    0.25: "norm_q25",
    0.5: "norm_q50",
    0.75: "norm_q75",
    0.95: "norm_q95",
}
RUN_COLUMNS = (
    *("key", *_CONFIG, "status", "message", "stopped_at", "score", *METRIC_COLUMNS, *_SCORES),
    *(*_RATES, "verdict", *_QUANTILES.values(), "seconds", "device", "date"),
)
CURVE_COLUMNS = (
    *("key", "strategy", "seed", "epoch", "step"),
    *("train_loss", "score", "accuracy", "loss"),
)
Where = Store | str | os.PathLike[str]


def load(store: Where, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a run: every field of its config, its outcome and what clipping did.

    ``keys`` chooses runs (all by default; keys that are not stored are left out). ``score`` is
    the value of the run's ``metric`` (`gclip.results.metric_of` gives all of it), ``accuracy`` the
    same where that is the metric, else NaN. Accuracies and rates are in [0, 1], seconds per run.
    Rows are sorted by strategy, seed and key, and pruned and failed runs are among them: look at
    ``status``.

    Raises:
        UsageError: the store is missing.

    Example:
        >>> import tempfile
        >>> from gclip.training import RunConfig, RunResult
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store(folder, create=True)
        ...     result = RunResult(config=RunConfig(strategy="norm", seed=3), accuracy=0.9)
        ...     _ = store.save(result)
        ...     runs = load(store)
        >>> runs[["strategy", "seed", "accuracy", "status"]].to_dict("records")
        [{'strategy': 'norm', 'seed': 3, 'accuracy': 0.9, 'status': 'finished'}]
    """
    return _runs_frame(_stored(store, keys))


def load_curves(store: Where, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a run and epoch (CURVE_COLUMNS), as recorded: a diverged run's rows just end."""
    return _curves_frame(_stored(store, keys))


def load_steps(
    store: Where, keys: Iterable[str] | None = None, *, points: int | None = None
) -> pd.DataFrame:
    """One row a run and step (STEP_COLUMNS); step 0 is the first.

    With ``points``, blocks of steps, equally long in all runs and at most ``points`` in the longest
    run: norms, limit and loss are medians over the block's finite values (NaN where there is none);
    ``clipped`` (share of groups), ``any_clipped``, ``limited`` (whether the norm shrank by more
    than 1 %; NaN where it is not finite) and ``finite`` are means; ``step`` is the first.
    ``player`` says whose step it was, where a run has several: each has rows of its own.
    """
    return steps_frame(_stored(store, keys), points)


def load_layers(store: Where, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a run, layer and point in time (LAYER_COLUMNS), of runs with ``watch="layer"``.

    A point stands for 1, 2, 4, … steps of a run, 256 points at most; ``step`` is its first.
    ``before`` and ``after`` are geometric means over them of the L2 norm of a layer's gradient
    before and after clipping, ``before_max`` and ``after_max`` the largest, inf where any was not
    finite; `gclip.LayerRecord` says it in full. ``skipped`` is the share of these steps that were
    skipped (``after`` is of the others), ``depth`` counts a player's layers from 0, its first.

    Raises:
        UsageError: the store is missing.
    """
    return layers_frame(_stored(store, keys))


def _no_rows() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True)
class Results:
    """Everything a figure may read: the frames of ``load``, ``load_curves``, ``load_steps`` and
    ``load_layers``; of a study also what its trials were, and the table that answers it.

    Attributes:
        runs, curves, steps, layers: as above. A study's runs have what it calls them, too:
            ``threshold`` and ``value``, ``rate``, ``disturbance`` and ``level``, ``form``.
        trials: one row a trial of a search (`gclip.tuning.trial_frame.TRIAL_COLUMNS`).
        table: the rows of the study's table.
        study: its name; empty for a comparison.
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    steps: pd.DataFrame
    layers: pd.DataFrame = field(default_factory=lambda: layers_frame(()))
    trials: pd.DataFrame = field(default_factory=_no_rows)
    table: pd.DataFrame = field(default_factory=_no_rows)
    study: str = ""

    @classmethod
    def read(
        cls, store: Where, keys: Iterable[str] | None = None, *, points: int | None = 240
    ) -> Results:
        """Read a store once (steps in at most ``points`` blocks).

        Raises:
            UsageError: the store is missing.
        """
        stored = list(_stored(store, keys))
        steps, layers = steps_frame(stored, points), layers_frame(stored)
        return cls(_runs_frame(stored), _curves_frame(stored), steps, layers)

    @classmethod
    def nothing(cls) -> Results:
        """Of no run: what a figure of trials alone is drawn from."""
        return cls(_runs_frame(()), _curves_frame(()), steps_frame((), None))

    def only(self, keys: Iterable[str]) -> Results:
        """The part about these runs."""
        wanted = set(keys)
        runs, curves, steps, layers = (
            frame[frame["key"].isin(wanted)].reset_index(drop=True)
            for frame in (self.runs, self.curves, self.steps, self.layers)
        )
        return dataclasses.replace(self, runs=runs, curves=curves, steps=steps, layers=layers)

    def scored(self) -> Results:
        """The part about runs that came to an end: finished or diverged, not pruned or failed."""
        return self.only(scored_runs(self.runs)["key"])

    @property
    def strategies(self) -> tuple[str, ...]:
        """All strategies in the order of their colours: ``none`` first, then by spelling."""
        return ordered(self.runs["strategy"])


def ordered(strategies: Iterable[str]) -> tuple[str, ...]:
    """Strategies in the order of their colours: ``none`` first, then by spelling."""
    return tuple(sorted(set(strategies), key=lambda name: (name != "none", name)))


def _stored(store: Where, keys: Iterable[str] | None) -> Iterator[StoredRun]:
    source = store if isinstance(store, Store) else Store(store)
    for key in source.keys() if keys is None else dict.fromkeys(keys):
        stored = source.read(key)
        if stored is not None:
            yield stored


def _sorted(frame: pd.DataFrame, *then: str) -> pd.DataFrame:
    order = ["strategy", "seed", "key", *then]
    return frame.sort_values(order, kind="stable").reset_index(drop=True)


def _runs_frame(runs: Iterable[StoredRun]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for stored in runs:
        clipping = stored.result.get("clipping") or {}
        row = {name: _cell(value) for name, value in (_LATER | stored.config).items()}
        row |= {name: stored.result.get(name) for name in ("status", "message")}
        row |= {
            name: _number(stored.result.get(name)) for name in ("stopped_at", *_SCORES, "seconds")
        }
        row |= _measured(stored.result)
        row |= {name: _number(clipping.get(name)) for name in _RATES}
        row["verdict"] = clipping.get("verdict")
        row |= _quantiles(clipping.get("norm_quantiles") or {})
        row |= {name: stored.environment.get(name) for name in ("device", "date")}
        rows.append({"key": stored.key, **row})
    settings = sorted({name for row in rows for name in row} - set(RUN_COLUMNS))
    at = RUN_COLUMNS.index("status")
    columns = [*RUN_COLUMNS[:at], *settings, *RUN_COLUMNS[at:]]
    return _sorted(pd.DataFrame(rows, columns=columns))


def _measured(result: Mapping[str, Any]) -> dict[str, Any]:
    """The run's metric, and what it scored. Accuracy's worst is the chance that was recorded."""
    recorded = result.get("metric")
    if recorded:
        metric = Metric.from_dict(recorded)
        score = _number((result.get("scores") or {}).get(metric.name))
        return {"score": score, **metric_cells(metric)}
    if result.get("status") == "failed":  # before it was measured
        return {"score": math.nan}
    cells = {**metric_cells(ACCURACY), "worst": _number(result.get("chance"))}
    return {"score": _number(result.get("accuracy")), **cells}


def _cell(value: Any) -> Any:
    """Nested settings become one comparable text."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value


def _number(value: Any) -> float:
    """Nothing recorded is NaN; a result spells what JSON has no number for "nan" and "inf"."""
    return math.nan if value is None else float(value)


def _quantiles(recorded: Mapping[str, Any]) -> dict[str, float]:
    """JSON has no numbers as keys either: 0.05 comes back as "0.05"."""
    by_number = {float(key): value for key, value in recorded.items()}
    return {name: _number(by_number.get(quantile)) for quantile, name in _QUANTILES.items()}


def _curves_frame(runs: Iterable[StoredRun]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "key": stored.key,
            "strategy": stored.config["strategy"],
            "seed": stored.config["seed"],
            **{name: point.get(name) for name in ("epoch", "step")},
            **{name: _number(point.get(name)) for name in ("train_loss", "accuracy", "loss")},
            "score": _number(point.get("score", point.get("accuracy"))),
        }
        for stored in runs
        for point in stored.result.get("curve") or ()
    ]
    return _sorted(pd.DataFrame(rows, columns=list(CURVE_COLUMNS)), "epoch")
