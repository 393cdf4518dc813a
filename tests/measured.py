"""Made-up runs of two metrics that are no accuracy: a loss, and a return without a range."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gclip.clipping.verdicts import DEFINITION
from gclip.results import Results
from gclip.results.metrics import metric_cells
from gclip.training.metric import Metric

MSE = Metric("mean squared error", better="lower", worst=1 / 6, low=0)
RETURN = Metric("mean return", better="higher", worst=0)
METRICS = (MSE, RETURN)
# Of the best strategy to the worst; the last of them diverges in every other seed.
MEANS: Mapping[str, Mapping[str, float]] = {
    MSE.name: {"agc": 0.01, "norm": 0.03, "none": 0.05},
    RETURN.name: {"agc": 480.0, "norm": 300.0, "none": 200.0},
}
NOT_OF_A_LOSS = re.compile(r"accura|chance|guess|right answers|images|\d points", re.IGNORECASE)


def scores(metric: Metric, strategy: str, seeds: int = 12) -> list[float]:
    """One a seed, near the strategy's mean."""
    mean = MEANS[metric.name][strategy]
    noise = np.random.default_rng(len(strategy)).normal(size=seeds)
    return [float(mean * (1 + 0.02 * each)) for each in noise]


def frame(metric: Metric, seeds: int = 12, *, diverging: str = "", **more: Any) -> pd.DataFrame:
    """One row a run, as of `gclip.results.load`."""
    rows = []
    for strategy in MEANS[metric.name]:
        for seed, score in enumerate(scores(metric, strategy, seeds)):
            diverged = strategy == diverging and seed % 2 == 0
            rows.append(
                {
                    "key": f"{strategy}{seed}",
                    "task": "adding",
                    "model": "lstm",
                    "strategy": strategy,
                    "spelling": strategy,
                    "seed": seed,
                    "split": "test",
                    "code": "",
                    "epochs": 3,
                    "status": "diverged" if diverged else "finished",
                    "message": "",
                    "stopped_at": 7.0 if diverged else np.nan,
                    "score": metric.worst if diverged else score,
                    **metric_cells(metric),
                    "accuracy": np.nan,
                    "chance": np.nan,
                    "clip_rate": 0.5,
                    "limited_rate": 0.5,
                    "steps": 100.0,
                    "skipped": 0.0,
                    "not_finite": 0.0,
                    "seconds": 1.0,
                    **more,
                }
            )
    return pd.DataFrame(rows)


def results(metric: Metric, seeds: int = 4, *, diverging: str = "") -> Results:
    """The same with learning curves."""
    runs = frame(metric, seeds, diverging=diverging)
    curves = [
        {
            **{name: run[name] for name in ("key", "strategy", "seed")},
            "epoch": epoch,
            "step": 10 * epoch,
            "train_loss": 1 / epoch,
            "score": metric.worst + (run["score"] - metric.worst) * epoch / 3,
            "accuracy": np.nan,
            "loss": 1 / epoch,
        }
        for run in runs.to_dict("records")
        for epoch in range(1, 2 if run["status"] == "diverged" else 4)
    ]
    return Results(runs, pd.DataFrame(curves), pd.DataFrame(columns=["key"]))


def assert_says_nothing_of_accuracy(texts: Sequence[str]) -> None:
    """Neither the words, nor a percent sign but that of intervals and of clipped steps."""
    for text in (" ".join(each.split()) for each in texts):
        assert not NOT_OF_A_LOSS.search(text), text
        rest = text.replace(DEFINITION, "")
        rest = re.sub(r"95 % (t )?interval|10 to 90 %|10 % (least|most)", "", rest)
        rest = re.sub(r"more than 1 %|clipped \(?%\)?|[\d.]+ % of the steps", "", rest)
        assert "%" not in rest, text


def texts_of(figure: Any) -> Iterator[str]:
    """Everything that is written in a figure."""
    from matplotlib.text import Text

    yield from (text.get_text() for text in figure.findobj(Text))
