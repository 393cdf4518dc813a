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

from gclip.errors import UsageError
from gclip.execution.events import Listener, ignore
from gclip.tuning.coordinator import Coordinator
from gclip.tuning.objectives import check_objectives
from gclip.tuning.samplers import (
    GRID_POINTS,
    WholePoint,
    check_search,
    grid_size,
    make_pruner,
    make_sampler,
)
from gclip.tuning.space import LR, Space, dimension, single
from gclip.tuning.sqlite_file import UnreadableStudy, printable

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

    from gclip.results import Store
    from gclip.training import RunConfig

TUNING_SEEDS = 1000
"""Trials train with seeds from here on, comparisons with 0, 1, 2 …"""

_RANGE_OF = "range of "


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched, how, and by what it is judged.

    Attributes:
        name: of the study.
        base: the runs, apart from what is searched; seed and split are the plan's own.
        space: what is searched.
        sampler, pruner: by name.
        seed: of the sampler, and what is added to the tuning seeds.
        seeds_per_trial: tuning seeds that a trial's score is the mean of.
        objectives: what is sought.
        points: of a grid; None for the usual number.

    Raises:
        UsageError: when made, for anything that can be known to be wrong before the first trial.
    """

    name: str
    base: RunConfig
    space: Space
    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0
    seeds_per_trial: int = 1
    objectives: tuple[str, ...] = ("accuracy",)
    points: int | None = None

    def __post_init__(self) -> None:
        if self.seeds_per_trial < 1:
            raise UsageError(f"seeds per trial must be at least 1, but got {self.seeds_per_trial}")
        object.__setattr__(self, "objectives", check_objectives(self.objectives))
        check_search(
            self.sampler,
            self.pruner,
            objectives=self.objectives,
            seeds_per_trial=self.seeds_per_trial,
            epochs=self.base.epochs,
            points=self.points,
        )
        lr = self.base.lr if self.space.lr is None else self.space.lr
        base = self.base.replace(
            strategy=str(self.space.strategy), lr=lr, seed=self.seeds[0], split="validation"
        )
        object.__setattr__(self, "base", base)

    @classmethod
    def of(cls, name: str, settings: Mapping[str, Any]) -> Plan:
        """The plan whose `settings` these are."""
        from gclip.training import RunConfig

        fields = {field.name for field in dataclasses.fields(RunConfig)}
        base = {key: value for key, value in settings.items() if key in fields - {"seed"}}
        strategy = single(base["strategy"])
        found = {
            key.removeprefix(_RANGE_OF): text
            for key, text in settings.items()
            if key.startswith(_RANGE_OF)
        }
        dimensions = {each: dimension(strategy, each, text) for each, text in found.items()}
        return cls(
            name=name,
            base=RunConfig.of(base),
            space=Space(strategy=strategy, dimensions=dimensions),
            sampler=settings["sampler"],
            seed=settings["seed"],
            pruner=settings.get("pruner", "none"),
            seeds_per_trial=settings.get("seeds per trial", 1),
            objectives=tuple(settings.get("objectives", ("accuracy",))),
            points=settings.get("points"),
        )

    @classmethod
    def kept_in(cls, study: Study, path: Path) -> Plan:
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
    def settings(self) -> dict[str, Any]:
        """What must be the same when the study goes on; JSON-serialisable."""
        found: dict[str, Any] = json.loads(self.base.to_json())
        del found["seed"]
        if LR in self.space.dimensions:
            del found["lr"]
        for name, each in self.space.dimensions.items():
            found[f"{_RANGE_OF}{name}"] = str(each)
        found |= {"sampler": self.sampler, "seed": self.seed}
        # What is left at its default is left out: an error shows what was chosen.
        if self.pruner != "none":
            found["pruner"] = self.pruner
        if self.seeds_per_trial != 1:
            found["seeds per trial"] = self.seeds_per_trial
        if self.objectives != ("accuracy",):
            found["objectives"] = list(self.objectives)
        if self.sampler == "grid":
            found["points"] = self.grid_points
        return found

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds of every trial."""
        first = TUNING_SEEDS + self.seed
        return tuple(range(first, first + self.seeds_per_trial))

    @property
    def grid_points(self) -> int:
        """How many values of a range a grid has."""
        return GRID_POINTS if self.points is None else self.points

    @property
    def most(self) -> int | None:
        """How many trials there can be; None for no bound."""
        return grid_size(self.space, self.grid_points) if self.sampler == "grid" else None

    def check_trials(self, trials: int) -> None:
        """Raises `UsageError` for a number of trials that cannot be made."""
        if trials < 1:
            raise UsageError(f"trials must be at least 1, but got {trials}")
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

        from gclip.tuning.sqlite import quiet

        found = []
        with quiet():
            study = optuna.create_study(sampler=make_sampler("random", 0, seed=self.seed))
            for _ in range(count):
                with contextlib.suppress(UsageError):  # values that do not go together
                    found.append(self.propose(study.ask()))
        return found

    def make_sampler(self, place: int) -> BaseSampler:
        """The sampler for the proposal of one place, from 0; see `gclip.tuning.proposals`."""
        space = self.space.distributions
        grid = self.space.grid(self.grid_points) if self.sampler == "grid" else None
        return WholePoint(
            make_sampler(self.sampler, place, seed=self.seed, space=space, grid=grid), space
        )

    def make_pruner(self) -> BasePruner | None:
        """The pruner, None where nothing is pruned."""
        if self.pruner == "none":
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
            prune_seeds=self.pruner == "wilcoxon",
            seeds=self.seeds,
            objectives=self.objectives,
            listener=listener,
        )
