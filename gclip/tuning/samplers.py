"""Who proposes the next trial? Optuna's samplers by name, with what each needs and refuses.

Optuna's defaults have changed between versions, so every argument that decides something is said
here. A sampler is made anew for every trial, for its place among the study's proposals
(`gclip.tuning.proposals`): so a study that was interrupted proposes what it would have proposed,
and not its first trials again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    RandomSampler,
    TPESampler,
)

from gclip.core.numbers import bounded
from gclip.errors import UsageError, choose
from gclip.tuning.indexed_samplers import Grid, Sobol
from gclip.tuning.options import SearchOptions

if TYPE_CHECKING:
    from gclip.tuning.space import Space

GRID_POINTS, MOST_POINTS = 5, 10_000


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What a sampler is made for.

    Attributes:
        place: among the study's proposals, from 0.
        study_seed: the study's.
        space: what is searched.
        grid: the values of each dimension, where a grid is.
    """

    place: int
    study_seed: int = 0
    space: Mapping[str, BaseDistribution] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of this place alone."""
        digest = hashlib.sha256(f"{self.study_seed}/{self.place}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    @property
    def random(self) -> RandomSampler:
        """The sampler of the dimensions that others leave out."""
        return RandomSampler(seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A sampler that can be asked for.

    Attributes:
        make: the sampler for a proposal.
        packages: that it needs beside Optuna.
        learns: it proposes in the light of the trials that have ended.
        many_objectives: it may seek several.
        takes_points: it tries the points of a grid.
    """

    make: Callable[[Proposal], BaseSampler]
    packages: tuple[str, ...] = ()
    learns: bool = False
    many_objectives: bool = True
    takes_points: bool = False

    def check(self, search: SearchOptions) -> None:
        """Everything that can be known to be wrong before the first trial.

        Raises:
            UsageError: a package that is not installed, or options that do not go together.
        """
        name, points = search.sampler, search.points
        missing = [each for each in self.packages if importlib.util.find_spec(each) is None]
        if missing:
            raise UsageError(
                f"the sampler {name} needs the package {missing[0]}, which is not installed: "
                f"pip install {missing[0]}"
            )
        if len(search.objectives or ()) > 1 and not self.many_objectives:
            *most, last = [each for each, able in SAMPLERS.items() if able.many_objectives]
            raise UsageError(
                f"the sampler {name} seeks one objective, but got "
                f"{', '.join(search.objectives or ())}; use {', '.join(most)} or {last}"
            )
        if points is not None and not self.takes_points:
            raise UsageError(f"points belong to the sampler grid, but the sampler is {name}")
        if points is not None:
            bounded("points", points, MOST_POINTS, least=2)


SAMPLERS = {
    "tpe": Sampler(
        learns=True,
        make=lambda proposal: TPESampler(
            n_startup_trials=10,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,
            seed=proposal.seed,
        ),
    ),
    "gp": Sampler(
        learns=True,
        packages=("torch", "scipy"),
        make=lambda proposal: GPSampler(
            seed=proposal.seed,
            independent_sampler=proposal.random,
            n_startup_trials=10,
            deterministic_objective=False,
            warn_independent_sampling=False,
        ),
    ),
    "cmaes": Sampler(
        learns=True,
        packages=("cmaes",),
        many_objectives=False,
        make=lambda proposal: CmaEsSampler(
            n_startup_trials=1,
            independent_sampler=proposal.random,
            warn_independent_sampling=False,
            seed=proposal.seed,
            consider_pruned_trials=False,
            popsize=None,
            use_separable_cma=False,
            with_margin=False,
            lr_adapt=False,
        ),
    ),
    "random": Sampler(make=lambda proposal: proposal.random),
    "qmc": Sampler(
        packages=("scipy",),
        make=lambda proposal: Sobol(
            proposal.place,
            seed=proposal.study_seed,
            space=proposal.space,
            independent_sampler=proposal.random,
        ),
    ),
    "grid": Sampler(
        takes_points=True, make=lambda proposal: Grid(proposal.grid, proposal.study_seed)
    ),
}
"""By the name that asks for it."""


def sampler_named(name: str) -> Sampler:
    """The entry of a sampler; `UsageError` with a suggestion if there is none."""
    return SAMPLERS[choose(name, SAMPLERS, "sampler")]


def make_sampler(name: str, proposal: Proposal) -> BaseSampler:
    """The sampler `name` for one proposal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return sampler_named(name).make(proposal)


def grid_size(space: Space, points: int) -> int:
    """How many trials a whole grid takes."""
    size = 1
    for values in space.grid(points).values():
        size *= len(values)
    return size
