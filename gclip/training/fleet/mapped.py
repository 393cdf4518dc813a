"""Many models as one by `torch.func`: any model's own forward pass, mapped over stacked weights.

For models whose layers are not known to `gclip.training.fleet.stacked_modules`, or whose forward
pass is not the library's, so that nobody knows which dimension it takes for the channels.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from gclip.clipping.per_sample.checks import first_line
from gclip.errors import UsageError

_CLOSE = 1e-6  # of the largest number, in float64: what another order of sums may make


class MappedModel(nn.Module):
    """A model that is many: its parameters and buffers are the models', by the same names, with a
    leading dimension of runs.

    Args:
        models: of one architecture, on one device.
        inputs: the shape of one example.
    """

    def __init__(self, models: Sequence[nn.Module], inputs: tuple[int, ...]) -> None:
        super().__init__()
        self.runs, self._first = len(models), inputs[0]
        self._template = [copy.deepcopy(models[0]).to("meta")]  # in a list: no module of this one
        tree = copy.deepcopy(models[0])
        _put_stacks(tree, models)
        self._parameters, self._buffers = tree._parameters, tree._buffers
        self._modules = tree._modules
        self.train(models[0].training)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, ``(runs, batch, outputs)``, of examples ``(batch, *inputs)`` for all runs,
        or of ``(batch, runs · inputs[0], …)``, those of a run side by side."""
        [template] = self._template
        template.train(self.training)
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        shared = x.shape[1] == self._first
        own = x if shared else x.unflatten(1, (self.runs, -1))
        with warnings.catch_warnings():
            # Where torch maps an operation by calling it once a run, it says that this is slow.
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            found: Tensor = vmap(_call(template), in_dims=(0, None if shared else 1))(state, own)
        return found


def unmappable(model: nn.Module, inputs: tuple[int, ...]) -> str:
    """Why a model cannot be mapped over stacked weights, in a sentence; empty where it can be.

    It is tried on two runs of other weights, in float64: forward, backward and its buffers.
    """
    kind = type(model).__name__
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return (
            f"{kind} holds a recurrent layer of torch's, whose program takes the weights of one "
            "run, so such runs train one after another"
        )
    generator = torch.Generator().manual_seed(0)
    one = copy.deepcopy(model).cpu().double()
    other = copy.deepcopy(one)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.mul_(1 + 0.1 * noise).add_(0.01 * noise)
    example = torch.randn(2, *inputs, generator=generator, dtype=torch.float64)
    try:
        together = MappedModel([one, other], inputs)
        found = together(example)
        found.square().sum().backward()
    except Exception as error:  # whatever a plugin's module raises when it is mapped
        return (
            f"{kind} cannot be mapped over the weights of many runs ({first_line(error)}), so such "
            "runs train one after another"
        )
    for run, single in enumerate((one, other)):
        expected = single(example)
        expected.square().sum().backward()
        if not _equal(together, run, found[run], single, expected):
            return (
                f"{kind} gives other numbers when it is mapped over the weights of many runs, so "
                "such runs train one after another"
            )
    return ""


def _call(template: nn.Module) -> Any:
    return lambda state, x: functional_call(template, state, (x,))


def _put_stacks(tree: nn.Module, models: Sequence[nn.Module]) -> None:
    """Replace each parameter and buffer of `tree` by those of all models, stacked."""
    for path, module in tree.named_modules():
        own = [model.get_submodule(path) for model in models]
        with torch.no_grad():
            for name, parameter in list(module.named_parameters(recurse=False)):
                stacked = torch.stack([getattr(each, name).detach() for each in own])
                setattr(module, name, nn.Parameter(stacked, parameter.requires_grad))
            for name, _ in list(module.named_buffers(recurse=False)):
                setattr(module, name, torch.stack([getattr(each, name) for each in own]))


def _equal(
    together: MappedModel, run: int, found: Tensor, single: nn.Module, expected: Tensor
) -> bool:
    pairs = [(found, expected)]
    stacks = dict(together.named_parameters())
    for name, parameter in single.named_parameters():
        grad = stacks[name].grad
        if grad is None and parameter.grad is None:
            continue
        if grad is None or parameter.grad is None:
            return False
        pairs.append((grad[run], parameter.grad))
    buffers = dict(together.named_buffers())
    pairs += [(buffers[name][run], buffer) for name, buffer in single.named_buffers()]
    return all(
        mine.shape == theirs.shape
        and bool(((mine - theirs).abs() <= _CLOSE * (1 + theirs.abs().max())).all())
        for mine, theirs in pairs
        if theirs.numel()
    )


def check_ties(model: nn.Module) -> None:
    """Check that no two layers share weights.

    Raises:
        UsageError: they do; a stack of each would train apart.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    again = set(names) - {name for name, _ in model.named_parameters()}
    if again:
        raise UsageError(
            f"{type(model).__name__} shares the weights {min(again)} between layers, which cannot "
            "be stacked, so such runs train one after another"
        )
