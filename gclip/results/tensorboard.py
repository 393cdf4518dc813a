"""A run for TensorBoard: its curve, and what clipping did at its steps."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gclip.errors import UsageError
from gclip.training.result import RunResult

MOST_POINTS = 1000
"""Of a series; of longer runs, each point stands for several steps."""

_TAGS = {
    "loss": "train/loss",
    "lr": "train/lr",
    "norm": "clip/norm",
    "clipped_norm": "clip/clipped_norm",
    "limit": "clip/limit",
    "clipped": "clip/clip_rate",
    "skipped": "clip/skipped",
}
_MEANS = ("loss", "clipped", "skipped")
"""Of several steps these are means, the others those of the last."""

Point = tuple[str, int, float]


def writer_class() -> Any:
    """TensorBoard's SummaryWriter.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "TensorBoard is not installed, in whose files the run is to be written: "
            'pip install "gclip[tensorboard]", or pip install tensorboard'
        ) from error
    return SummaryWriter


def write(result: RunResult, folder: str | Path) -> Path:
    """Write a run, each into a folder of its own; what it held of the same run is replaced.

    Args:
        result: of the run.
        folder: that TensorBoard shows: ``tensorboard --logdir FOLDER``.

    Returns:
        The run's folder.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    summary_writer = writer_class()
    own = Path(folder) / _name(result)
    for file in own.glob("events.out.tfevents.*"):
        file.unlink()
    with summary_writer(str(own)) as writer:
        for tag, step, value in points(result):
            writer.add_scalar(tag, value, step)
    return own


def points(result: RunResult) -> Iterator[Point]:
    """Every point: its tag, the number of steps made, and the value. What is NaN is left out."""
    for name, tag in _TAGS.items():
        if name in result.steps:
            yield from _series(tag, result.steps[name], mean=name in _MEANS)
    metric = result.metric.name
    for row in result.curve:
        score = row.get("score", row.get("accuracy", math.nan))
        known = ("epoch", "step", "train_loss", "seconds", "score", "accuracy")
        others = {name: value for name, value in row.items() if name not in known}
        for name, value in {metric: score, **others}.items():
            if not math.isnan(value):
                yield f"{result.config.split}/{name}", row["step"], float(value)


def _series(tag: str, values: np.ndarray[Any, Any], *, mean: bool) -> Iterator[Point]:
    every = math.ceil(len(values) / MOST_POINTS) or 1
    for start in range(0, len(values), every):
        block = values[start : start + every]
        value = float(block.mean() if mean else block[-1])
        if not math.isnan(value):
            yield tag, start + len(block), value


def _name(result: RunResult) -> str:
    config = result.config
    said = re.sub(r"[^\w.=-]+", "-", f"{config.task}-{config.strategy}-seed{config.seed}").strip(
        "-"
    )
    return f"{said[:80]}-{config.key[:8]}"
