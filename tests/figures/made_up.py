"""Results of made-up studies, as small as a figure of them can be."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pandas as pd

from gclip.results import Results
from gclip.results.metrics import metric_cells
from gclip.training.metric import ACCURACY, Metric
from tests.studies.synthetic import frame, run

STRATEGIES = ("none", "agc", "norm")
VALUES, RATES, SEEDS = (0.01, 0.1, 1.0), (0.01, 0.1, 1.0), (0, 1, 2)
FIELDS = {"agc": "clip_factor", "norm": "max_norm"}


def results(study: str = "", **parts: Any) -> Results:
    """Without learning curves and steps."""
    return dataclasses.replace(Results.nothing(), study=study, **parts)


def score(strategy: str, seed: int, *at: float) -> float:
    """Different for each run, between 0.4 and 0.9."""
    return 0.5 + 0.1 * STRATEGIES.index(strategy) + 0.01 * seed + 0.02 * sum(at)


def keyed(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.assign(key=[f"k{place}" for place in range(len(runs))])


def thresholds() -> Results:
    """A grid of thresholds; the largest diverges with one seed."""
    rows = [run("none", seed, score("none", seed), value=np.nan, threshold="") for seed in SEEDS]
    rows += [
        run(
            text, seed, 0.1 if value == 1 and seed == 2 else score(text, seed, value),
            "diverged" if value == 1 and seed == 2 else "finished",
            value=value, threshold=FIELDS[text], clip_rate=1 - value / 2,
        )
        for text in FIELDS for value in VALUES for seed in SEEDS
    ]  # fmt: skip
    return results("sensitivity", runs=keyed(frame(*rows)))


def rates() -> Results:
    """A grid of learning rates; ``none`` diverges at the highest."""
    rows = [
        run(text, seed, 0.1 if bad else score(text, seed, rate), "diverged" if bad else "finished",
            rate=rate, lr=rate)
        for text in STRATEGIES for rate in RATES for seed in SEEDS
        for bad in [text == "none" and rate == RATES[-1]]
    ]  # fmt: skip
    return results("lr_ceiling", runs=keyed(frame(*rows)))


def disturbed() -> Results:
    """Clean runs, and two levels of spikes."""
    rows = [
        run(text, seed, score(text, seed) - 0.2 * level, disturbance=name, level=level)
        for text in STRATEGIES for seed in SEEDS
        for name, level in (("clean", 0.0), ("spikes", 0.01), ("spikes", 0.1))
    ]  # fmt: skip
    return results("noise", runs=keyed(frame(*rows)))


def trials(metric: Metric = ACCURACY, sampler: str = "random") -> pd.DataFrame:
    """Eight of each strategy over learning rate and, but of ``none``, the threshold."""
    rows = []
    for text in STRATEGIES:
        for place in range(8):
            params = {"lr": 10 ** (-3 + 0.3 * place)}
            if text in FIELDS:
                params[FIELDS[text]] = 10 ** (-2 + (3 * place % 8) / 4)
            rows.append(
                {
                    "study": f"budget-{text}",
                    "strategy": text,
                    "sampler": sampler,
                    "trial": place,
                    "status": "diverged" if place == 7 else "finished",
                    "score": metric.worst
                    if place == 7
                    else metric.worst + metric.sign * 0.1 * score(text, 0, (3 * place % 7) / 2),
                    "best": place == 2,
                    "spelling": _spelled(text, params),
                    "lr": params["lr"],
                    "base_lr": 0.1,
                    "params": json.dumps(params),
                    "distributions": json.dumps({name: _log_range() for name in params}),
                    "keys": f"{text}{place}",
                    "seconds": 1.0,
                    "clip_rate": 0.5,
                    **metric_cells(metric),
                }
            )
    return pd.DataFrame(rows)


def searched() -> Results:
    """Trials with their runs, and what was tuned on fresh seeds beside the defaults."""
    made = trials()
    tried = [
        run(row["spelling"], 1000, row["score"], row["status"], lr=row["lr"], split="validation",
            form=None)
        for row in made.to_dict("records")
    ]  # fmt: skip
    tuned = [
        run(text, seed, score(text, seed) + (0.05 if form == "tuned" else 0.0), form=form,
            split="test")
        for text in STRATEGIES for form in ("tuned", "default") for seed in SEEDS
    ]  # fmt: skip
    table = [
        {
            "strategy": text, "tuned": _spelled(text, {FIELDS.get(text, "lr"): 0.1}), "lr": 0.05,
            "n": len(SEEDS), "trials": 8, "score": score(text, 1) + 0.05,
            "vs_default_difference": 0.05, "vs_default_text": "+5.0 ± 0.1 ▲",
            "vs_default_evidence": "better",
        }
        for text in reversed(STRATEGIES)
    ]  # fmt: skip
    runs = keyed(frame(*tried, *tuned))
    return results("report", runs=runs, trials=made, table=pd.DataFrame(table, dtype=object))


def costs() -> Results:
    """What the study of costs measured."""
    rows = [
        {
            "strategy": text, "side": "gradient", "ratio": ratio, "share": ratio / 20,
            "call_us": 100 * ratio, "ratio_text": f"{ratio:.2f}", "call_text": "9 µs",
            "share_text": "5.0 %", "memory_text": "12 B", "rounds": 20,
            "measured_on": "lenet · batch 32 · sgd",
        }
        for text, ratio in zip(STRATEGIES, (0.5, 3.0, 1.0), strict=True)
    ]  # fmt: skip
    return results("overhead", table=pd.DataFrame(rows, dtype=object))


def _spelled(text: str, params: dict[str, float]) -> str:
    field = FIELDS.get(text)
    return text if field is None else f"{text}({field}={params[field]:.4g})"


def _log_range() -> dict[str, Any]:
    attributes = {"low": 1e-4, "high": 10.0, "log": True, "step": None}
    return {"name": "FloatDistribution", "attributes": attributes}
