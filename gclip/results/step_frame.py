"""The steps of runs as a data frame: one row a run and step, or block of steps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gclip.clipping.verdicts import LIMITED
from gclip.results.run_files import StoredRun

if TYPE_CHECKING:
    import pandas as pd

STEP_COLUMNS = (
    *("key", "strategy", "seed", "step", "norm", "clipped_norm", "limit"),
    *("clipped", "any_clipped", "limited", "finite", "loss", "player"),
)
_VALUES = STEP_COLUMNS[4:-1]


def steps_frame(runs: Iterable[StoredRun], points: int | None) -> pd.DataFrame:
    """The rows (STEP_COLUMNS) of `runs`, in at most `points` blocks of the longest."""
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
    frame = pd.concat(frames, ignore_index=True)[list(STEP_COLUMNS)]
    order = ["strategy", "seed", "key", "step"]
    return frame.sort_values(order, kind="stable").reset_index(drop=True)


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
