"""Samplers that propose the point of one place, whatever happened to the trials before.

`gclip.tuning.samplers` has them by name.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from gclip.errors import UsageError
from gclip.tuning.optuna_internals import PlacedQMCSampler, whole_study
from gclip.tuning.proposals import original_of, originals

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, TrialState


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
        """What is proposed together."""
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose what is proposed together."""
        together = self._sampler.infer_relative_search_space(study, trial)
        values = dict(self._sampler.sample_relative(study, trial, together))
        for name, each in search_space.items():
            if name not in values:
                values[name] = self._sampler.sample_independent(study, trial, name, each)
        return values

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Propose one dimension."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Optuna's notice that a trial begins."""
        self._sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Optuna's notice that a trial has ended."""
        self._sampler.after_trial(study, trial, state, values)


class Sobol(PlacedQMCSampler):
    """The point of a scrambled Sobol sequence at one place."""

    def __init__(
        self,
        place: int,
        *,
        seed: int,
        space: Mapping[str, BaseDistribution],
        independent_sampler: BaseSampler,
    ) -> None:
        super().__init__(
            place,
            qmc_type="sobol",
            scramble=True,
            seed=seed,
            independent_sampler=independent_sampler,
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )
        self._space = dict(space)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is proposed together."""
        return dict(self._space)


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
        """What is proposed together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose what is proposed together."""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Propose one dimension."""
        # Not study.get_trials: a pruner may show the sampler a part of the study.
        everything = whole_study(study)
        place = len(originals(everything[: original_of(everything, trial).number]))
        if place >= len(self._points):
            raise UsageError(f"the grid has {len(self._points)} points, and all were tried")
        return self._points[place][self._names.index(param_name)]
