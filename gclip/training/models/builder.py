"""Build a model: its weights, reproducibly, and sentences about what cannot be built."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gclip.core.source_location import told
from gclip.errors import UsageError
from gclip.training.models.registry import get
from gclip.training.models.settings import names_with, parse, settings_of
from gclip.training.seeds import derive


def build_model(
    spelling: str,
    inputs: tuple[int, ...] = (3, 32, 32),
    outputs: int = 10,
    seed: int = 0,
    dropout: float = 0.0,
) -> nn.Module:
    """A registered model on the CPU in float32, which maps a batch of examples to
    ``(batch, outputs)``.

    The caller's random state is left as it was.

    Args:
        spelling: its name, with settings where they are to be others: ``mlp(width=256)``.
        inputs: the shape of one example: ``(channels, height, width)``, ``(length, features)`` or
            ``(features,)``.
        outputs: how many numbers it gives for each.
        seed: of its weights.
        dropout: its setting of this name, where the spelling leaves it out; 0 for what the model
            does by itself.

    Raises:
        UsageError: an unknown name or setting; a model without dropout that is to have some; one
            that does not fit the inputs, or whose function does not give a module with weights.

    Example:
        >>> import gclip
        >>> gclip.build_model("mlp(width=8)", inputs=(4,), outputs=3)[-1]
        Linear(in_features=8, out_features=3, bias=True)
    """
    name, settings = parse(spelling)
    shape = _checked_shape(inputs)
    if isinstance(outputs, bool) or not isinstance(outputs, int) or outputs < 1:
        raise UsageError(f"outputs must be a whole number ≥ 1, but got {outputs!r}")
    if dropout:
        settings = {**settings, "dropout": checked_dropout(spelling, dropout)}
    builder = get(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        try:
            model: Any = _initialized(builder(shape, outputs, **settings), shape)
        except (Exception, SystemExit) as error:  # no function of a plugin ends the program
            why = str(error) if isinstance(error, UsageError) else told(error)
            raise UsageError(
                f"the model {spelling} cannot be built for inputs of the shape {shape}: {why}"
            ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"the model {spelling} must be a torch.nn.Module, but its function gives {model!r}"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"the model {spelling} has no trainable parameter")
    return model


def build(
    spelling: str,
    inputs: tuple[int, ...] | int = (3, 32, 32),
    outputs: int | None = None,
    seed: int = 0,
    dropout: float = 0.0,
    *,
    classes: int | None = None,
) -> nn.Module:
    """As `build_model`; takes ``build(name, classes, seed)`` too, the form of earlier versions.

    Args:
        spelling: as there.
        inputs: as there; or the number of classes of images of 3 × 32 × 32.
        outputs: as there, 10 where not given; or, behind a number of classes, the seed.
        seed: as there.
        dropout: as there.
        classes: the earlier name of `outputs`.

    Raises:
        UsageError: as there.
    """
    if isinstance(inputs, int):
        seed = seed if outputs is None else outputs
        return build_model(spelling, outputs=inputs, seed=seed, dropout=dropout)
    if outputs is None:
        outputs = 10 if classes is None else classes
    return build_model(spelling, inputs, outputs, seed, dropout)


def _initialized(model: Any, inputs: tuple[int, ...]) -> Any:
    """The model, its lazy layers given their shapes by a pass of one example of zeros."""
    if isinstance(model, nn.Module) and any(
        is_lazy(each) for each in itertools.chain(model.parameters(), model.buffers())
    ):
        training = model.training
        with torch.no_grad():
            model.eval()(torch.zeros(1, *inputs))
        model.train(training)
    return model


def checked_dropout(spelling: str, dropout: float) -> float:
    """The dropout that a model is to have, of which its spelling may say the same.

    Raises:
        UsageError: a model without such a setting, or a spelling that says something else.
    """
    name, settings = parse(spelling)
    if "dropout" not in settings_of(get(name)):
        raise UsageError(
            f"dropout belongs to the models {', '.join(names_with('dropout'))}, but {name} got "
            f"{dropout!r}"
        )
    if settings.get("dropout", dropout) != dropout:
        raise UsageError(
            f"the model {spelling} has a dropout of its own, so it cannot have {dropout!r}: leave "
            "one of them out"
        )
    return float(dropout)


def _checked_shape(inputs: Any) -> tuple[int, ...]:
    try:
        shape = tuple(inputs)
    except TypeError:
        shape = ()
    if not shape or not all(type(each) is int and each >= 1 for each in shape):
        raise UsageError(
            "inputs is the shape of one example, such as (3, 32, 32), (length, features) or "
            f"(features,), but got {inputs!r}"
        )
    return shape
