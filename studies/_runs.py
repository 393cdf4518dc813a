"""What the studies share: which strategies take part, their runs, and one row for each run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gclip
from gclip.errors import UsageError
from gclip.execution.run_all import train_missing
from gclip.results.comparable import scored_runs as scored
from gclip.results.metric_text import score_text
from gclip.results.metrics import METRIC_COLUMNS, is_accuracy, metric_cells, metric_of, scores_of
from gclip.studies._words import interval

if TYPE_CHECKING:
    import pandas as pd

    from gclip.training import RunConfig, RunResult
    from gclip.training.metric import Metric
    from gclip.tuning.study import Request

USUAL = ("none", "norm", "soft", "value", "agc", "percentile", "zclip", "adagc")
"""Who takes part unless told otherwise: the best known of each family."""

Cell = tuple[Mapping[str, Any], "RunConfig"]
"""A run of a study, and what the study calls it."""


def spellings(request: Request, *, usual: Sequence[str] = USUAL) -> tuple[str, ...]:
    """The strategies of a study, canonical, ``none`` first: it is what the others are held against.

    Raises:
        UsageError: an unknown strategy, or one named twice.
    """
    chosen = [str(gclip.parse(text)) for text in request.strategies or usual]
    check_once(chosen)
    return ("none", *(text for text in chosen if text != "none"))


def check_once(strategies: Sequence[str]) -> None:
    """Raise `UsageError` for a strategy that is named twice."""
    twice = next((text for text in strategies if strategies.count(text) > 1), None)
    if twice is not None:
        raise UsageError(f"the strategy {twice} is there twice; name each strategy once")


def seeds_of(request: Request, usual: Iterable[int]) -> tuple[int, ...]:
    """The training seeds, each once."""
    chosen = tuple(usual if request.seeds is None else request.seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise UsageError(f"a study needs at least one seed, each once, but got {list(chosen)}")
    return chosen


def points_of(request: Request, usual: int, *, least: int = 2) -> int:
    """How many values a grid has."""
    count = usual if request.points is None else request.points
    if count < least:
        raise UsageError(f"points must be at least {least}, but got {count}")
    return count


def trained(request: Request, cells: Sequence[Cell]) -> pd.DataFrame:
    """Make the runs that the store does not have, and give a row for each cell.

    A row holds the run's config, its `status`, `score`, metric (`gclip.results.metric_of`),
    `accuracy`, `clip_rate` and `seconds`, and what the study calls it, which goes before the
    config's own words.
    """
    configs = [config for _, config in cells]
    runs = train_missing(configs, request.store, request.execution)
    return table_of([(labels, run) for (labels, _), run in zip(cells, runs, strict=True)])


def table_of(found: Iterable[tuple[Mapping[str, Any], RunResult]]) -> pd.DataFrame:
    """One row a run: its config, its outcome, and over both what the study calls it."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "key": run.config.key,
                **json.loads(run.config.to_json()),
                "spelling": run.config.strategy,
                "status": run.status,
                "score": run.score,
                **(dict.fromkeys(METRIC_COLUMNS) if run.status == "failed" else _metric(run)),
                "accuracy": run.accuracy,
                "chance": run.chance,
                "clip_rate": run.clipping.get("clip_rate", math.nan),
                "seconds": run.seconds,
                "message": run.message,
                **labels,
            }
            for labels, run in found
        ]
    )


def _metric(run: RunResult) -> dict[str, Any]:
    cells = metric_cells(run.metric)
    return {**cells, "worst": run.chance} if is_accuracy(run.metric) else cells


def labels_of(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """What the study calls each run, with the run's key; what is no number is None."""
    return [
        {
            "key": config.key,
            **{name: number(v) if isinstance(v, float) else v for name, v in labels.items()},
        }
        for labels, config in cells
    ]


def drawing(
    name: str,
    study: str,
    runs: pd.DataFrame | None = None,
    rows: Sequence[Mapping[str, Any]] = (),
    trials: pd.DataFrame | None = None,
) -> Callable[[], Any]:
    """What draws a figure of a study when it is called.

    Args:
        name: of the figure.
        study: whose it is.
        runs: one row a run, as of `trained`.
        rows: of the study's table.
        trials: of its searches (`gclip.tuning.trial_frame`).
    """

    def draw() -> Any:
        import pandas as pd

        from gclip import figures
        from gclip.results import Results

        nothing = Results.nothing()
        results = dataclasses.replace(
            nothing,
            runs=nothing.runs if runs is None else runs,
            trials=pd.DataFrame() if trials is None else trials,
            table=pd.DataFrame(list(rows), dtype=object),
            study=study,
        )
        return figures.draw(name, results)

    return draw


def summary(
    runs: pd.DataFrame, least: float | None = None, metric: Metric | None = None
) -> dict[str, Any]:
    """What a few runs of one kind come to: mean and interval, and how many diverged and failed.

    With `least`, the least score of a run that trained, also how many trained and how good those
    are (`gclip.results.statistics.trained_summary`). The mean is the ``score``, and where the
    metric is accuracy the ``accuracy``, too.
    """
    from gclip.results.intervals import mean_interval, wilson  # scipy, which few studies wait for

    metric = metric_of(runs) if metric is None else metric
    counting = scored(runs)
    mean = mean_interval(scores_of(counting), bounds=(metric.low, metric.high))
    text = interval(mean.value, mean.low, mean.high, metric=metric)
    diverged = int((counting["status"] == "diverged").sum())
    rate = wilson(diverged, len(counting))
    return {
        "n": len(counting),
        "score": number(mean.value),
        "accuracy": number(mean.value) if is_accuracy(metric) else None,
        "low": number(mean.low),
        "high": number(mean.high),
        "accuracy_text": text if is_accuracy(metric) else None,
        "score_text": text,
        "clip_rate": number(float(counting["clip_rate"].mean())),
        "diverged": diverged,
        "diverged_low": number(rate.low),
        "diverged_high": number(rate.high),
        "failed": int((runs["status"] == "failed").sum()),
        **({} if least is None else _trained(counting, least, metric)),
    }


def _trained(runs: pd.DataFrame, least: float, metric: Metric) -> dict[str, Any]:
    from gclip.results.trained import trained_summary

    outcome = {
        name: number(value) if isinstance(value, float) else value
        for name, value in trained_summary(runs, least, metric).items()
    }
    middle = score_text(metric, outcome["iqm_trained"])
    text = f"{outcome['trained']}/{len(runs)}"
    return {**outcome, "trained_from": least, "trained_text": text, "iqm_text": middle}


def parts(runs: pd.DataFrame, by: str) -> dict[float, pd.DataFrame]:
    """The runs at each number in a column, ascending."""
    groups: Any = runs.groupby(by, sort=True)
    return {float(value): some for value, some in groups}


def runs_each(cells: Iterable[Mapping[str, Any]]) -> str:
    """How many runs count at each point of a grid, from `summary` of each: ``3``, or ``2–3``."""
    counts = [cell["n"] for cell in cells]
    return "–".join(str(n) for n in dict.fromkeys((min(counts), max(counts))))


def number(value: float) -> float | None:
    """None for what is not a number: rows go into JSON."""
    return float(value) if math.isfinite(value) else None


def failures(runs: pd.DataFrame) -> list[str]:
    """A sentence about the runs that failed, with the first one's message; none if none did."""
    failed = runs[runs["status"] == "failed"]
    if failed.empty:
        return []
    first = failed.iloc[0]
    return [
        f"{len(failed)} of {len(runs)} runs failed and are in no number; the same command tries "
        f"them again. The first: {first['spelling']} seed {first['seed']}: {first['message']}"
    ]
