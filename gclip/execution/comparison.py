"""What a comparison found: its table, its runs as data frames, and how it shows itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from gclip.results.table_text import comparison_table, notes
from gclip.text.html import escaped, table_html
from gclip.text.screen import width
from gclip.text.table import fill

if TYPE_CHECKING:
    import pandas as pd

    from gclip.results import Results, Store
    from gclip.training import RunResult
    from gclip.training.metric import Metric


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """What `gclip.compare` found. It prints as a table, in a notebook as one too.

    Attributes:
        table: one row a strategy, the best first
            (`gclip.results.statistics.compare_table` says what each column is).
        baseline: the strategy that differences are to.
        store: where the runs are kept.
        outcomes: every run in full, failed ones too, seed by seed.
        same: the groups of strategies that made the same runs, bit for bit
            (`gclip.results.identical_runs.identical_runs`).
        metric: what the runs are measured by; None for accuracy.
    """

    outcomes: tuple[RunResult, ...]
    table: pd.DataFrame
    baseline: str
    store: Store
    same: tuple[tuple[str, ...], ...] = ()
    metric: Metric | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The runs' keys in the store, failed runs left out."""
        return tuple(run.config.key for run in self.outcomes if run.status != "failed")

    @property
    def failed(self) -> tuple[RunResult, ...]:
        """The runs that raised; their `message` says why."""
        return tuple(run for run in self.outcomes if run.status == "failed")

    @property
    def runs(self) -> pd.DataFrame:
        """One row a run, as of `gclip.results.load`: config, `status`, `score`, `clip_rate` …"""
        from gclip.results import load

        return load(self.store, self._all)

    def curves(self) -> pd.DataFrame:
        """One row a run and epoch, as of `gclip.results.load_curves`: `score`, `train_loss`."""
        from gclip.results import load_curves

        return load_curves(self.store, self._all)

    def steps(self, points: int | None = None) -> pd.DataFrame:
        """One row a run and step, as of `gclip.results.load_steps`: `norm`, `limit`, `loss` ….

        With `points`, blocks of steps: at most so many in the longest run.
        """
        from gclip.results import load_steps

        return load_steps(self.store, self._all, points=points)

    def layers(self) -> pd.DataFrame:
        """One row a run, layer and point in time, as of `gclip.results.load_layers`.

        Of runs with ``watch="layer"``: `before` and `after` clipping.
        """
        from gclip.results import load_layers

        return load_layers(self.store, self._all)

    @cached_property
    def results(self) -> Results:
        """What figures take, failed runs left out: ``gclip.figures.draw("accuracy", …)``."""
        from gclip.results import Results

        return Results.read(self.store, self.keys)

    @property
    def _all(self) -> tuple[str, ...]:
        return tuple(run.config.key for run in self.outcomes)

    @property
    def _split(self) -> str:
        return self.outcomes[0].config.split

    def _below(self) -> list[str]:
        """What is said under the table."""
        failed = [
            f"failed: {run.config.strategy} seed {run.config.seed}: {run.message}"
            for run in self.failed
        ]
        return [*notes(self.table, self.baseline, self.same, self.metric), *failed]

    def __repr__(self) -> str:
        table = comparison_table(self.table, self.baseline, self._split, self.metric)
        below = [line for said in self._below() for line in fill(said, width())]
        return "\n".join([table.text(width()), "", *below])

    def _repr_html_(self) -> str:
        """The same table for a notebook, every column of it."""
        table = comparison_table(self.table, self.baseline, self._split, self.metric)
        below = "".join(f"<p>{escaped(line)}</p>" for line in self._below())
        return table_html(table) + below
