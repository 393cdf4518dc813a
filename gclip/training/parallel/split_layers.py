"""Layers that look at a whole batch, made to do so where each process has some of its rows.

Batch norm takes mean and variance over all rows, as ``torch.nn.SyncBatchNorm`` does on GPUs; here
on any device, and where a process has no row at all. Dropout draws one mask for the batch, as one
process would, of which each process uses its rows.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from gclip.errors import UsageError
from gclip.training.parallel.batch_share import BatchShare
from gclip.training.parallel.world import World


def split_layers(model: nn.Module, world: World, share: BatchShare) -> bool:
    """Give the layers of `model` that look at a whole batch their split kind, in place.

    A layer stays an instance of its class, under its name, with its parameters.

    Args:
        model: that each process has.
        world: the processes.
        share: this one's rows of the batch at hand.

    Returns:
        Whether there are any, so that a process without rows must take part, too.

    Raises:
        UsageError: a layer draws random numbers in a way that cannot be split.
    """
    found = False
    for name, module in model.named_modules():
        kind = _KINDS.get(type(module))
        if kind is not None:
            module.__class__ = kind  # as fully_shard does: names, hooks and tensors stay
            cast(Any, module).world, cast(Any, module).share = world, share
            found = True
        elif _draws_inside(module):
            raise UsageError(
                f"{name or 'the model'} ({type(module).__name__}) draws its dropout inside, where "
                "processes that have different rows cannot draw as one; train it in one process, "
                "or without dropout"
            )
    return found


class _SplitBatchNorm(_BatchNorm):
    world: World
    share: BatchShare

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.share.is_whole:
            return super().forward(input)
        rows = self.share.total if len(input) == self.share.count else len(input)
        if rows * math.prod(input.shape[2:]) == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got {input.shape}"
            )
        output, mean, var, count = cast(
            "tuple[Tensor, Tensor, Tensor, Tensor]",
            _Normalize.apply(input, self.weight, self.bias, self.eps, self.world),
        )
        if self.running_mean is not None and self.running_var is not None:
            self._follow(mean, var * (count / (count - 1)))
        return output

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Let the running statistics go on."""
        weight = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if weight is None:
                weight = 1.0 / float(self.num_batches_tracked)
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            cast(Tensor, running).lerp_(new.to(cast(Tensor, running)), weight or 0.0)


class _Normalize(torch.autograd.Function):
    """Batch norm over the rows of all processes, by torch's formulas for a CPU: sums in float64."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float,
        world: World,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        values = input.float() if input.dtype in _HALF else input
        dims, shape = _layout(input)
        each = values.new_tensor([input.numel() / input.shape[1]], dtype=torch.float64)
        sums = torch.cat([values.sum(dims, dtype=torch.float64), each])
        world.add_up(sums)
        count = sums[-1]
        mean = sums[:-1] / count
        rounded = mean.to(values.dtype)
        squares = (values - rounded.view(shape)).square().sum(dims, dtype=torch.float64)
        world.add_up(squares)
        var = squares / count - (mean - rounded.double()).square()
        scale = torch.rsqrt(var + eps).to(values.dtype)
        factor = scale if weight is None else scale * weight
        shift = -rounded * factor if bias is None else bias - rounded * factor
        ctx.save_for_backward(values, weight, rounded, scale, count)
        ctx.world, ctx.has_bias, ctx.dtype = world, bias is not None, input.dtype
        ctx.mark_non_differentiable(mean, var, count)
        output = values * factor.view(shape) + shift.view(shape)
        return output.to(input.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, scale, count = ctx.saved_tensors
        dims, shape = _layout(values)
        grad = outer[0].to(values.dtype)
        centered = values - mean.view(shape)
        along = (grad * centered).sum(dims, dtype=torch.float64)
        own = torch.stack([grad.sum(dims, dtype=torch.float64), along])
        sums = own.clone()
        ctx.world.add_up(sums)
        level = (sums[0] / count).to(values.dtype)
        slope = (sums[1] / count * scale.double().square()).to(values.dtype)
        factor = scale if weight is None else scale * weight
        to_input = grad - level.view(shape) - centered * slope.view(shape)
        to_input = to_input * factor.view(shape)
        to_weight = None if weight is None else (own[1] * scale).to(weight.dtype)
        to_bias = own[0].to(values.dtype) if ctx.has_bias else None
        return to_input.to(ctx.dtype), to_weight, to_bias, None, None


def _layout(values: Tensor) -> tuple[list[int], list[int]]:
    """Which dimensions a channel's statistics are over, and the shape of a number a channel."""
    return [0, *range(2, values.ndim)], [1, -1, *[1] * (values.ndim - 2)]


class _SplitDropout(_DropoutNd):
    share: BatchShare

    def forward(self, input: Tensor) -> Tensor:
        share = self.share
        if not self.training or not self.p or share.is_whole:
            return cast(Tensor, super().forward(input))
        if len(input) != share.count:
            raise UsageError(
                f"a {type(self).__mro__[2].__name__} of the model sees {len(input)} rows, but this "
                f"process has {share.count} examples of the batch: its dropout cannot be split "
                "over processes unless a tensor's first dimension is the examples"
            )
        with torch.no_grad():
            ones = input.new_ones((share.total, *input.shape[1:]))
            if input.ndim == 4 and not input.is_contiguous():
                ones = ones.contiguous(memory_format=torch.channels_last)
            mask = cast(
                Tensor, super().forward(ones)
            )  # 0 where it drops, else what is kept is multiplied by
        return input * mask[share.start : share.stop]


def _split(kind: type[nn.Module], mixin: type[nn.Module]) -> type[nn.Module]:
    return type(f"Split{kind.__name__}", (mixin, kind), {})


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    **{kind: _split(kind, _SplitBatchNorm)
       for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)},
    **{kind: _split(kind, _SplitDropout)
       for kind in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)},
}  # fmt: skip
_HALF = (torch.float16, torch.bfloat16)


def _draws_inside(module: nn.Module) -> bool:
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return bool(module.dropout)
    return isinstance(module, nn.AlphaDropout | nn.FeatureAlphaDropout) and bool(module.p)
