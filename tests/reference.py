"""Clipping in float64 NumPy, straight from the equations, sharing no code with gclip.

Gradients and weights are dicts from parameter name to array.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Group: TypeAlias = list[tuple[str, Any]]
"""Parameters, and which of their elements: an index."""


def groups_of(shapes: dict[str, tuple[int, ...]], scope: str) -> list[Group]:
    """Each group as a list of (parameter, index): the elements that share one norm."""
    if scope == "global":
        return [[(name, ...) for name in shapes]]
    if scope == "layer":
        layers: dict[str, Group] = {}
        for name in shapes:
            layers.setdefault(name.rpartition(".")[0] or name, []).append((name, ...))
        return list(layers.values())
    if scope == "tensor":
        return [[(name, ...)] for name in shapes]
    if scope == "unit":
        groups: list[Group] = []
        for name, shape in shapes.items():
            if len(shape) < 2:
                groups.append([(name, ...)])
            else:
                groups += [[(name, row)] for row in range(shape[0])]
        return groups
    raise KeyError(scope)


def norm_of(arrays: Arrays, group: Group, p: float = 2.0) -> float:
    flat = np.concatenate([np.ravel(arrays[name][index]) for name, index in group])
    if flat.size == 0:
        return 0.0
    if p == np.inf:
        return float(np.abs(flat).max())
    return float((np.abs(flat) ** p).sum() ** (1 / p))


def scaled(
    grads: Arrays, groups: Sequence[Group], limits: Sequence[float], p: float = 2.0
) -> Arrays:
    """Every group scaled down to its limit where its norm is above it."""
    out = {name: g.copy() for name, g in grads.items()}
    for group, limit in zip(groups, limits, strict=True):
        n = norm_of(grads, group, p)
        if n > limit:
            for name, index in group:
                out[name][index] = grads[name][index] * (limit / n)
    return out


def norm_clip(grads: Arrays, scope: str, c: float, p: float = 2.0) -> Arrays:
    if scope == "element":
        return value_clip(grads, -c, c)
    groups = groups_of({n: g.shape for n, g in grads.items()}, scope)
    return scaled(grads, groups, [c] * len(groups), p)


def value_clip(grads: Arrays, low: float, high: float) -> Arrays:
    return {name: np.asarray(np.clip(g, low, high)) for name, g in grads.items()}


def agc_clip(grads: Arrays, weights: Arrays, scope: str, factor: float, eps: float) -> Arrays:
    groups = groups_of({n: g.shape for n, g in grads.items()}, scope)
    return scaled(grads, groups, [factor * max(norm_of(weights, g), eps) for g in groups])


class PercentileClip:
    """AutoClip: the whole history (or the last `window`), NumPy's percentile."""

    def __init__(self, p: float, window: int | None = None) -> None:
        self.p, self.window = p, window
        self.past: list[list[float]] = []

    def __call__(self, grads: Arrays, scope: str) -> Arrays:
        if scope == "element":
            groups: list[Group] = [[(name, ...)] for name in grads]
            norms = [norm_of(grads, g, np.inf) for g in groups]
        else:
            groups = groups_of({n: g.shape for n, g in grads.items()}, scope)
            norms = [norm_of(grads, g) for g in groups]
        if not self.past:
            self.past = [[] for _ in groups]
        for past, n in zip(self.past, norms, strict=True):
            past.append(n)
        limits = [float(np.percentile(past[-(self.window or 0) :], self.p)) for past in self.past]
        if scope == "element":
            pairs = zip(grads.items(), limits, strict=True)
            return {name: np.clip(g, -c, c) for (name, g), c in pairs}
        return scaled(grads, groups, limits)
