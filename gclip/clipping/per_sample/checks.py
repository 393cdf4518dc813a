"""What must hold before single examples have gradients, and sentences about what fails."""

from __future__ import annotations

import functools
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from gclip.clipping.dtensor import is_sharded
from gclip.errors import UsageError

Loss = Callable[[Tensor, Tensor], Tensor]


def chunks(inputs: Tensor, targets: Tensor, chunk: int | None) -> Iterator[slice]:
    """Where each of the chunks begins and ends.

    Raises:
        UsageError: no tensors, no examples, not as many targets as inputs, a bad `chunk`.
    """
    for what, value in (("inputs", inputs), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise UsageError(
                f"single examples are taken from tensors (examples, …), but the {what} are of "
                f"type {type(value).__name__}"
            )
        if not value.ndim:
            raise UsageError(f"the {what} must be (examples, …), but have no dimension")
    count = len(inputs)
    if not count:
        raise UsageError("there are no examples in this batch")
    if len(targets) != count:
        raise UsageError(f"there are {count} inputs, but {len(targets)} targets")
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise UsageError(f"chunk must be a whole number ≥ 1, but got {chunk!r}")
    size = chunk or count
    return (slice(start, start + size) for start in range(0, count, size))


def per_sample_model(strategy: str, model: object, params: Sequence[Tensor]) -> nn.Module:
    """The model whose examples' gradients can be had; `UsageError` where they cannot.

    Args:
        strategy: its spelling, for the sentences.
        model: what was given for one.
        params: the parameters to be clipped.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{strategy} clips single examples and needs the model itself: gclip.Clipper(model, …)"
        )
    known = set(map(id, model.parameters()))
    if any(id(param) not in known for param in params):
        raise UsageError(
            f"{strategy} clips single examples of a model, but not all parameters given "
            "are that model's: pass the model itself, or parameters of it with model=model"
        )
    if any(map(is_sharded, model.parameters())):
        raise UsageError(
            f"{strategy} clips single examples, whose gradients cannot be had from "
            "parameters spread over processes (DTensor)"
        )
    for name, module in model.named_modules():
        if isinstance(module, DataParallel | DistributedDataParallel):
            raise UsageError(
                f"{strategy} clips single examples, whose gradients "
                f"{name or 'the model'} ({type(module).__name__}) does not average between "
                "processes: pass the module inside (model.module), and average .grad yourself "
                "before clipper.step()"
            )
    return model


def check_model(model: nn.Module) -> None:
    """`UsageError` where examples have no gradients of their own, or parameters no shape."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            how = "in training mode" if module.training else "without running statistics"
            raise UsageError(
                f"{name or 'the model'} is a batch norm {how}, so single examples have "
                "no gradients of their own; use group norm or layer norm, or a model without "
                "normalisation (lenet)"
            )
    for name, param in model.named_parameters():
        if is_lazy(param):
            raise UsageError(
                f"{name} of a lazy module has no shape yet: pass one batch through the model "
                "before its examples' gradients are computed"
            )


def check_loss(loss: Loss, targets: Tensor) -> None:
    """Class weights divide the sum by the sum of the weights: of one example, they cancel."""
    weight = reduction = None
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        weight, reduction = loss.weight, loss.reduction
    elif isinstance(loss, functools.partial) and loss.func in (F.cross_entropy, F.nll_loss):
        weight, reduction = loss.keywords.get("weight"), loss.keywords.get("reduction", "mean")
    if weight is not None and reduction == "mean" and targets.ndim == 1:
        raise UsageError(
            "class weights cancel in the mean over a batch of one, so they would do nothing for "
            "single examples: use reduction='sum', which weighs each example"
        )


def where(model: nn.Module, error: BaseException) -> str:
    """The innermost module of the model that was at work when the error was raised."""
    names = {id(module): name for name, module in model.named_modules()}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        owner = frame.f_locals.get("self")
        if id(owner) in names:
            name = names[id(owner)]
            return (
                f"{name} ({type(owner).__name__})" if name else f"the model {_module_types(model)}"
            )
    return f"the model {_module_types(model)}"


def _module_types(model: nn.Module) -> str:
    names = list(dict.fromkeys(type(module).__name__ for module in model.modules()))
    return f"({', '.join(names[:8])}{', …' if len(names) > 8 else ''})"


def first_line(error: BaseException) -> str:
    """What an error says, in short."""
    text = str(error).strip() or type(error).__name__
    return textwrap.shorten(text.splitlines()[0], 150, placeholder=" …").rstrip(".")


def one_number(value: Tensor) -> Tensor:
    """The loss of one example as a scalar; `UsageError` where it is more than one number."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(
            f"the loss of one example must be one number, but loss(model(x), y) gives {shape}: "
            "take its mean or its sum"
        )
    return value.reshape(())
