"""Where a clipper's parameters come from, and whether they are still the ones it took.

A model may get a new head, be sharded, or grow; an optimizer may be given more parameters. A
clipper that went on with those it was made with would leave the new ones unclipped, and measure a
norm without them, so it asks at every step whether anything has changed. The question is cheap
(identities of what the module or the optimizer holds); names are read again only when it has.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from gclip.clipping.dtensor import is_sharded
from gclip.clipping.parameters import Named, Parameters, collect
from gclip.errors import UsageError


class ParameterSource(ABC):
    """Something that has parameters, which may become others."""

    @property
    def hint(self) -> str:
        """What else may be wrong where none of them has a gradient."""
        return ""

    @abstractmethod
    def read(self) -> Named:
        """The parameters that it has now.

        Raises:
            UsageError: there are none, or they cannot be clipped.
        """

    @abstractmethod
    def changed(self) -> bool:
        """Whether they may be others than `read` found the last time."""


class FixedSource(ParameterSource):
    """A list of parameters: nobody can tell whether they are still those of a model."""

    @property
    def hint(self) -> str:
        """What else may be wrong where none of them has a gradient."""
        return "; or the model has other parameters now: pass the model itself, which is followed"

    def __init__(self, parameters: Parameters) -> None:
        self._named = collect(parameters)

    def read(self) -> Named:
        """The parameters that it has now."""
        return self._named

    def changed(self) -> bool:
        """Whether they may be others than `read` found the last time."""
        return False


class ModuleSource(ParameterSource):
    """All the parameters of a module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._tables: list[dict[str, Any]] = []  # of children and of parameters
        self._empty: list[dict[str, Any]] = []
        self._entries: list[Any] = []

    @property
    def hint(self) -> str:
        """What else may be wrong where none of them has a gradient."""
        # Such modules show their full parameters, whose gradients are the shards'.
        if any(type(each).__name__.startswith("FSDP") for each in self.module.modules()):
            return "; of a model that fully_shard keeps whole, make the Clipper after fully_shard"
        return ""

    def read(self) -> Named:
        """The parameters that it has now."""
        named = collect(self.module)
        modules = list(self.module.modules())
        tables = [table for each in modules for table in (each._modules, each._parameters)]
        self._tables = [table for table in tables if table]
        self._empty = [table for table in tables if not table]
        self._entries = list(self._now())
        return named

    def changed(self) -> bool:
        """Whether they may be others than `read` found the last time."""
        if any(self._empty) or sum(map(len, self._tables)) != len(self._entries):
            return True
        return not all(map(operator.is_, self._now(), self._entries))

    def _now(self) -> chain[Any]:
        return chain.from_iterable(map(dict.values, self._tables))


class OptimizerSource(ParameterSource):
    """All the parameters of an optimizer's groups; `model` gives them their names.

    Without a model, names come from an optimizer made from ``named_parameters()``.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module | None) -> None:
        self._optimizer, self._model = optimizer, model
        self._ids: list[int] = []

    def read(self) -> Named:
        """The parameters that it has now."""
        self._ids = self._now()
        groups = self._optimizer.param_groups
        params: list[Tensor] = [p for group in groups for p in group["params"]]
        if self._model is not None:
            known = {id(p): name for name, p in self._model.named_parameters()}
            foreign = [i for i, p in enumerate(params) if id(p) not in known]
            if foreign:
                shown = ", ".join(str(tuple(params[i].shape)) for i in foreign[:3])
                raise UsageError(
                    "the optimizer holds parameters that are not the given model's "
                    f"({len(foreign)} of {len(params)}, of the shapes {shown})"
                )
            return collect([(known[id(p)], p) for p in params])
        if all("param_names" in group for group in groups):
            names = [name for group in groups for name in group["param_names"]]
            return collect(list(zip(names, params, strict=True)))
        return collect(params)

    def changed(self) -> bool:
        """Whether they may be others than `read` found the last time."""
        return self._now() != self._ids

    def _now(self) -> list[int]:
        return [id(p) for group in self._optimizer.param_groups for p in group["params"]]


def source_of(parameters: Parameters | ParameterSource) -> ParameterSource:
    """The source of what a `gclip.Clipper` is made with."""
    if isinstance(parameters, ParameterSource):
        return parameters
    if isinstance(parameters, nn.Module):
        return ModuleSource(parameters)
    return FixedSource(parameters)


def differing(old: Named, new: Named) -> list[str]:
    """The names of the parameters that are not the same ones in both.

    Empty too where a module only shows its full parameters for the moment: see
    `unsharded_for_now`.
    """
    if unsharded_for_now(old, new):
        return []
    before = dict(zip(old.names, old.params, strict=True))
    after = dict(zip(new.names, new.params, strict=True))
    return [name for name in {**before, **after} if before.get(name) is not after.get(name)]


def unsharded_for_now(old: Named, new: Named) -> bool:
    """Whether a module only shows its full parameters for the moment.

    ``fully_shard`` puts the full parameters into the module where they are kept after the backward
    pass; the gradients and the optimizer are those of the shards.
    """
    before = dict(zip(old.names, old.params, strict=True))
    return old.names == new.names and any(
        is_sharded(before[name]) and not is_sharded(param)
        for name, param in zip(new.names, new.params, strict=True)
    )
