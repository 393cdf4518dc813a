"""Who gives up on a trial? Optuna's pruners by name, with what each needs and refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner

from gclip.errors import UsageError, choose
from gclip.tuning.options import SearchOptions

P_THRESHOLD = 0.1
FEWEST_SEEDS = 5
"""A Wilcoxon test of n pairs cannot go below p = 1/2^n: with 4 it is 0.0625, at the last seed."""


@dataclass(frozen=True, kw_only=True)
class Pruner:
    """A pruner that can be asked for.

    Attributes:
        make: the pruner for trials that report so many values.
        prunes: whether it gives up on any trial at all.
        by_seed: it compares trials seed by seed, not epoch by epoch.
    """

    make: Callable[[int], BasePruner]
    prunes: bool = True
    by_seed: bool = False

    def check(self, search: SearchOptions, epochs: int) -> None:
        """Everything that can be known to be wrong before the first trial.

        Raises:
            UsageError: options that do not go together.
        """
        if not self.prunes:
            return
        name, seeds = search.pruner, search.seeds_per_trial
        if len(search.objectives or ()) > 1:
            raise UsageError(
                f"the pruner {name} judges one objective, but got "
                f"{', '.join(search.objectives or ())}; use --pruner none"
            )
        if self.by_seed and seeds < FEWEST_SEEDS:
            raise UsageError(
                f"the pruner {name} compares seed by seed and needs at least {FEWEST_SEEDS} seeds "
                f"per trial, but got {seeds}"
            )
        if not self.by_seed and epochs * seeds < 2:
            raise UsageError(
                f"the pruner {name} stops a trial between epochs, but a trial has only one"
            )


PRUNERS = {
    "none": Pruner(make=lambda _: NopPruner(), prunes=False),
    "median": Pruner(
        make=lambda _: MedianPruner(
            n_startup_trials=5, n_warmup_steps=0, interval_steps=1, n_min_trials=5
        )
    ),
    "hyperband": Pruner(
        make=lambda steps: HyperbandPruner(
            min_resource=1, max_resource=steps, reduction_factor=3, bootstrap_count=0
        )
    ),
    "wilcoxon": Pruner(
        by_seed=True,
        make=lambda _: WilcoxonPruner(p_threshold=P_THRESHOLD, n_startup_steps=2),
    ),
}
"""By the name that asks for it."""


def pruner_named(name: str) -> Pruner:
    """The entry of a pruner; `UsageError` with a suggestion if there is none."""
    return PRUNERS[choose(name, PRUNERS, "pruner")]


def make_pruner(name: str, *, steps: int) -> BasePruner:
    """The pruner `name`.

    Args:
        name: of the pruner.
        steps: how many values a whole trial reports: its epochs, of all its seeds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return pruner_named(name).make(steps)
