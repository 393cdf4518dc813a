"""What a golden case is: a strategy at work, and the numbers that its equation gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import gclip
from gclip import Strategy

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Case:
    """`run` a strategy, compare with `want`.

    Attributes:
        label: what the case is about, for the test's name.
        fields: the strategy's settings; every mutant is made with the same.
        run: gives the numbers that the strategy produces (limits, clipped norms, elements).
        want: the same numbers by independent float64 NumPy, or as published.
    """

    label: str
    fields: Mapping[str, Any]
    run: Callable[[Strategy], Array]
    want: Array
    rtol: float = 1e-9
    atol: float = 1e-12

    def check(self, cls: type[Strategy]) -> None:
        """Raise AssertionError where a strategy of class `cls` gives other numbers."""
        got = np.asarray(self.run(cls(**self.fields)), dtype=np.float64)
        assert got.shape == self.want.shape, (got.shape, self.want.shape)
        np.testing.assert_allclose(got, self.want, rtol=self.rtol, atol=self.atol)


def clipped_norms(norms: Array | list[float], **seen: float) -> Callable[[Strategy], Array]:
    """Runs the strategy on a sequence of norms in float64; the norms that are left."""
    import torch

    def run(strategy: Strategy) -> Array:
        _, clipped = gclip.simulate(strategy, list(norms), dtype=torch.float64, **seen)
        return clipped.squeeze(-1).numpy() if np.ndim(norms) == 1 else clipped.numpy()

    return run


def limits(norms: Array | list[float], **seen: float) -> Callable[[Strategy], Array]:
    """Runs the strategy on a sequence of norms in float64; the limits it sets."""
    import torch

    def run(strategy: Strategy) -> Array:
        found, _ = gclip.simulate(strategy, list(norms), dtype=torch.float64, **seen)
        return found.squeeze(-1).numpy() if np.ndim(norms) == 1 else found.numpy()

    return run
