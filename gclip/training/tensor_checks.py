"""Are tensors data that can be trained on? What is wrong is said in a sentence naming it.

The names in the four-entry mappings are the caller's: training inputs, training targets, test
inputs and test targets, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gclip.errors import UsageError

_INPUTS = "bytes (uint8) of shape (N, C, H, W), or float32 of shape (N, …)"
_TARGETS = "labels (int64) of shape (N,), or float32 of shape (N,) or (N, k)"
_KEPT_AS = {torch.int32: torch.int64, torch.float64: torch.float32}


def inputs(name: str, value: Tensor | NDArray[Any]) -> Tensor:
    """A copy of inputs, float64 rounded to float32.

    Raises:
        UsageError: it is no tensor, or of a kind that inputs do not have.
    """
    return _copy(name, value, (torch.uint8, torch.float32, torch.float64), _INPUTS)


def targets(name: str, value: Tensor | NDArray[Any]) -> Tensor:
    """A copy of targets, int32 as int64 and float64 rounded to float32.

    Raises:
        UsageError: it is no tensor, or of a kind that targets do not have.
    """
    return _copy(name, value, (torch.int32, torch.int64, torch.float32, torch.float64), _TARGETS)


def class_names(tensors: Mapping[str, Tensor], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The classes' names: those given, or the labels as text up to the highest one learned from.

    Raises:
        UsageError: names that are no texts, or one twice; or a label that is left out.
    """
    if classes is None:
        labels = list(tensors.values())[1]
        if labels.is_floating_point() or not labels.numel():
            return ()
        present = torch.unique(labels).tolist()
        missing = next((label for label, each in enumerate(present) if label < each), None)
        if missing is not None and present[0] >= 0:
            raise UsageError(
                f"{list(tensors)[1]} has labels up to {present[-1]}, but no {missing}; count "
                "classes from 0, or give their names where some have no example to learn from"
            )
        return tuple(map(str, range(max(present[-1], 0) + 1)))
    if isinstance(classes, str) or not all(isinstance(each, str) for each in classes):
        raise UsageError(f"classes must be the classes' names, but got {classes!r}")
    twice = sorted({each for each in classes if list(classes).count(each) > 1})
    if twice:
        raise UsageError(f"classes must have different names, but {twice[0]!r} is there twice")
    return tuple(classes)


def check_form(tensors: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    """Check kinds, shapes, lengths and devices, which takes no look at a value.

    Raises:
        UsageError: naming the tensor, what it must be and what it is.
    """
    names = list(tensors)
    for name in names[::2]:
        value = tensors[name]
        images = value.dtype == torch.uint8 and value.ndim == 4
        if not images and (value.dtype != torch.float32 or value.ndim < 2):
            raise UsageError(f"{name} must be {_INPUTS}, but got {_kind(value)}")
        if not value.numel():
            raise UsageError(f"{name} must hold at least one example, but got {_kind(value)}")
    for name in names[1::2]:
        value = tensors[name]
        if not (
            (value.dtype == torch.int64 and value.ndim == 1)
            or (value.dtype == torch.float32 and value.ndim in (1, 2) and value[:1].numel())
        ):
            raise UsageError(f"{name} must be {_TARGETS}, but got {_kind(value)}")
    for first, second in (names[:2], names[2:]):
        if len(tensors[first]) != len(tensors[second]):
            raise UsageError(
                f"{first} and {second} must be of as many examples, but got "
                f"{len(tensors[first])} and {len(tensors[second])}"
            )
    for train, test in (names[::2], names[1::2]):
        one, other = tensors[train], tensors[test]
        if one.dtype != other.dtype or one.shape[1:] != other.shape[1:]:
            raise UsageError(
                f"{train} and {test} must be alike but for the number of examples, but got "
                f"{_kind(one)} and {_kind(other)}"
            )
    devices = sorted({str(value.device) for value in tensors.values()})
    if len(devices) > 1:
        raise UsageError(f"all data must be on one device, but got {' and '.join(devices)}")
    if tensors[names[1]].is_floating_point() == bool(classes):
        raise UsageError(
            f"{names[1]} of float32 are a regression's, which has no classes, but got "
            f"{len(classes)} of them"
            if classes
            else f"{names[1]} are labels, but there are no classes for them"
        )


def check_values(tensors: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    """Check that numbers are finite, and labels those of classes.

    Raises:
        UsageError: naming the first value that is not, and where it is.
    """
    for name, value in tensors.items():
        if value.is_floating_point():
            _first(name, value, value.isfinite(), "finite numbers (as float32)")
    for name in list(tensors)[1::2]:
        value = tensors[name]
        if not value.is_floating_point():
            right = (value >= 0) & (value < len(classes))
            last = len(classes) - 1
            _first(name, value, right, f"labels from 0 to {last}, one for each class")


def _copy(
    name: str, value: Tensor | NDArray[Any], kinds: Sequence[torch.dtype], form: str
) -> Tensor:
    if not isinstance(value, (Tensor, np.ndarray)):
        raise UsageError(f"{name} must be a tensor: {form}; but got {type(value).__name__}")
    try:
        tensor = torch.as_tensor(value).detach()
    except TypeError:  # an array of what is no number
        raise UsageError(f"{name} must be {form}, but got an array of {value.dtype}") from None
    if tensor.dtype not in kinds:
        raise UsageError(f"{name} must be {form}, but got {_kind(tensor)}")
    return tensor.to(_KEPT_AS.get(tensor.dtype, tensor.dtype), copy=True)


def _first(name: str, values: Tensor, right: Tensor, rule: str) -> None:
    if bool(right.all()):
        return
    where = (~right).nonzero()[0].tolist()
    raise UsageError(
        f"{name} must hold {rule}, but {name}[{', '.join(map(str, where))}] is "
        f"{values[tuple(where)].item():g}"
    )


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
