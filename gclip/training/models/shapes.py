"""Sentences of models about the inputs and settings that they are given.

`gclip.build_model` puts the model's name and the inputs before them.
"""

from __future__ import annotations

import math

from gclip.errors import UsageError


def image_shape(inputs: tuple[int, ...]) -> tuple[int, int, int]:
    """The channels, height and width of an image.

    Raises:
        UsageError: an example is no image.
    """
    if len(inputs) != 3:
        raise UsageError("it takes images, (channels, height, width)")
    channels, height, width = inputs
    return channels, height, width


def sequence_shape(inputs: tuple[int, ...]) -> tuple[int, int]:
    """The length and features of a sequence; those of an image are its rows.

    Raises:
        UsageError: an example is neither.
    """
    if len(inputs) == 2:
        return inputs[0], inputs[1]
    if len(inputs) == 3:
        return inputs[1], inputs[0] * inputs[2]
    raise UsageError("it takes sequences, (length, features), or images")


def at_least(low: int, **settings: int) -> None:
    """Check that whole numbers are not below `low`.

    Raises:
        UsageError: one is.
    """
    for name, value in settings.items():
        if value < low:
            raise UsageError(f"{name} must be a whole number ≥ {low}, but got {value!r}")


def above_zero(**settings: float) -> None:
    """Check that numbers are above 0 and finite.

    Raises:
        UsageError: one is not.
    """
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise UsageError(f"{name} must be > 0, but got {value!r}")


def a_share(**settings: float) -> None:
    """Check that numbers are in [0, 1).

    Raises:
        UsageError: one is not.
    """
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise UsageError(f"{name} must be in [0, 1), but got {value!r}")
