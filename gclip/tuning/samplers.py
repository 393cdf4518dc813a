"""Who proposes the next trial, and who gives up on one? Samplers and pruners by name.

Optuna's defaults have changed between versions, so every argument that decides something is said
here. A sampler is made anew for every trial, for its place among the study's proposals
(`gclip.tuning.proposals`): so a study that was interrupted proposes what it would have proposed,
and not its first trials again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from gclip.errors import UsageError, choose
from gclip.tuning.indexed_samplers import Grid as Grid
from gclip.tuning.indexed_samplers import Sobol
from gclip.tuning.indexed_samplers import WholePoint as WholePoint
from gclip.tuning.proposals import replaced_by as replaced_by

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

    from gclip.tuning.space import Space

SAMPLERS = ("tpe", "gp", "cmaes", "random", "qmc", "grid")
PRUNERS = ("none", "median", "hyperband", "wilcoxon")
GRID_POINTS = 5
P_THRESHOLD = 0.1
FEWEST_SEEDS = 5
"""A Wilcoxon test of n pairs cannot go below p = 1/2^n: with 4 it is 0.0625, at the last seed."""

_NEEDS = {"cmaes": ("cmaes",), "gp": ("torch", "scipy"), "qmc": ("scipy",)}


def check_search(
    sampler: str,
    pruner: str = "none",
    *,
    objectives: Sequence[str] = ("accuracy",),
    seeds_per_trial: int = 1,
    epochs: int = 1,
    points: int | None = None,
) -> None:
    """Everything that can be known to be wrong about how is searched, before the first trial.

    Raises:
        UsageError: an unknown name, a package that is not installed, or things that do not go
            together.
    """
    choose(sampler, SAMPLERS, "sampler")
    choose(pruner, PRUNERS, "pruner")
    missing = [name for name in _NEEDS.get(sampler, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the sampler {sampler} needs the package {missing[0]}, which is not installed: "
            f"pip install {missing[0]}"
        )
    if len(objectives) > 1 and sampler == "cmaes":
        raise UsageError(
            f"the sampler cmaes seeks one objective, but got {', '.join(objectives)}; "
            "use tpe, gp, qmc, random or grid"
        )
    if len(objectives) > 1 and pruner != "none":
        raise UsageError(
            f"the pruner {pruner} judges one objective, but got {', '.join(objectives)}; "
            "use --pruner none"
        )
    if points is not None and sampler != "grid":
        raise UsageError(f"points belong to the sampler grid, but the sampler is {sampler}")
    if points is not None and points < 2:
        raise UsageError(f"a grid needs at least 2 points, but got {points}")
    if pruner == "wilcoxon" and seeds_per_trial < FEWEST_SEEDS:
        raise UsageError(
            f"the pruner wilcoxon compares seed by seed and needs at least {FEWEST_SEEDS} seeds "
            f"per trial, but got {seeds_per_trial}"
        )
    if pruner in ("median", "hyperband") and epochs * seeds_per_trial < 2:
        raise UsageError(
            f"the pruner {pruner} stops a trial between epochs, but a trial has only one"
        )


def seeded(seed: int, place: int) -> int:
    """The sampler's seed for the proposal of one place, of its own."""
    digest = hashlib.sha256(f"{seed}/{place}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def grid_size(space: Space, points: int) -> int:
    """How many trials a whole grid takes."""
    size = 1
    for values in space.grid(points).values():
        size *= len(values)
    return size


def make_sampler(
    name: str,
    place: int,
    *,
    seed: int = 0,
    space: Mapping[str, BaseDistribution] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
) -> BaseSampler:
    """The sampler `name` for the proposal of one place.

    Args:
        place: among the study's proposals, from 0.
        seed: the study's.
        space: what is searched, for the sampler qmc.
        grid: the values of each dimension, for the sampler grid.
    """
    from optuna import samplers

    choose(name, SAMPLERS, "sampler")
    its_seed = seeded(seed, place)
    independent = samplers.RandomSampler(seed=its_seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "random":
            return independent
        if name == "grid":
            return Grid(grid or {}, seed)
        if name == "qmc":
            return Sobol(place, seed=seed, space=space or {}, independent_sampler=independent)
        if name == "gp":
            return samplers.GPSampler(
                seed=its_seed,
                independent_sampler=independent,
                n_startup_trials=10,
                deterministic_objective=False,
                warn_independent_sampling=False,
            )
        if name == "cmaes":
            return samplers.CmaEsSampler(
                n_startup_trials=1,
                independent_sampler=independent,
                warn_independent_sampling=False,
                seed=its_seed,
                consider_pruned_trials=False,
                popsize=None,
                use_separable_cma=False,
                with_margin=False,
                lr_adapt=False,
            )
        return samplers.TPESampler(
            n_startup_trials=10,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,
            seed=its_seed,
        )


def make_pruner(name: str, *, steps: int) -> BasePruner:
    """The pruner `name`.

    Args:
        steps: how many values a whole trial reports: its epochs, of all its seeds.
    """
    from optuna import pruners

    choose(name, PRUNERS, "pruner")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "median":
            return pruners.MedianPruner(
                n_startup_trials=5, n_warmup_steps=0, interval_steps=1, n_min_trials=5
            )
        if name == "hyperband":
            return pruners.HyperbandPruner(
                min_resource=1, max_resource=steps, reduction_factor=3, bootstrap_count=0
            )
        if name == "wilcoxon":
            return pruners.WilcoxonPruner(p_threshold=P_THRESHOLD, n_startup_steps=2)
        return pruners.NopPruner()
