"""Which optimizer, in which of torch's implementations, and at which learning rate at each step?"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from gclip.errors import UsageError, choose, suggestion
from gclip.training.muon import MuonWithAdamW

# These follow from the run's other settings or from the device, and are not for the user to set.
_OURS = frozenset(
    ("params", "lr", "momentum", "weight_decay", "foreach", "fused", "differentiable", "capturable")
)


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """One optimizer: torch's class, its defaults here, and the devices where it has a fused form.

    `momentum` is None where the optimizer has no such argument.
    """

    make: Callable[..., Optimizer]
    lr: float
    momentum: float | None = None
    fused: frozenset[str]

    def settings(self) -> tuple[str, ...]:
        """The names of the further arguments that `optimizer_settings` may carry."""
        return _further(self.make)


@functools.cache
def _further(make: Callable[..., Optimizer]) -> tuple[str, ...]:
    return tuple(n for n in inspect.signature(make).parameters if n not in _OURS)


# Measured per step on LeNet's gradients: the fused forms are the fastest wherever torch has them
# (CPU: Adam 98-163 µs, multi-tensor 285-484, one by one 305-346), then multi-tensor (RMSprop:
# 187 against 220).
_SPECS: dict[str, OptimizerSpec] = {
    "sgd": OptimizerSpec(
        make=torch.optim.SGD, lr=0.15, momentum=0.9, fused=frozenset(("cpu", "cuda", "mps"))
    ),
    "adam": OptimizerSpec(make=torch.optim.Adam, lr=1e-3, fused=frozenset(("cpu", "cuda", "mps"))),
    "adamw": OptimizerSpec(
        make=torch.optim.AdamW, lr=1e-3, fused=frozenset(("cpu", "cuda", "mps"))
    ),
    "rmsprop": OptimizerSpec(make=torch.optim.RMSprop, lr=1e-3, momentum=0.0, fused=frozenset()),
    "adagrad": OptimizerSpec(make=torch.optim.Adagrad, lr=1e-2, fused=frozenset(("cpu",))),
    # The form is that of AdamW, which steps what Muon does not.
    "muon": OptimizerSpec(
        make=MuonWithAdamW, lr=3e-3, momentum=0.95, fused=frozenset(("cpu", "cuda", "mps"))
    ),
}


def names() -> tuple[str, ...]:
    """The optimizers that `build` knows."""
    return tuple(_SPECS)


def spec(name: str) -> OptimizerSpec:
    """The facts about optimizer `name`.

    Raises:
        UsageError: an unknown one.
    """
    return _SPECS[choose(name, names(), "optimizer")]


def check_settings(name: str, settings: Mapping[str, object]) -> None:
    """Check that torch's optimizer `name` takes the settings.

    Raises:
        UsageError: an argument that it does not take.
    """
    known = spec(name).settings()
    for key in settings:
        if key not in known:
            raise UsageError(
                f"unknown setting {key!r} of optimizer {name}{suggestion(key, known)} "
                f"(choices: {', '.join(known)})"
            )


def build(
    name: str,
    parameters: Iterable[Parameter],
    *,
    lr: float,
    momentum: float | None = None,
    weight_decay: float = 0.0,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> Optimizer:
    """torch's optimizer `name` over `parameters`, in its fastest form for `device`.

    Args:
        name: as in `names`.
        parameters: that it steps.
        lr: its learning rate.
        momentum: None for the optimizer's own default, or where it has none.
        weight_decay: as torch's.
        settings: torch's further arguments, by name.
        device: of the parameters.

    Raises:
        UsageError: an unknown name or setting, or a setting that torch refuses.
    """
    facts = spec(name)
    arguments: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, **(settings or {})}
    check_settings(name, settings or {})
    if facts.momentum is not None:
        arguments["momentum"] = facts.momentum if momentum is None else momentum
    form = {"fused": True} if torch.device(device).type in facts.fused else {"foreach": True}
    # On a GPU the count of steps is kept there too: a step can be left out without a wait.
    on_device = torch.device(device).type == "cuda" and not form.get("fused")
    if on_device and "capturable" in inspect.signature(facts.make).parameters:
        form["capturable"] = True
    try:
        optimizer: Any = facts.make(list(parameters), **arguments, **form)
        # Else torch warns that it is not captured, which nobody means to do.
        optimizer.__dict__["_warned_capturable_if_run_uncaptured"] = True
        return cast(Optimizer, optimizer)
    except (ValueError, TypeError) as error:
        raise UsageError(f"optimizer {name} refuses its settings {arguments}: {error}") from error


Schedule = Callable[[float, int, int], float]


def _constant(lr: float, _step: int, _total: int) -> float:
    return lr


def _cosine(lr: float, step: int, total: int) -> float:
    return lr * (1 + math.cos(math.pi * step / total)) / 2


def _one_cycle(lr: float, step: int, total: int) -> float:
    # torch's OneCycleLR with its defaults: a rise from lr/25 over 30 % of the steps, then a fall to
    # lr/250,000, both along half a cosine. Momentum stays as it is.
    start, end = lr / 25, lr / 25e4
    top, last = 0.3 * total - 1, total - 1
    if step <= top:
        return _between(start, lr, step / top)
    return _between(lr, end, (step - top) / (last - top)) if last > top else lr


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


_SCHEDULES: dict[str, Schedule] = {
    "constant": _constant,
    "cosine": _cosine,
    "onecycle": _one_cycle,
}


def schedules() -> tuple[str, ...]:
    """The schedules that `learning_rates` knows."""
    return tuple(_SCHEDULES)


def learning_rates(schedule: str, lr: float, total: int) -> list[float]:
    """The learning rate of each of the run's `total` optimizer steps; `lr` is the highest."""
    rule = _SCHEDULES[choose(schedule, schedules(), "schedule")]
    return [rule(lr, step, total) for step in range(total)]
