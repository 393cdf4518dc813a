"""What a problem is: it says what is to be minimised, and the trainer does the rest.

The trainer minimises it, clips, records, resumes and stores. One file, one class::

    @gclip.register_problem("adding")
    @dataclass(frozen=True, kw_only=True)
    class Adding(gclip.Problem):
        length: int = gclip.setting(100, at_least=2)
        metric = gclip.Metric("mean squared error", better="lower", worst=1 / 6)
        defaults = {"optimizer": "adam", "lr": 1e-3, "batch_size": 32, "epochs": 5}

        def players(self, config): ...          # {"model": Module}; a GAN has two
        def batches(self, state, epoch): ...    # an iterable
        def losses(self, players, batch): ...   # yields (player, loss): backward, clip, step
        def evaluate(self, players, state, split): ...  # {"mean squared error": …}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from gclip.core.fields import check
from gclip.core.spelling import spell
from gclip.errors import UsageError
from gclip.training.metric import Metric

if TYPE_CHECKING:
    from gclip.training.config import RunConfig
    from gclip.training.dataset import Dataset
    from gclip.training.run_state import RunState

Losses = Iterable[tuple[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a problem's data may come from.

    Attributes:
        folder: what ``--data`` names; None without it.
        download: whether data may be brought from the network.
    """

    folder: Path | None = None
    download: bool = True


@dataclass(frozen=True, kw_only=True)
class Problem(ABC):
    """Base class of all problems: subclass it and decorate with ``@register_problem(name)``.

    Its fields (`gclip.setting`) are spelled with its name, ``--task "adding(length=200)"``, and are
    part of a run's identity, as its code is. Everything random is drawn from
    ``state.generator(role)`` or, in a model's forward pass, from torch's own generator, which the
    trainer seeds; never from NumPy's or Python's global state. So two runs with one seed see the
    same whatever their strategies do, and comparisons are paired.

    Attributes:
        metric: what a trained model is measured by, with its direction and its worst value, which
            a diverged run scores. `evaluate` returns it under its name.
        defaults: fields of `gclip.training.RunConfig` that a run of it starts from.
        updates: how often at most a batch steps a player, where that is not once:
            ``{"critic": 5}``.
        own_models: True where `players` builds its own networks, so that ``--model`` makes no
            sense; False where it builds ``config.model``.
        small: fields of the problem, and of `gclip.training.RunConfig`, by which a run of it takes
            a fraction of a second: ``{"epochs": 2, "length": 10}``. The contract's runs have them.
        paper: where it comes from, for `gclip show`; no part of a run's identity.
        excused: promises of the contract (`gclip check`) that it cannot keep, and why.
    """

    name: ClassVar[str] = ""
    metric: ClassVar[Metric]
    defaults: ClassVar[Mapping[str, Any]] = {}
    updates: ClassVar[Mapping[str, int]] = {}
    own_models: ClassVar[bool] = True
    small: ClassVar[Mapping[str, Any]] = {}
    paper: ClassVar[str] = ""
    excused: ClassVar[Mapping[str, str]] = {}
    answers_for_itself: ClassVar[bool] = False
    """True for the tasks whose code is the trainer's own: it tells its changes by versions of its
    rules (`selection`, `stepping`), so no digest of the code is part of a run's identity."""

    def __post_init__(self) -> None:
        """Validate every field; `UsageError` names the value, the rule and the choices."""
        owner = self.name or type(self).__name__
        for field in fields(self):
            value = check(owner, type(self), field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self.validate()

    def validate(self) -> None:  # noqa: B027 - most have nothing to check
        """Override to check what fields must be to one another; raise `UsageError`."""

    def __str__(self) -> str:
        """Its spelling: the name and every field not at default."""
        return spell(self.name, self)

    # -- what a problem says ------------------------------------------------------------------

    def data(self, source: Source) -> Any:
        """What all runs share, made once a process: tensors, text, nothing (the default).

        Tensors (and lists, tuples and dicts of them) are moved to the run's device. It depends on
        the fields and `source` alone, not on a seed.
        """
        return None

    def identity(self, data: Any) -> str:
        """Which data that is, where the task's name does not say it: up to 16 digits of a digest,
        which become ``RunConfig.data``."""
        return ""

    @abstractmethod
    def players(self, config: RunConfig) -> Mapping[str, nn.Module] | nn.Module:
        """The networks that are trained, by name; a single one is the player ``model``.

        Called once a run, with torch's generator seeded for the weights. Each player gets its own
        optimizer and clipper.
        """

    def setup(self, state: RunState) -> None:  # noqa: B027 - most need none
        """Make what the run needs besides: put into ``state.keep`` what changes while it trains
        (a replay buffer, an environment, a target network), so that checkpoints keep it."""

    def batches_per_epoch(self, state: RunState) -> int | None:
        """How many batches `batches` gives, the same in every epoch; None where nobody knows.

        Schedules of learning rates and thresholds need it.
        """
        return None

    @abstractmethod
    def batches(self, state: RunState, epoch: int) -> Iterable[Any]:
        """The batches of one epoch, on ``state.device``; `epoch` counts from 0."""

    @abstractmethod
    def losses(self, players: Mapping[str, nn.Module], batch: Any) -> Losses:
        """Yield ``(player, loss)``: each is followed by backward, clip and step of that player.

        `loss` is a scalar tensor. What is computed after a ``yield`` sees the player's new weights.
        A batch may yield nothing.
        """

    @abstractmethod
    def evaluate(
        self, players: Mapping[str, nn.Module], state: RunState, split: str
    ) -> Mapping[str, float]:
        """What the players are worth on `split`, ``test`` or ``validation``: the metric's value
        under its name, and whatever else is worth keeping (``loss``).

        Called at every epoch's end without gradients, the players in evaluation mode.
        """

    def as_dataset(self, value: Any) -> Dataset | None:
        """What `data` gave as a data set, where the problem learns from one."""
        return None

    # -- what the trainer asks ------------------------------------------------------------------

    def metric_of(self, data: Any) -> Metric:
        """The metric, once the data is known."""
        return self.metric

    def build_players(self, state: RunState) -> Mapping[str, nn.Module] | nn.Module:
        """The networks of a run; `players` where only the config is asked."""
        return self.players(state.config)

    def check_config(self, config: RunConfig) -> None:
        """Refuse settings that make no sense here.

        Raises:
            UsageError: naming the setting and what has it.
        """
        for name, neutral in _OF_SUPERVISED.items():
            value = getattr(config, name)
            if value != neutral:
                raise UsageError(
                    f"{name}={value} makes no sense for task {self.name}, which brings its own "
                    f"batches; it belongs to tasks of a data set and a loss (gclip.Supervised)"
                )

    def steps_per_batch(self, players: Iterable[str]) -> dict[str, int]:
        """How often at most each player is stepped in a batch."""
        return {name: int(self.updates.get(name, 1)) for name in players}


_OF_SUPERVISED: dict[str, Any] = {
    "fraction": 1.0,
    "augment": False,
    "accumulate": 1,
    "label_noise": 0.0,
}


def losses_of(problem: Problem, players: Mapping[str, nn.Module], batch: Any) -> Iterator[Any]:
    """An iterator over what `losses` gives.

    Raises:
        UsageError: it gives nothing that can be iterated over.
    """
    found: Any = problem.losses(players, batch)
    if isinstance(found, Tensor) or not isinstance(found, Iterable):
        raise UsageError(
            f"must yield pairs of a player's name and its loss, as in 'yield \"model\", loss', but "
            f"returned {type(found).__name__}"
        )
    return iter(found)
