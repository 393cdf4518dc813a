"""Functions that call something else for a while, wherever they have been imported to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from types import CellType, FunctionType
from typing import Any, TypeAlias

Around: TypeAlias = Callable[..., Any]
"""A function of the original, its positional and its named arguments."""


def redirect(stack: ExitStack, home: Any, name: str, around: Around) -> None:
    """Let ``home.name(…)`` call ``around(original, args, named)`` until `stack` is closed.

    torch's clipping functions are wrappers of an inner one (for ``no_grad``). It is that one which
    is replaced, so that ``from torch.nn.utils import clip_grad_norm_``, done long before, is seen
    as well.
    """
    found = vars(home).get(name)
    if not isinstance(found, FunctionType):
        return  # another version of torch has none
    cell = _inner(found)
    if cell is not None:
        inner = cell.cell_contents
        cell.cell_contents = _calling(around, inner)
        stack.callback(setattr, cell, "cell_contents", inner)
        return
    replacement = _calling(around, found)
    setattr(home, name, replacement)
    stack.callback(_put_back, home, name, found, replacement)


def _put_back(home: Any, name: str, original: Any, ours: Any) -> None:
    if vars(home).get(name) is ours:  # else somebody has put theirs around it since
        setattr(home, name, original)


def _inner(function: FunctionType) -> CellType | None:
    """The cell with the function that a ``no_grad`` wrapper calls."""
    if function.__name__ == function.__code__.co_name:
        return None  # no wrapper: its code is its own
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cell = cells.get("func")
    return cell if cell is not None and isinstance(cell.cell_contents, FunctionType) else None


def _calling(around: Around, original: Any) -> Any:
    @functools.wraps(original)
    def called(*args: Any, **named: Any) -> Any:
        return around(original, args, named)

    return called
