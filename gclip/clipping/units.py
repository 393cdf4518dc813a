"""What a unit is: the part of a parameter that makes one output of its module.

For the scope ``unit`` a weight is divided by the outputs of its module, and each has a norm of its
own:

==========================================  ==================================================
module                                      unit
==========================================  ==================================================
Linear, Bilinear, Conv (grouped or not)     an output row or filter: an index of dimension 0
ConvTranspose ``(in, out/groups, …)``       an output filter: an index of dimension 1, with
                                            groups one of each group's
Embedding, EmbeddingBag                     a row: the vector of one entry
RNN, LSTM, GRU and their cells              a row: what makes one gate of one hidden unit
MultiheadAttention                          a row of ``in_proj_weight`` (q, k, v one below the
                                            other), of ``q_proj_weight``, …
LayerNorm, RMSNorm of any shape             the whole parameter
all that has one dimension (bias, PReLU)    the whole parameter
anything else                               an index of dimension 0
==========================================  ==================================================

A parametrized weight (``parametrizations.weight.original``, ``original0``, ``original1``; the
older ``weight_orig``, ``weight_g``, ``weight_v``) has the units of the weight it makes. A module
of your own counts as one of its base class in ``torch.nn``, or has its units along dimension 0.

Classes are known where the clipper is given the module. Where it is not (``named_parameters()``,
an optimizer alone), dimension 0 is taken for all. ``unit_dims={"pattern": dim}`` says otherwise
for the parameters of that name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gclip.clipping.patterns import matches, refuse_unmatched
from gclip.errors import UsageError

UnitDims: TypeAlias = Mapping[str, int | None]
"""Name patterns to the dimension along which a parameter's units lie; None: it is one unit."""


class Axis(NamedTuple):
    """Where the units of a parameter lie.

    Attributes:
        dim: each index of this dimension is a unit; None where the whole parameter is one.
        groups: above 1, dimension 0 stands for so many groups of inputs, one after another, and
            the units are the indices of `dim` in each of them.
    """

    dim: int | None = 0
    groups: int = 1


WHOLE = Axis(None)


def rows(shape: Sequence[int], axis: Axis) -> Units:
    """The units of a tensor that is to be seen as a matrix, with a row for each."""
    return Units(shape, usual(shape) if axis.dim is None else axis)


def usual(shape: Sequence[int]) -> Axis:
    """The axis of a parameter of which nothing but the shape is known."""
    return Axis(0) if len(shape) > 1 else WHOLE


class Units:
    """The units of one parameter.

    Norms are reduced over, and factors broadcast against, a view of the tensor (`view`), which
    for all but grouped transposed convolutions is the tensor itself.

    Args:
        shape: the parameter's.

    Attributes:
        count: how many units there are. An empty parameter counts as one, of norm 0.
        reduced: the dimensions of the view that a norm is taken over, or None: all.
        slot: the shape of what is left after that; as many elements as there are units.
        column: the shape that broadcasts against the view.
    """

    def __init__(self, shape: Sequence[int], axis: Axis | None = None) -> None:
        axis = usual(shape) if axis is None else axis
        self.axis = axis
        self._lead: tuple[int, ...] = ()
        self._order = list(range(len(shape)))
        size = math.prod(shape)
        self.count: int
        self.column: tuple[int, ...]
        self.slot: tuple[int, ...] = ()
        self.reduced: tuple[int, ...] | None = None
        if axis.dim is None or not size:
            self.count, self._each, self.column = 1, size, (1,) * len(shape)
            return
        unit_axes, viewed = [axis.dim], list(shape)
        if axis.groups > 1:
            self._lead = (axis.groups, shape[0] // axis.groups)
            unit_axes, viewed = [0, axis.dim + 1], [*self._lead, *shape[1:]]
        self.slot = tuple(viewed[dim] for dim in unit_axes)
        self.count = math.prod(self.slot)
        self._each = size // self.count
        self.reduced = tuple(dim for dim in range(len(viewed)) if dim not in unit_axes)
        self.column = tuple(size if dim in unit_axes else 1 for dim, size in enumerate(viewed))
        self._order = [*unit_axes, *self.reduced]

    @property
    def plain(self) -> bool:
        """Whether the view is the tensor itself."""
        return not self._lead

    def view(self, tensor: Tensor, lead: int = 0) -> Tensor:
        """The tensor, sharing memory, as `reduced` and `column` want it; `lead` dimensions stand
        before the parameter's own."""
        if not self._lead:
            return tensor
        split: Any = tensor.unflatten
        return split(lead, self._lead)  # type: ignore[no-any-return]

    def labels(self, name: str) -> list[str]:
        """Each unit's name: ``weight[2]``, ``weight[:, 2]`` along dimension 1, …

        With groups, the group stands before: ``weight[1, :, 2]`` is that of output 2 of group 1,
        of the weight seen as ``(groups, in/groups, out/groups, …)``.
        """
        if self.count == 1:
            return [name]
        unit_axes = sorted(self._order[: len(self.slot)])
        labels = []
        for unit in range(self.count):
            index_of = dict(
                zip(unit_axes, divmod(unit, self.slot[-1])[-len(unit_axes) :], strict=True)
            )
            index = (str(index_of.get(dim, ":")) for dim in range(unit_axes[-1] + 1))
            labels.append(f"{name}[{', '.join(index)}]")
        return labels

    def matrix(self, tensor: Tensor, lead: int = 0) -> Tensor:
        """The tensor as ``(*lead, units, elements of one)``."""
        order = [*range(lead), *(dim + lead for dim in self._order)]
        rows = self.view(tensor, lead).permute(order)
        return rows.reshape(*tensor.shape[:lead], self.count, self._each)

    def from_matrix(self, matrix: Tensor, shape: Sequence[int], lead: int = 0) -> Tensor:
        """Back from `matrix` to a tensor of `shape`."""
        own = [*self._lead, *shape[lead + 1 :]] if self._lead else shape[lead:]
        rows = matrix.reshape((*shape[:lead], *(own[dim] for dim in self._order)))
        back = sorted(range(len(self._order)), key=self._order.__getitem__)
        return rows.permute([*range(lead), *(dim + lead for dim in back)]).reshape(shape)

    def column_of(self, count: int) -> tuple[int, ...]:
        """`column` where only `count` of the units are there."""
        return tuple(count if dim == self.axis.dim else 1 for dim in range(len(self.column)))

    def norm(
        self,
        tensor: Tensor,
        order: float,
        lead: int = 0,
        *,
        dtype: torch.dtype | None = None,
        count: int | None = None,
    ) -> Tensor:
        """Each unit's norm, ``(*lead, count)``; `count` where only so many are there.

        Args:
            tensor: of the parameter's shape, after `lead` more dimensions.
            order: p.
            lead: dimensions before it, of runs.
            dtype: to sum in.
            count: of units, where only so many are there.
        """
        view = self.view(tensor, lead)
        reduced = range(view.ndim - lead) if self.reduced is None else self.reduced
        dims = tuple(dim + lead for dim in reduced)
        shape = (*tensor.shape[:lead], self.count if count is None else count)
        if not tensor.numel():
            return tensor.new_zeros(shape, dtype=dtype)
        if not dims:  # a unit of one element; torch would reduce over all dimensions
            return view.abs().to(dtype).reshape(shape) if dtype else view.abs().reshape(shape)
        norm: Tensor = torch.linalg.vector_norm(view, order, dims, dtype=dtype)
        return norm.reshape(shape)


def axes(
    names: Sequence[str],
    params: Sequence[Tensor],
    module: object = None,
    unit_dims: UnitDims | None = None,
    *,
    given: Sequence[str] | None = None,
    grown: bool = False,
) -> list[Axis]:
    """Where the units of each parameter lie.

    Args:
        module: that the parameters are of, whose classes tell; without, dimension 0.
        unit_dims: what the user says, which goes before; the first pattern that matches decides.
        given, grown: as in `gclip.clipping.parameters.assign`.

    Raises:
        UsageError: a pattern that matches no parameter, or a dimension that one does not have.
    """
    known = of_module(module) if isinstance(module, nn.Module) else {}
    unit_axes = [known.get(id(param), usual(param.shape)) for param in params]
    both = list(zip(names, names if given is None else given, strict=True))
    for pattern, dim in reversed([*(unit_dims or {}).items()]):
        matching = [i for i, each in enumerate(both) if matches(each, pattern)]
        if not matching and not grown:
            refuse_unmatched(pattern, names, prefix="unit_dims: ")
        for i in matching:
            unit_axes[i] = _named(pattern, dim, names[i], params[i].shape)
    return unit_axes


def _named(pattern: str, dim: int | None, name: str, shape: torch.Size) -> Axis:
    if dim is None:
        return WHOLE
    if isinstance(dim, bool) or not isinstance(dim, int) or not -len(shape) <= dim < len(shape):
        choices = ", ".join(map(str, range(len(shape))))
        raise UsageError(
            f"unit_dims: {pattern!r} has units along dimension {dim!r}, but {name} has the shape "
            f"{tuple(shape)} (choices: {f'{choices}, or ' if choices else ''}None for one unit)"
        )
    return Axis(dim % len(shape))


def of_module(module: nn.Module) -> dict[int, Axis]:
    """The axes of a module's parameters that its classes tell, by the parameters' ``id``.

    A parameter that several modules share has the units of the first of them.
    """
    unit_axes: dict[int, Axis] = {}
    for owner in module.modules():
        for name, param in owner._parameters.items():
            _note(unit_axes, owner, name, param)
        parametrizations = owner._modules.get("parametrizations")
        if isinstance(parametrizations, nn.ModuleDict):
            for name, originals in parametrizations.items():
                for param in originals._parameters.values():
                    _note(unit_axes, owner, name, param)
    return unit_axes


def _note(unit_axes: dict[int, Axis], owner: nn.Module, name: str, param: Tensor | None) -> None:
    axis = None if param is None or is_lazy(param) else _axis(owner, name, param)
    if axis is not None:
        unit_axes.setdefault(id(param), axis)


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _axis(owner: nn.Module, name: str, param: Tensor) -> Axis | None:
    """The axis of a parameter that makes the `name` of its module; None: that of its shape."""
    if isinstance(owner, nn.LayerNorm | nn.RMSNorm):
        return WHOLE
    if not isinstance(owner, _TRANSPOSED) or param.ndim < 2 or not name.startswith("weight"):
        return None
    outputs, groups = owner.out_channels // owner.groups, owner.groups
    if param.shape[1] != outputs:  # the lengths that weight_norm keeps of each input
        return WHOLE
    return Axis(1, groups if param.shape[0] == owner.in_channels else 1)
