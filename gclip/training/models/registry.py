"""Which models are there? Functions that build one, by name."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from gclip.core.named_registry import NamedRegistry
from gclip.errors import UsageError

Builder = Callable[..., nn.Module]
"""``(inputs, outputs, *, setting=default, …)`` to a module."""

B = TypeVar("B", bound=Callable[..., Any])

_MODELS: NamedRegistry[Any] = NamedRegistry(
    "model", "gclip.training.models.shipped", "gclip.models"
)


def register_model(name: str) -> Callable[[B], B]:
    """Function decorator: make what the function builds known as the model `name`.

    The function is called as ``build(inputs, outputs, **settings)``. `inputs` is the shape of one
    example: ``(channels, height, width)``, ``(length, features)`` or ``(features,)``; the module
    maps a batch of them to ``(batch, outputs)``. Its keyword-only arguments are settings, which a
    spelling may set: ``mynet(width=128)``.

    Args:
        name: lower-case letters, digits, ``-`` and ``_``.

    Raises:
        UsageError: a name with bad characters or one that is taken, or a function with other
            arguments than these.

    Example:
        >>> import gclip
        >>> from torch import nn
        >>> @gclip.register_model("example_net")
        ... def build(inputs, outputs, *, width: int = 8):
        ...     return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.LazyLinear(outputs))
        >>> gclip.RunConfig(model="example_net( width = 8 )").model
        'example_net'
    """
    if not isinstance(name, str):
        raise UsageError('write @register_model("name") with the name in quotes and brackets')

    def decorate(function: B) -> B:
        _check_function(name, function)
        _MODELS.add(name, function)
        return function

    return decorate


def names() -> tuple[str, ...]:
    """The names of all registered models, sorted."""
    return _MODELS.names()


def get(name: str) -> Builder:
    """The function that builds the model `name`.

    Raises:
        UsageError: there is none, with a suggestion.
    """
    builder: Builder = _MODELS.get(name)
    return builder


def _check_function(name: str, function: object) -> None:
    if not isinstance(function, types.FunctionType):
        raise UsageError(
            f"@register_model({name!r}) decorates a function, build(inputs, outputs, *, "
            f"width=64), but got {function!r}"
        )
    first, settings = [], []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            first.append(parameter.name)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            settings.append(parameter)
        else:
            raise UsageError(
                f"the model {name!r} names all its settings after a *, but {function.__name__} "
                f"takes {parameter}"
            )
    if first != ["inputs", "outputs"]:
        raise UsageError(
            f"the model {name!r} is built by a function of (inputs, outputs, *, setting=default), "
            f"but {function.__name__} takes ({', '.join(first)})"
        )
    for setting in settings:
        if setting.default is setting.empty:
            raise UsageError(
                f"every setting of the model {name!r} needs a default, and {setting.name} has none"
            )
