"""One model that is many: a copy of it whose layers hold the weights of all runs, stacked.

Models made of layers that are known here go through their own forward pass, with the channels of
all runs side by side (see `gclip.training.fleet.stacked_modules`). That is right only of a forward
pass that was written for it, so it is done for torch's and the library's modules; all others are
mapped over the runs by torch (see `gclip.training.fleet.mapped`), where that gives the same.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gclip.core.digest import ships_with_gclip
from gclip.errors import UsageError
from gclip.training.fleet.mapped import MappedModel, check_ties, unmappable
from gclip.training.fleet.stacked_modules import RUN_INDEPENDENT, STACKED


def stack(models: Sequence[nn.Module], inputs: tuple[int, ...] = (3, 32, 32)) -> nn.Module:
    """A module whose parameters and buffers have the names of the models' and a leading dimension
    of runs; its `forward` is theirs.

    Given examples ``(batch, *inputs)`` for all runs, or ``(batch, runs · inputs[0], …)``, those of
    a run side by side, it returns outputs ``(runs, batch, outputs)``.

    Args:
        models: of one architecture, on one device.
        inputs: the shape of one example, ``(channels, height, width)`` of an image.

    Raises:
        UsageError: a model that can be neither stacked nor mapped.
    """
    first = models[0]
    check_ties(first)
    if unsupported_layer(first):
        reason = unmappable(first, inputs)
        if reason:
            raise UsageError(reason)
        return MappedModel(models, inputs)
    stacked = copy.deepcopy(first)
    _replace(stacked, len(models), type(first).__name__)
    states = [dict(_state(model)) for model in models]
    with torch.no_grad():
        for name, value in _state(stacked):
            value.copy_(torch.stack([state[name] for state in states]))
    return stacked.train(first.training)


def unstack(stacked: nn.Module, run: int) -> dict[str, Tensor]:
    """The parameters and buffers of one run, by name: views of the stack."""
    return {name: value[run] for name, value in _state(stacked)}


def select_runs(stacked: nn.Module, indices: Sequence[int]) -> None:
    """Go on with only these runs. All parameters are new ones, with the old names."""
    index = torch.tensor(indices, device=next(stacked.parameters()).device)
    for module in stacked.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, _chosen(parameter, index))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer[index].clone())
        if hasattr(module, "runs"):
            setattr(module, "runs", len(indices))  # noqa: B010 - a plain number, not a module


def _chosen(parameter: nn.Parameter, index: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[index].clone(), parameter.requires_grad)


def unsupported_model(model: nn.Module, inputs: tuple[int, ...] = (3, 32, 32)) -> str:
    """Why models like this one cannot be one, in a sentence; empty where they can be."""
    try:
        check_ties(model)
    except UsageError as error:
        return str(error)
    return unmappable(model, inputs) if unsupported_layer(model) else ""


def unsupported_layer(model: nn.Module) -> str:
    """Why a model's layers cannot be stacked, in a sentence naming one; empty where they can be."""
    try:
        _replace(copy.deepcopy(model), 1, type(model).__name__)
    except UsageError as error:
        return str(error)
    return ""


def _state(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and floating-point buffers. A batch norm's count of batches is used by nobody."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(name, value) for name, value in named if value.is_floating_point()]


def _replace(parent: nn.Module, runs: int, path: str) -> None:
    own = [name for name, _ in parent.named_parameters(recurse=False)]
    kind = type(parent)
    if not ships_with_gclip(kind) and not kind.__module__.startswith("torch."):
        raise UsageError(
            f"{path} ({kind.__name__}) cannot be stacked: its forward pass is not the library's"
        )
    if own:
        raise UsageError(
            f"{path} ({type(parent).__name__}) cannot be stacked: it has weights of its own"
        )
    for name, child in list(parent.named_children()):
        stacked_type = STACKED.get(type(child))
        if stacked_type is not None:
            setattr(parent, name, cast(nn.Module, stacked_type(child, runs)))
        elif not isinstance(child, RUN_INDEPENDENT):
            if not list(child.children()):
                raise UsageError(
                    f"{path}.{name} ({type(child).__name__}) cannot be stacked; known layers: "
                    f"{', '.join(each.__name__ for each in (*STACKED, *RUN_INDEPENDENT))}"
                )
            _replace(child, runs, f"{path}.{name}")
