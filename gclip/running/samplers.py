"""Who proposes the next trial, and who gives up on one? Samplers and pruners by name.

Optuna's defaults have changed between versions, so every argument that decides something is said
here. A sampler is made anew for every trial, for its place among the study's proposals
(`gclip.running.places`): so a study that was interrupted proposes what it would have proposed, and
not its first trials again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler

from gclip.errors import UsageError, choose
from gclip.running.places import original_of, originals
from gclip.running.places import replaced_by as replaced_by

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial, TrialState

    from gclip.running.space import Space

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


class WholePoint(BaseSampler):
    """Lets another sampler propose all of a point at once.

    A trial that repeats one whose process was killed half way through its proposal keeps what was
    suggested by then. Optuna asks the sampler only for the rest, and what is drawn one after the
    other would be shifted: the second number would be the first of the random stream. So all of
    the point is drawn, in the order of `space`, and what is kept takes the place of its own part.
    """

    def __init__(self, sampler: BaseSampler, space: Mapping[str, BaseDistribution]) -> None:
        self._sampler = sampler
        # Where there is one value, Optuna asks no sampler.
        self._space = {name: each for name, each in space.items() if not each.single()}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        together = self._sampler.infer_relative_search_space(study, trial)
        found = dict(self._sampler.sample_relative(study, trial, together))
        for name, each in search_space.items():
            if name not in found:
                found[name] = self._sampler.sample_independent(study, trial, name, each)
        return found

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


class Sobol(QMCSampler):
    """The point of a scrambled Sobol sequence at one place.

    (Optuna's own sampler counts in the study how often it was asked: a trial that is lost, or
    repeated, costs the sequence a point.)
    """

    def __init__(
        self,
        place: int,
        *,
        seed: int,
        space: Mapping[str, BaseDistribution],
        independent_sampler: BaseSampler,
    ) -> None:
        super().__init__(
            qmc_type="sobol",
            scramble=True,
            seed=seed,
            independent_sampler=independent_sampler,
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )
        self._place = place
        self._space = dict(space)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self._space)

    def _find_sample_id(self, *_: Any) -> int:
        return self._place


class Grid(BaseSampler):
    """Every combination once, in an order shuffled by the study's seed.

    A trial's point follows from how many originals there were before it, so nothing has to be
    agreed upon or remembered. (Optuna's own sampler stops the study when the grid is
    done, which only ``optimize`` allows.)
    """

    def __init__(self, values: Mapping[str, Sequence[Any]], seed: int) -> None:
        self._names = list(values)
        self._points = list(itertools.product(*values.values()))
        random.Random(seed).shuffle(self._points)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        # Not study.get_trials: a pruner may show the sampler a part of the study.
        everything = study._storage.get_all_trials(study._study_id, deepcopy=False)
        place = len(originals(everything[: original_of(everything, trial).number]))
        if place >= len(self._points):
            raise UsageError(f"the grid has {len(self._points)} points, and all were tried")
        return self._points[place][self._names.index(param_name)]
