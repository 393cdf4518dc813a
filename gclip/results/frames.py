"""What do tables, statistics and figures read? Data frames made from a store.

``runs`` has one row a run, ``curves`` one a run and epoch, ``steps`` one a run and step (or block
of steps), ``layers`` one a run, layer and point in time, where layers were watched. Diverged runs
are rows like any other: they score the worst value of their metric (of accuracy: chance) and count
everywhere.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gclip.clipping.verdicts import LIMITED
from gclip.results.comparable import scored_runs
from gclip.results.layer_frame import layers_frame
from gclip.results.metrics import METRIC_COLUMNS, metric_cells
from gclip.results.run_files import StoredRun
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
STEP_COLUMNS = (
    *("key", "strategy", "seed", "step", "norm", "clipped_norm", "limit"),
    *("clipped", "any_clipped", "limited", "finite", "loss", "player"),
)
_VALUES = STEP_COLUMNS[4:-1]
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
    return _steps_frame(_stored(store, keys), points)


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


@dataclass(frozen=True)
class Results:
    """Everything a figure may read: the frames of ``load``, ``load_curves``, ``load_steps`` and
    ``load_layers``."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    steps: pd.DataFrame
    layers: pd.DataFrame = field(default_factory=lambda: layers_frame(()))

    @classmethod
    def read(
        cls, store: Where, keys: Iterable[str] | None = None, *, points: int | None = 240
    ) -> Results:
        """Read a store once (steps in at most ``points`` blocks).

        Raises:
            UsageError: the store is missing.
        """
        stored = list(_stored(store, keys))
        steps, layers = _steps_frame(stored, points), layers_frame(stored)
        return cls(_runs_frame(stored), _curves_frame(stored), steps, layers)

    def only(self, keys: Iterable[str]) -> Results:
        """The part about these runs."""
        wanted = set(keys)
        runs, curves, steps, layers = (
            frame[frame["key"].isin(wanted)].reset_index(drop=True)
            for frame in (self.runs, self.curves, self.steps, self.layers)
        )
        return Results(runs, curves, steps, layers)

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


def _steps_frame(runs: Iterable[StoredRun], points: int | None) -> pd.DataFrame:
    import pandas as pd

    # Runs stay packed until the longest is known: blocks are to line up across runs.
    stored_runs = list(runs)
    width = 1
    if points is not None:
        longest = max((stored.length() for stored in stored_runs), default=0)
        width = max(1, -(-longest // points))
    frames = []
    for stored in stored_runs:
        steps = stored.steps()
        of_step = steps.pop("player", None)
        names = list((stored.result.get("clipping") or {}).get("players") or {})
        for index, name in enumerate(names if of_step is not None else [""]):
            own = None if of_step is None else np.asarray(of_step == index, dtype=bool)
            frame = pd.DataFrame(_columns(steps, width, own))
            if own is not None:
                frame = frame[_blocks_of(own, width)]
            frame = frame.assign(player=name)
            frame.insert(0, "seed", stored.config["seed"])
            frame.insert(0, "strategy", stored.config["strategy"])
            frame.insert(0, "key", stored.key)
            frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=list(STEP_COLUMNS))
    return _sorted(pd.concat(frames, ignore_index=True)[list(STEP_COLUMNS)], "step")


def _blocks_of(own: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Whether a block of steps has one of `own`."""
    padded = np.zeros(-(-len(own) // width) * width, dtype=bool)
    padded[: len(own)] = own
    return np.asarray(padded.reshape(-1, width).any(axis=1), dtype=bool)


def _columns(
    steps: Mapping[str, NDArray[Any]], width: int, own: NDArray[np.bool_] | None = None
) -> dict[str, NDArray[Any]]:
    """The step columns of one run, in blocks of ``width`` steps; what was not recorded is NaN, and
    so is what is not of `own` steps, those of one player."""
    length = max((len(values) for values in steps.values()), default=0)
    missing = np.full(length, np.nan)
    recorded = {name: np.asarray(steps.get(name, missing), float) for name in _VALUES}
    if own is not None:
        recorded = {name: np.where(own, values, np.nan) for name, values in recorded.items()}
    clipped = recorded["clipped"]
    recorded["any_clipped"] = np.where(np.isnan(clipped), np.nan, clipped > 0)
    before, after = recorded["norm"], recorded["clipped_norm"]
    known = np.isfinite(before) & ~np.isnan(after)
    recorded["limited"] = np.where(known, after < LIMITED * before, np.nan)
    columns: dict[str, NDArray[Any]] = {"step": np.arange(0, length, width)}
    for name, values in recorded.items():
        if width > 1:
            mean = name in ("clipped", "any_clipped", "limited", "finite")
            values = _blocks(values, width, np.nanmean if mean else _finite_median)
        columns[name] = values
    return columns


def _blocks(values: NDArray[Any], width: int, reduce: Any) -> NDArray[Any]:
    """``reduce`` over each block of ``width`` values (the last may be shorter; NaN pads it)."""
    padded = np.full(-(-len(values) // width) * width, np.nan)
    padded[: len(values)] = values
    with warnings.catch_warnings():
        # A block without one value is NaN, which is what we want and NumPy warns about.
        warnings.simplefilter("ignore", RuntimeWarning)
        result: NDArray[Any] = reduce(padded.reshape(-1, width), axis=1)
    return result


def _finite_median(values: NDArray[Any], axis: int) -> NDArray[Any]:
    result: NDArray[Any] = np.nanmedian(np.where(np.isfinite(values), values, np.nan), axis=axis)
    return result
