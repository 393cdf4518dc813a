"""What is said of gradients that are not finite, under ``nonfinite="raise"``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from gclip.clipping.base_clipper import nonfinite_sentence


class NotFinite(FloatingPointError):
    """Gradients that are not finite, under ``nonfinite="raise"``.

    Attributes:
        runs: the indices of the runs whose gradients they are.
    """

    def __init__(self, message: str, runs: Sequence[int]) -> None:
        super().__init__(message)
        self.runs = tuple(runs)


def refuse_gradients(
    finite: Tensor, names: Sequence[str], grads: Sequence[Tensor | None], step: int
) -> NoReturn:
    """Say which runs' gradients are not finite, and of which parameters.

    Args:
        finite: bool ``(runs, 1)``.
        names: of the parameters.
        grads: one a parameter, ``(runs, *shape)``, or None.
        step: the number of steps before this one.

    Raises:
        NotFinite: always.
    """
    bad = [int(run) for run in (~finite.view(-1)).nonzero()]
    where = [
        name
        for name, grad in zip(names, grads, strict=True)
        if grad is not None and not bool(torch.isfinite(grad[bad]).all())
    ]
    raise NotFinite(nonfinite_sentence(step, where, f"of runs {_listed(bad)} "), bad)


def refuse_updates(finite: Tensor, first_run: int, step: int) -> NoReturn:
    """Say which runs' updates are not finite.

    Args:
        finite: bool ``(runs, 1)``, of the runs from `first_run` on.
        first_run: the index of the first of them.
        step: the number of steps before this one.

    Raises:
        NotFinite: always.
    """
    bad = [first_run + int(run) for run in (~finite.view(-1)).nonzero()]
    raise NotFinite(f"the updates of runs {_listed(bad)} are not finite at step {step}", bad)


def _listed(runs: Sequence[int]) -> str:
    return ", ".join(map(str, runs))
