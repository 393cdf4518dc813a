"""One problem's description: what is minimised, its fields, its metric, its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gclip.core.fields import fields_of, rule_of
from gclip.describe.documented import Documented
from gclip.describe.parameters import Parameter
from gclip.training.config import RunConfig
from gclip.training.metric import Metric
from gclip.training.problem import Problem
from gclip.training.problem_registry import PROBLEMS
from gclip.training.recipes import task_defaults

DEFAULTS = ("model", "optimizer", "lr", "batch_size", "epochs")
"""What of a run's settings is shown."""


@dataclass(frozen=True)
class ProblemDescription(Documented):
    """What there is to say about a registered problem."""

    cls: type[Problem]

    @property
    def name(self) -> str:
        """What it is registered under."""
        return self.cls.name

    @property
    def metric(self) -> Metric:
        """What a trained model is measured by; its worst value may depend on the data."""
        return self.cls.metric

    @property
    def direction(self) -> str:
        """``accuracy, higher is better``."""
        return f"{self.metric.name}, {self.metric.better} is better"

    @cached_property
    def defaults(self) -> RunConfig:
        """The settings that its runs start from."""
        return task_defaults(str(self.cls()))

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its fields."""
        infos = fields_of(self.cls)
        return tuple(Parameter(i, rule_of(self.cls, i.name), False, i.choices) for i in infos)

    @property
    def settings(self) -> str:
        """The defaults in words: ``lenet, sgd lr 0.15, batch 32, 5 epochs``."""
        run = self.defaults
        net = [run.model] if run.model else []
        return ", ".join(
            [*net, f"{run.optimizer} lr {run.lr:g}", f"batch {run.batch_size}",
             f"{run.epochs} epochs"]
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "name": self.name,
            "summary": self.summary,
            "fields": [parameter.as_dict() for parameter in self.parameters],
            "metric": self.metric.to_dict(),
            "defaults": {name: getattr(self.defaults, name) for name in DEFAULTS},
            "own_models": self.cls.own_models,
            "updates": dict(self.cls.updates),
            "paper": self.cls.paper,
        }


def describe_problem(name: str) -> ProblemDescription:
    """What there is to say about the problem `name`.

    Raises:
        UsageError: there is none, with a suggestion.
    """
    return ProblemDescription(PROBLEMS.get(name))
