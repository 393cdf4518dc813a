"""How a study searches: every option, said once.

A field here is all that an option needs: its name is that in a study file, in a `Request` and, for
those of `SearchOptions`, in a `Plan` and the settings that a study keeps; beside it stand what it
takes, its flag and its help.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OptionKind:
    """What an option takes.

    Attributes:
        description: in a study file, as an error says it; empty where it does not stand at the top
            of one.
        fits: whether a value from a study file is one.
    """

    description: str
    fits: Callable[[Any], bool]


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(fits(each) for each in value)


def names_such_as(example: str) -> OptionKind:
    """A list of names."""
    return OptionKind(f"a list such as {example}", lambda value: _is_list(value, _is_text))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


WHOLE = OptionKind("a whole number", is_whole)
NAME = OptionKind("a name", lambda value: _is_text(value) and bool(value))
FLAG = OptionKind("true or false", lambda value: isinstance(value, bool))
SEEDS = OptionKind(
    "a count such as 10, or a list such as [0, 1, 5]",
    lambda value: value > 0 if is_whole(value) else _is_list(value, is_whole),
)
RANGE = OptionKind(
    "two numbers such as [0.001, 0.5]",
    lambda value: _is_list(value, _is_number) and len(value) == 2,
)
OBJECTIVES = names_such_as('["accuracy", "clip_rate"]')
SPACE = OptionKind("", lambda _: False)  # a table of its own


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is said of an option beside its name.

    Attributes:
        flag: on the command line.
        kind: what it takes.
        help: what it is.
        usual: its default, in words.
        studies: those that use it, where not all do.
        metavar: what stands for its value in the help; None for its type.
        always_stored: it stands among a study's settings even at its default.
        stored_default: what is left out of a study's settings, where that is not the default of
            the field.
    """

    flag: str
    kind: OptionKind
    help: str
    usual: str
    studies: str = ""
    metavar: str | None = None
    always_stored: bool = False
    stored_default: Any = None


def _option(default: Any, flag: str, kind: OptionKind, **more: Any) -> Any:
    return field(default=default, metadata={"option": Option(flag=flag, kind=kind, **more)})


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How much is searched; None stands for the study's own default.

    Attributes:
        trials: in all, for each strategy, those of earlier commands included.
        seeds: the training seeds of runs that are reported.
        lr_range: learning rates to search, lowest and highest.
        fixed_lr: leave the learning rate alone.
        space: changes to the search space: ``{"clip_factor": "1e-4..1:log"}``.
    """

    trials: int | None = _option(
        None,
        "--trials",
        WHOLE,
        help="In all, for each strategy, those of earlier commands included.",
        usual="20; 25 for budget",
        studies="thresholds, budget",
    )
    seeds: tuple[int, ...] | None = _option(
        None,
        "--seeds",
        SEEDS,
        metavar="N|LIST",
        help="Of the reported runs: how many, or which: 10, or 0,1,5.",
        usual="as many as can show a difference: 10 for up to 25 comparisons, 11 for up to "
        "51; 3 for lr_ceiling, sensitivity",
        studies="budget, claims, lr_ceiling, noise, sensitivity",
    )
    lr_range: tuple[float, float] | None = _option(
        None,
        "--lr-range",
        RANGE,
        metavar="LOW,HIGH",
        help="Learning rates to search.",
        usual="from a 30th to 5 times --lr; from an 8th to 16 times for lr_ceiling",
        studies="thresholds, budget, lr_ceiling",
    )
    fixed_lr: bool | None = _option(
        None,
        "--fixed-lr",
        FLAG,
        help="Leave the learning rate alone.",
        usual="it is searched, too",
        studies="thresholds",
    )
    space: Mapping[str, str] | None = _option(
        None,
        "--space",
        SPACE,
        metavar="FIELD=RANGE",
        help="Search clip_factor=1e-4..1:log, window=10|100 or lr=0.01..1:log, or hold "
        "max_norm=0.5; again for more.",
        usual="what the strategy's fields say",
        studies="thresholds, budget, sensitivity",
    )


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How trials are proposed and judged: with what is searched, all that decides what they are.

    Attributes:
        sampler, pruner: by name (`gclip.tuning.samplers`, `gclip.tuning.pruners`).
        seeds_per_trial: tuning seeds that a trial's score is the mean of.
        objectives: what is sought, ``("accuracy",)`` or ``("accuracy", "clip_rate")``; ``score``
            for accuracy where the task has another metric. None for the metric alone, which a
            `Plan` fills in.
        points: how many values of a grid; None for the usual number.
        seed: of the sampler, and what is added to the tuning seeds.
    """

    sampler: str = _option(
        "tpe",
        "--sampler",
        NAME,
        metavar="NAME",
        help="tpe, gp, cmaes, random, qmc or grid; random to compare budgets.",
        usual="tpe",
        studies="thresholds",
        always_stored=True,
    )
    pruner: str = _option(
        "none",
        "--pruner",
        NAME,
        metavar="NAME",
        help="Stop bad trials early: none, median, hyperband or wilcoxon.",
        usual="none",
        studies="thresholds",
    )
    seeds_per_trial: int = _option(
        1,
        "--seeds-per-trial",
        WHOLE,
        help="Tuning seeds that a trial's score is the mean of.",
        usual="1",
        studies="thresholds, budget",
    )
    objectives: tuple[str, ...] | None = _option(
        None,
        "--objective",
        OBJECTIVES,
        metavar="NAME",
        help="accuracy, and with it clip_rate or cost for a Pareto front; again for more.",
        usual="accuracy",
        studies="thresholds",
        stored_default=("accuracy",),
    )
    points: int | None = _option(
        None,
        "--points",
        WHOLE,
        help="Values of a grid.",
        usual="what suits the study",
        studies="thresholds, lr_ceiling, noise, sensitivity",
    )
    seed: int = _option(
        0,
        "--seed",
        WHOLE,
        help="Of the sampler, and of the tuning seeds.",
        usual="0",
        always_stored=True,
    )

    @property
    def search(self) -> dict[str, Any]:
        """These options alone, by name."""
        return {name: getattr(self, name) for name in options_of(SearchOptions)}

    @property
    def search_settings(self) -> dict[str, Any]:
        """The options as a study keeps them, JSON-serialisable.

        What is left at its default is left out: an error shows what was chosen.
        """
        return {
            _key(name): list(value) if isinstance(value, tuple) else value
            for name, value in self.search.items()
            if options_of(SearchOptions)[name].always_stored
            or value
            not in (getattr(SearchOptions, name), options_of(SearchOptions)[name].stored_default)
        }

    @staticmethod
    def read_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
        """The options that `search_settings` wrote, by name.

        Raises:
            KeyError: one that always stands there is missing.
        """
        options = {
            name: settings[_key(name)]
            for name, option in options_of(SearchOptions).items()
            if option.always_stored or _key(name) in settings
        }
        return {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}


@dataclass(frozen=True, kw_only=True)
class RequestOptions(SearchOptions, StudyOptions):
    """All options, in the order in which they are shown."""


def options_of(owner: type = RequestOptions) -> dict[str, Option]:
    """The options that a class of this module declares, by field."""
    declared = {each.name: each.metadata.get("option") for each in dataclasses.fields(owner)}
    return {name: option for name, option in declared.items() if option is not None}


def _key(name: str) -> str:
    """``seeds_per_trial`` among a study's settings."""
    return name.replace("_", " ")
