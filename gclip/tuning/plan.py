"""The plan of a study: everything that decides what its trials are.

It is kept in the study itself, as its settings. A study goes on only under the plan it was begun
with, and a process that has nothing but the study can make its trials: `Plan.of`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.core.numbers import bounded
from gclip.errors import UsageError
from gclip.execution.events import Listener, ignore
from gclip.text.streams import printable
from gclip.training.metric import Metric
from gclip.training.tasks import metric_of_task
from gclip.tuning.coordinator import Coordinator
from gclip.tuning.indexed_samplers import WholePoint
from gclip.tuning.objectives import check_objectives
from gclip.tuning.options import SearchOptions
from gclip.tuning.pruners import make_pruner, pruner_named
from gclip.tuning.samplers import GRID_POINTS, Proposal, grid_size, make_sampler, sampler_named
from gclip.tuning.space import LR, Space, dimension, single
from gclip.tuning.sqlite import quiet
from gclip.tuning.sqlite_file import UnreadableStudy

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

    from gclip.results import Store
    from gclip.training import RunConfig

MOST_TRIALS, MOST_SEEDS_PER_TRIAL = 1_000_000, 1000
"""Of one study: more is a slip of the hand."""
TUNING_SEEDS = 1000
"""Trials train with seeds from here on, comparisons with 0, 1, 2 …"""

_RANGE_OF = "range of "


@dataclass(frozen=True, kw_only=True)
class Plan(SearchOptions):
    """What is searched, how, and by what it is judged.

    Attributes:
        name: of the study.
        base: the runs, apart from what is searched; seed and split are the plan's own.
        space: what is searched.

    Raises:
        UsageError: when made, for anything that can be known to be wrong before the first trial.
    """

    name: str
    base: RunConfig
    space: Space

    def __post_init__(self) -> None:
        bounded("seeds per trial", self.seeds_per_trial, MOST_SEEDS_PER_TRIAL)
        object.__setattr__(self, "objectives", check_objectives(self.objectives, self.metric))
        sampler, pruner = sampler_named(self.sampler), pruner_named(self.pruner)
        sampler.check(self)
        pruner.check(self, self.base.epochs)
        if sampler.takes_points and self.points is None:
            object.__setattr__(self, "points", GRID_POINTS)
        if self.most is not None and self.most > MOST_TRIALS:
            raise UsageError(
                f"the grid of {self.space.strategy.name} has {self.most:,} points, but a study has "
                f"at most {MOST_TRIALS:,} trials; take fewer --points, or fix fields by --space"
            )
        lr = self.base.lr if self.space.lr is None else self.space.lr
        base = self.base.replace(
            strategy=str(self.space.strategy), lr=lr, seed=self.seeds[0], split="validation"
        )
        object.__setattr__(self, "base", base)

    @classmethod
    def of(cls, name: str, settings: Mapping[str, Any]) -> Plan:
        """The plan whose `settings` these are."""
        from gclip.training import RunConfig, task_defaults

        fields = {field.name for field in dataclasses.fields(RunConfig)}
        base = {key: value for key, value in settings.items() if key in fields - {"seed"}}
        usual = task_defaults(base["task"])
        if LR not in base and base["optimizer"] == usual.optimizer:
            base[LR] = usual.lr  # searched, so not kept; the task's own, not the optimizer's
        strategy = single(base["strategy"])
        ranges = {
            key.removeprefix(_RANGE_OF): text
            for key, text in settings.items()
            if key.startswith(_RANGE_OF)
        }
        dimensions = {each: dimension(strategy, each, text) for each, text in ranges.items()}
        return cls(
            name=name,
            base=RunConfig.of(base),
            space=Space(strategy=strategy, dimensions=dimensions),
            **cls.read_settings(settings),
        )

    @classmethod
    def from_study(cls, study: Study, path: Path) -> Plan:
        """The plan of a study that was read from the file `path`.

        Raises:
            UnreadableStudy: its settings mean nothing here, as those of another version may not.
        """
        settings = study.user_attrs["settings"]
        try:
            plan = cls.of(path.stem, settings)
            strange = sorted(settings.keys() - plan.settings.keys())
            if strange:
                raise UsageError(f"there is no {strange[0]!r}")
            return plan
        except Exception as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UnreadableStudy(
                f"the study file '{printable(str(path))}' cannot be used, as its settings do not "
                f"read here: {printable(said)}"
            ) from error

    @property
    def metric(self) -> Metric:
        """What trials are judged by."""
        return metric_of_task(self.base.task)

    @property
    def sought(self) -> tuple[str, ...]:
        """`objectives`, filled in."""
        return check_objectives(self.objectives, self.metric)

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same when the study goes on; JSON-serialisable."""
        settings: dict[str, Any] = json.loads(self.base.to_json())
        del settings["seed"]
        if LR in self.space.dimensions:
            del settings["lr"]
        for name, each in self.space.dimensions.items():
            settings[f"{_RANGE_OF}{name}"] = str(each)
        return {**settings, **self.search_settings}

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds of every trial."""
        first = TUNING_SEEDS + self.seed
        return tuple(range(first, first + self.seeds_per_trial))

    @property
    def learns(self) -> bool:
        """Whether what its trials are depends on those that have ended."""
        return sampler_named(self.sampler).learns or pruner_named(self.pruner).prunes

    @property
    def most(self) -> int | None:
        """How many trials there can be; None for no bound."""
        return None if self.points is None else grid_size(self.space, self.points)

    def check_trials(self, trials: int) -> None:
        """Raises `UsageError` for a number of trials that cannot be made."""
        bounded("trials", trials, MOST_TRIALS)
        most = self.most
        if most is not None and trials > most:
            raise UsageError(
                f"the grid of {self.space.strategy.name} has {most} points, but {trials} trials "
                "were asked for; give --trials at most that, or more --points"
            )

    def propose(self, trial: Trial) -> RunConfig:
        """The config of a trial's first run."""
        return self.space.config(trial, self.base)

    def examples(self, count: int) -> list[RunConfig]:
        """The first runs of up to `count` trials such as there may be, drawn at random."""
        import optuna

        examples = []
        with quiet():
            study = optuna.create_study(
                sampler=make_sampler("random", Proposal(place=0, study_seed=self.seed))
            )
            for _ in range(count):
                with contextlib.suppress(UsageError):  # values that do not go together
                    examples.append(self.propose(study.ask()))
        return examples

    def make_sampler(self, place: int) -> BaseSampler:
        """The sampler for the proposal of one place, from 0; see `gclip.tuning.proposals`."""
        space = self.space.distributions
        grid = {} if self.points is None else self.space.grid(self.points)
        proposal = Proposal(place=place, study_seed=self.seed, space=space, grid=grid)
        return WholePoint(make_sampler(self.sampler, proposal), space)

    def make_pruner(self) -> BasePruner | None:
        """The pruner, None where nothing is pruned."""
        if not pruner_named(self.pruner).prunes:
            return None
        return make_pruner(self.pruner, steps=self.base.epochs * self.seeds_per_trial)

    def coordinator(self, study: Study, store: Store, listener: Listener = ignore) -> Coordinator:
        """Who makes the plan's trials; open the study with `settings` and `objectives`."""
        return Coordinator(
            study=study,
            store=store,
            propose=self.propose,
            sampler=self.make_sampler,
            pruner=self.make_pruner(),
            prune_seeds=pruner_named(self.pruner).by_seed,
            seeds=self.seeds,
            objectives=self.sought,
            metric=self.metric,
            listener=listener,
        )
