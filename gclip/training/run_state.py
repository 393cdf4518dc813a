"""What a problem may hold while a run trains, and how a checkpoint keeps it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gclip.errors import UsageError
from gclip.training import seeds
from gclip.training.problem_data import moved

if TYPE_CHECKING:
    from gclip.training.config import RunConfig


class RunState:
    """One run of a problem.

    Args:
        config: of the run.
        data: what `Problem.data` gave.
        device: where it trains.

    Attributes:
        config: of the run.
        data: what `Problem.data` gave, its tensors on `device`.
        device: where batches and networks are.
        players: the networks by name; empty until they are built.
        keep: what changes while the run trains and checkpoints must keep: numbers, text, tensors,
            lists and dicts of them, random generators, and objects with ``state_dict`` and
            ``load_state_dict`` (networks, buffers, environments of your own).
        cache: what `setup` made and no checkpoint need keep.
    """

    def __init__(self, config: RunConfig, data: Any, device: torch.device) -> None:
        self.config, self.device = config, device
        self.data = moved(data, device)
        self.players: dict[str, nn.Module] = {}
        self.keep: dict[str, Any] = {}
        self.cache: dict[str, Any] = {}
        self._generators: dict[str, torch.Generator] = {}

    def generator(self, role: str) -> torch.Generator:
        """The run's random generator for `role` (a name of your own), on the CPU.

        The same seed gives the same draws, whatever other roles draw; checkpoints keep its state.
        """
        if role not in self._generators:
            seed = seeds.derive(self.config.seed, f"problem/{role}")
            self._generators[role] = torch.Generator().manual_seed(seed)
        return self._generators[role]

    def trainer_generator(self, role: seeds.Role) -> torch.Generator:
        """The generator that the fast path has for `role`, so that both paths draw the same."""
        name = f"trainer/{role}"
        if name not in self._generators:
            self._generators[name] = seeds.generator(self.config.seed, role)
        return self._generators[name]

    def seed(self, role: str) -> int:
        """A seed for `role`, for what wants a number: an environment, say. Below 2³¹."""
        return seeds.derive(self.config.seed, f"problem/{role}") % 2**31

    def state_dict(self) -> dict[str, Any]:
        """The generators' states, and `keep`.

        Raises:
            UsageError: `keep` holds what no checkpoint can.
        """
        return {
            "generators": {role: each.get_state() for role, each in self._generators.items()},
            "keep": {name: _saved(name, value) for name, value in self.keep.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        for role, saved in state["generators"].items():
            self.generator(role).set_state(saved)
        for name, saved in state["keep"].items():
            self.keep[name] = _loaded(self.keep.get(name), saved, self.device)


def _saved(name: str, value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if callable(getattr(value, "state_dict", None)) and callable(
        getattr(value, "load_state_dict", None)
    ):
        return _plain(name, copy.deepcopy(value.state_dict()))
    return _plain(name, copy.deepcopy(value))


def _plain(name: str, value: Any) -> Any:
    """`value`, which must load again without running any code."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, Tensor)):
        return value
    if isinstance(value, Mapping):
        return {_plain(name, key): _plain(name, each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(name, each) for each in value)
    raise UsageError(
        f"state.keep[{name!r}] holds {type(value).__name__}, which a checkpoint cannot keep; put "
        "numbers, text, tensors, lists and dicts of them, torch generators, or objects with "
        "state_dict and load_state_dict there"
    )


def _loaded(now: Any, saved: Any, device: torch.device) -> Any:
    if isinstance(now, torch.Generator):
        now.set_state(saved)
        return now
    if callable(getattr(now, "load_state_dict", None)):
        now.load_state_dict(saved)
        return now
    return moved(saved, device)
