"""Golden numbers of the strategies without memory (and of random clipping, which counts steps)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import gclip
from gclip import Band, Limit, Memory, Scope, Seen, Strategy, tunable
from gclip.strategies.agc import AGC
from gclip.strategies.automatic import Automatic
from gclip.strategies.average_norm import AverageNorm
from gclip.strategies.block_rms import BlockRMS
from gclip.strategies.delta import Delta
from gclip.strategies.larc import LARC
from gclip.strategies.none import Unclipped
from gclip.strategies.norm import Norm
from gclip.strategies.normalized import Normalized
from gclip.strategies.per_sample import PerSample
from gclip.strategies.random import Random
from gclip.strategies.soft import Soft
from gclip.strategies.update_rms import UpdateRMS
from gclip.strategies.value import Value
from tests.golden.cases import Array, Case, clipped_norms, limits

Tensors = dict[str, Array]
SINGLE = {"rtol": 3e-7, "atol": 1e-12}
"""What a clipper leaves is float32; each element is rounded some four times on its way."""

NORMS = [0.0, 1e-9, 0.05, 0.5, 1.0, 2.0, 3.5, 1e4, 1e12]
N = np.array(NORMS)


def clip(weights: Tensors, grads: Tensors) -> Callable[[Strategy], Array]:
    """Runs a real clipper on float32 parameters; the elements that are left, one after another."""

    def run(strategy: Strategy) -> Array:
        params = {}
        for name, weight in weights.items():
            params[name] = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float32))
            params[name].grad = torch.tensor(grads[name], dtype=torch.float32)
        gclip.Clipper(params.items(), strategy).step()
        return np.concatenate(
            [p.grad.numpy().ravel() for p in params.values() if p.grad is not None]
        )

    return run


def flat(tensors: Sequence[Array]) -> Array:
    return np.concatenate([np.asarray(t, dtype=np.float64).ravel() for t in tensors])


def at_most(norm: Array, limit: Array | float) -> Array:
    """The norm that is left where the gradient is scaled down to a limit."""
    return norm * np.where(norm > limit, limit / np.maximum(norm, 1e-300), 1.0)


# A small net: a convolution, its bias, a linear layer, its bias, a scale by one number.
_rng = np.random.default_rng(7)
SHAPES = {
    "conv.weight": (2, 3, 2, 2), "conv.bias": (2,), "fc.weight": (3, 4), "fc.bias": (3,), "s": (),
}  # fmt: skip
WEIGHTS = {name: _rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
GRADS = {
    name: (_rng.normal(size=shape) * 10.0 ** (i - 1)).astype(np.float32)
    for i, (name, shape) in enumerate(SHAPES.items())
}
W64, G64 = ({k: v.astype(np.float64) for k, v in t.items()} for t in (WEIGHTS, GRADS))


def size_of(tensor: Array) -> float:
    return math.sqrt(float(np.sum(np.square(tensor))))


def each_tensor(limit: Callable[[Array, Array], float]) -> Array:
    """The small net's gradients, each tensor scaled down to ``limit(weight, gradient)``."""
    done = []
    for name, g in G64.items():
        done.append(g * min(1.0, limit(W64[name], g) / size_of(g)))
    return flat(done)


def all_together(factor: Callable[[float], float]) -> Array:
    return factor(size_of(flat(list(G64.values())))) * flat(list(G64.values()))


# -- none, norm, value -----------------------------------------------------------------------

NONE = [
    Case("every norm stays", {}, clipped_norms(NORMS), N, rtol=0),
    Case("every element stays", {}, clip(WEIGHTS, GRADS), flat(list(G64.values())), rtol=0),
]


class ClipsAtOne(Unclipped):
    def limit(self, seen: Seen, memory: Memory) -> float:
        return 1.0


class ClipsOnlyHuge(Unclipped):
    def limit(self, seen: Seen, memory: Memory) -> float:
        return 1e6


def _layers(c: float) -> Array:
    """Each layer's tensors by their common norm."""
    groups = [["conv.weight", "conv.bias"], ["fc.weight", "fc.bias"], ["s"]]
    done = []
    for group in groups:
        g = flat([G64[name] for name in group])
        done.append(g * min(1.0, c / size_of(g)))
    return np.concatenate(done)


def _p_norm(p: float, c: float) -> Array:
    g = flat(list(G64.values()))
    n = np.max(np.abs(g)) if p == math.inf else float(np.sum(np.abs(g) ** p)) ** (1 / p)
    return g * min(1.0, c / n)


def _units(limit: Callable[[Array, Array], float]) -> Array:
    """Each output row or filter by its own norm; tensors with fewer than two dimensions whole."""
    done = []
    for name, g in G64.items():
        rows = [(W64[name], g)] if g.ndim < 2 else list(zip(W64[name], g, strict=True))
        for w, row in rows:
            n = size_of(row)
            most = limit(w, row)
            done.append((row * (most / n) if n > most else row).ravel())
    return np.concatenate(done)


NORM = [
    Case("default", {}, clipped_norms(NORMS), at_most(N, 1.0)),
    Case("limit", {"max_norm": 0.3}, limits(NORMS), np.full(len(N), 0.3)),
    Case("limit 0", {"max_norm": 0.0}, clipped_norms(NORMS), 0 * N),
    Case("limit inf", {"max_norm": math.inf}, clipped_norms(NORMS), N, rtol=0),
    Case(
        "global", {"max_norm": 5.0}, clip(WEIGHTS, GRADS),
        all_together(lambda n: min(1.0, 5.0 / n)), **SINGLE,
    ),
    Case(
        "each tensor", {"max_norm": 2.0, "scope": "tensor"}, clip(WEIGHTS, GRADS),
        each_tensor(lambda w, g: 2.0), **SINGLE,
    ),
    Case("each layer", {"max_norm": 2.0, "scope": "layer"}, clip(WEIGHTS, GRADS), _layers(2.0),
         **SINGLE),
    Case(
        "each unit", {"max_norm": 2.0, "scope": "unit"}, clip(WEIGHTS, GRADS),
        _units(lambda w, g: 2.0), **SINGLE,
    ),
    Case("p 1", {"max_norm": 3.0, "p": 1.0}, clip(WEIGHTS, GRADS), _p_norm(1, 3.0), **SINGLE),
    Case("p 3", {"max_norm": 3.0, "p": 3.0}, clip(WEIGHTS, GRADS), _p_norm(3, 3.0),
         rtol=1e-6),
    Case("p inf", {"max_norm": 3.0, "p": math.inf}, clip(WEIGHTS, GRADS), _p_norm(math.inf, 3.0),
         **SINGLE),
]  # fmt: skip


class SquaredNorm(Norm):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_norm / seen.norm.clamp(min=1e-12)


class ClippedWhenBelow(Norm):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return torch.where(seen.norm < self.max_norm, seen.norm / 2, math.inf)


class EpsilonAdded(Norm):
    """torch's: c/(n + 1e-6)."""

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_norm * seen.norm / (seen.norm + 1e-6)


class AlwaysL2(Norm):
    @property
    def order(self) -> float:
        return 2.0


SYMMETRIC = flat([np.clip(g, -0.5, 0.5) for g in G64.values()])
LOPSIDED = flat([np.clip(g, np.float32(-0.1), np.float32(0.7)) for g in G64.values()])
VALUE = [
    Case("symmetric", {"clip_value": 0.5}, clip(WEIGHTS, GRADS), SYMMETRIC, rtol=0),
    Case("two bounds", {"clip_value": 0.7, "lower": -0.1}, clip(WEIGHTS, GRADS), LOPSIDED,
         rtol=1e-7),
    Case("limit 0", {"clip_value": 0.0}, clip(WEIGHTS, GRADS), 0 * SYMMETRIC),
    Case("limit inf", {"clip_value": math.inf}, clip(WEIGHTS, GRADS), flat(list(G64.values())),
         rtol=0),
]  # fmt: skip


class OnlyAbove(Value):
    def limit(self, seen: Seen, memory: Memory) -> Limit:
        return Band(-math.inf, self.clip_value)


class LowerIgnored(Value):
    def limit(self, seen: Seen, memory: Memory) -> Limit:
        return self.clip_value


class BoundsSwapped(Value):
    def limit(self, seen: Seen, memory: Memory) -> Limit:
        low = -self.clip_value if self.lower is None else self.lower
        return Band(-self.clip_value, -low)


# -- relative to the weights -------------------------------------------------------------------

AGC_WEIGHT = {"weight": np.array([[3.0, 4.0], [9.0, 40.0], [0.0, 0.0]])}
AGC_GRAD = {"weight": np.array([[7.0, 24.0], [5.0, 12.0], [3.0, 4.0]])}


def _agc(factor: float, eps: float) -> Array:
    return _units(lambda w, g: factor * max(size_of(w), eps))


AGC_CASES = [
    Case(
        "published rows", {"clip_factor": 0.5, "eps": 1e-3}, clip(AGC_WEIGHT, AGC_GRAD),
        np.array([0.7, 2.4, 5, 12, 3e-4, 4e-4]), **SINGLE,
    ),
    Case(
        "zero bias is one unit", {"clip_factor": 0.01, "eps": 1e-3},
        clip({"b": np.zeros(3)}, {"b": np.array([1.0, 2, 2])}),
        np.array([1.0, 2, 2]) / 3 * 1e-5, **SINGLE,
    ),
    Case("scalar", {"clip_factor": 0.5}, clip({"s": np.array(2.0)}, {"s": np.array(5.0)}),
         np.array([1.0])),
    Case("filters, rows and biases", {}, clip(WEIGHTS, GRADS), _agc(0.01, 1e-3), **SINGLE),
    Case("large factor", {"clip_factor": 1.5}, clip(WEIGHTS, GRADS), _agc(1.5, 1e-3), **SINGLE),
    Case(
        "a filter is the norm over channels and window", {"clip_factor": 0.5},
        clip({"c": np.full((2, 1, 2, 2), 1.0)}, {"c": np.arange(8.0).reshape(2, 1, 2, 2)}),
        flat([
            np.arange(4.0) / math.sqrt(14),  # ‖w‖ = 2 in each filter, so the limit is 1
            np.arange(4.0, 8) / math.sqrt(126),
        ]), **SINGLE,
    ),
    Case(
        "limit by weights", {"clip_factor": 0.2}, limits(NORMS, weight_norm=3.0), 0 * N + 0.6,
    ),
    Case("limit of zero weights", {"clip_factor": 0.2}, limits(NORMS, weight_norm=0.0),
         0 * N + 2e-4),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WholeTensors(AGC):
    """Reduces over the units too."""

    scope: Scope = "tensor"


class NoFloor(AGC):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.clip_factor * seen.weight_norm


class FloorAdded(AGC):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.clip_factor * (seen.weight_norm + self.eps)


class OtherRowsWeights(AGC):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.clip_factor * seen.weight_norm.flip(-1).clamp(min=self.eps)


def _larc(n: Array, w: float, lr: float, trust: float = 0.02, eps: float = 1e-8) -> Array:
    """apex in its clipping mode, without weight decay: the norm that is left."""
    if w == 0:
        return n
    local = trust * w / (n + eps)
    return np.where(n > 0, n * np.minimum(local / lr, 1.0), n)


def _larc_limit(decay: float) -> Callable[[Strategy], Array]:
    """The limit with weight decay, for two tensors of which one has no weights."""

    def run(strategy: Strategy) -> Array:
        norm = torch.tensor([5.0, 2.0, 3.0], dtype=torch.float64)
        weight = torch.tensor([4.0, 0.0, 0.1], dtype=torch.float64)
        rates = torch.tensor([0.1, 0.1, 0.01], dtype=torch.float64)
        seen = Seen(norm, weight_norm=weight, lr=rates, weight_decay=decay)
        return torch.as_tensor(strategy.limit(seen, {})).numpy()

    return run


def _larc_want(decay: float) -> Array:
    # 5 · min(.02·4/(5 + 4wd + ε)/.1, 1), and so on: n times the factor before its minimum with 1
    return np.array([
        5 * (0.02 * 4 / (5 + decay * 4 + 1e-8)) / 0.1,
        math.inf,
        3 * (0.02 * 0.1 / (3 + decay * 0.1 + 1e-8)) / 0.01,
    ])  # fmt: skip


LARC_CASES = [
    Case("default", {}, clipped_norms(NORMS, weight_norm=4.0, lr=0.1), _larc(N, 4.0, 0.1)),
    Case(
        "trust and ε", {"trust": 0.5, "eps": 0.1}, clipped_norms(NORMS, weight_norm=4.0, lr=2.0),
        _larc(N, 4.0, 2.0, 0.5, 0.1),
    ),
    Case("zero weights are left alone", {}, clipped_norms(NORMS, weight_norm=0.0, lr=0.1), N,
         rtol=0),
    Case("rate 0 is left alone", {}, clipped_norms(NORMS, weight_norm=1.0, lr=0.0), N, rtol=0),
    Case("weight decay", {}, _larc_limit(0.3), _larc_want(0.3)),
    Case("a rate for each tensor", {}, _larc_limit(0.0), _larc_want(0.0)),
]  # fmt: skip


class RateForgotten(LARC):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return super().limit(seen, memory) * seen.lr


class DecayForgotten(LARC):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        plain = Seen(seen.norm, weight_norm=seen.weight_norm, lr=seen.lr, weight_decay=0.0)
        return super().limit(plain, memory)


class ZeroWeightsNeverTrain(LARC):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        limit = super().limit(seen, memory)
        return torch.where(seen.weight_norm > 0, limit, 0.0)


class ScalesAsLARS(LARC):
    """apex without clip: the factor η‖w‖/(‖g‖ + ε) itself, never divided by the rate."""

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.trust * seen.weight_norm * seen.norm / (seen.norm + self.eps) * seen.norm


# -- relative to the number of elements ----------------------------------------------------------

BLOCK_RMS = [
    Case("√size", {"max_rms": 0.5}, clipped_norms(NORMS, size=16.0), at_most(N, 2.0)),
    Case("default", {}, limits(NORMS, size=100.0), 0 * N + 0.1),
    Case("limit 0", {"max_rms": 0.0}, clipped_norms(NORMS, size=16.0), 0 * N),
    Case(
        "each tensor by its rms", {"max_rms": 0.3}, clip(WEIGHTS, GRADS),
        flat([
            g / max(1.0, math.sqrt(float(np.mean(np.square(g)))) / 0.3) for g in G64.values()
        ]), **SINGLE,
    ),
]  # fmt: skip


class SizeNotRooted(BlockRMS):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_rms * seen.size


class SizeForgotten(BlockRMS):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_rms * torch.ones_like(seen.size)


@dataclass(frozen=True, kw_only=True)
class RMSOfAll(BlockRMS):
    scope: Scope = "global"


def _average(g: Array, c: float) -> Array:
    average = size_of(g) / g.size
    return g * (c / average) if average > c else g


AVERAGE = [
    Case("size", {"max_average": 0.05}, clipped_norms(NORMS, size=16.0), at_most(N, 0.8)),
    Case("default", {}, limits(NORMS, size=100.0), 0 * N + 0.1),
    Case("limit 0", {"max_average": 0.0}, clipped_norms(NORMS, size=16.0), 0 * N),
    Case(
        "each tensor by its average", {"max_average": 0.3}, clip(WEIGHTS, GRADS),
        flat([_average(g, 0.3) for g in G64.values()]), **SINGLE,
    ),
]  # fmt: skip


class RootOfSize(AverageNorm):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_average * seen.size.sqrt()


class NormNotAveraged(AverageNorm):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_average * torch.ones_like(seen.size)


UPDATE = [
    # δ = −lr·u, so ‖δ‖ = lr·n; what is left of u, times lr again.
    Case(
        "rms of u", {}, clipped_norms(list(0.1 * N), size=16.0, lr=0.1),
        0.1 * N / np.maximum(1.0, N / math.sqrt(16.0) / 1.0),
    ),
    Case(
        "d", {"max_rms": 0.25}, clipped_norms(list(0.02 * N), size=9.0, lr=0.02),
        0.02 * N / np.maximum(1.0, N / math.sqrt(9.0) / 0.25),
    ),
    Case("d 0", {"max_rms": 0.0}, clipped_norms(NORMS, size=9.0, lr=0.02), 0 * N),
]  # fmt: skip


class LearningRateForgotten(UpdateRMS):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_rms * seen.size.sqrt()


class UpdateSizeNotRooted(UpdateRMS):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_rms * seen.size * seen.lr


class Inverted(UpdateRMS):
    """Divides by min(1, rms/d), as a published Adafactor does."""

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        limit = super().limit(seen, memory)
        return torch.where(seen.norm < limit, seen.norm * seen.norm / limit, math.inf)


# -- always applied ------------------------------------------------------------------------------

NORMALIZED = [
    Case("default", {}, clipped_norms(NORMS), N * 1.0 / (N + 1e-6)),
    Case("s and ε", {"target": 0.3, "eps": 0.1}, clipped_norms(NORMS), N * 0.3 / (N + 0.1)),
    Case("ε 0", {"eps": 0.0}, clipped_norms(NORMS), np.sign(N)),
    Case(
        "rule scale", {"rule": "scale", "eps": 0.1}, clipped_norms(NORMS),
        N * np.minimum(1.0, 1.0 / (N + 0.1)),
    ),
    Case("elements", {"target": 3.0}, clip(WEIGHTS, GRADS), all_together(lambda n: 3 / (n + 1e-6)),
         **SINGLE),
    Case("s 0", {"target": 0.0}, clipped_norms(NORMS), 0 * N),
]  # fmt: skip


class OnlyLargeOnes(Normalized):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        limit = super().limit(seen, memory)
        return torch.where(seen.norm > limit, limit, math.inf)


class EpsilonForgotten(Normalized):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return torch.full_like(seen.norm, self.target)


SOFT = [
    Case("default", {}, clipped_norms(NORMS), N * 1.0 / (1.0 + N)),
    Case("c", {"max_norm": 0.3}, clipped_norms(NORMS), N * 0.3 / (0.3 + N)),
    Case("limit 0", {"max_norm": 0.0}, clipped_norms(NORMS), 0 * N),
    Case("limit inf", {"max_norm": math.inf}, clipped_norms(NORMS), N, rtol=0),
    Case("elements", {"max_norm": 3.0}, clip(WEIGHTS, GRADS), all_together(lambda n: 3 / (3 + n)),
         **SINGLE),
]  # fmt: skip


class HalfAsSoft(Soft):
    def limit(self, seen: Seen, memory: Memory) -> float:
        return 2 * self.max_norm


class OnlyBeyond(Soft):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return torch.where(seen.norm > self.max_norm, self.max_norm, math.inf)


class SoftSquared(Soft):
    """c/√(c² + n²)."""

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        c = self.max_norm
        factor = c / (c**2 + seen.norm.square()).sqrt()
        return factor * seen.norm / (1 - factor).clamp(min=1e-12)


def _delta(n: Array, c: float, d: float) -> Array:
    return n * np.minimum(1.0, np.maximum(d, c / np.maximum(n, 1e-300)))


DELTA = [
    Case("default", {}, clipped_norms(NORMS), _delta(N, 0.1, 1e-3)),
    Case("δ and c", {"max_norm": 1.0, "floor": 0.4}, clipped_norms(NORMS), _delta(N, 1.0, 0.4)),
    Case("δ 0 is norm", {"floor": 0.0}, clipped_norms(NORMS), at_most(N, 0.1)),
    Case("limit 0 leaves δ", {"max_norm": 0.0, "floor": 0.25}, clipped_norms(NORMS), N * 0.25),
    Case(
        "elements", {"max_norm": 1.0, "floor": 0.25}, clip(WEIGHTS, GRADS),
        all_together(lambda n: min(1.0, max(0.25, 1.0 / n))), **SINGLE,
    ),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NoDelta(Delta):
    floor: float = tunable(0.0, low=0.0, high=0.5)


class DeltaAdded(Delta):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_norm + self.floor * seen.norm


class DeltaAsNorm(Delta):
    """Keeps the norm, and not the factor, above δ."""

    def limit(self, seen: Seen, memory: Memory) -> float:
        return max(self.max_norm, self.floor)


# -- at random -------------------------------------------------------------------------------------

U32 = np.uint64(0xFFFFFFFF)


def _mix(x: np.uint64) -> np.uint64:
    """Wellons' hash with 32-bit words, on uint64 so that NumPy does not warn of the overflow."""
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x21F0AAAD)) & U32
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(0x735A2D97)) & U32
    return x ^ (x >> np.uint64(15))


def draw(seed: int, step: int, group: int) -> float:
    """The number that decides, in [0, 1)."""
    high = _mix(np.uint64(seed >> 32) ^ np.uint64(0x9E3779B9))
    key = _mix(np.uint64(seed & 0xFFFFFFFF) ^ high)
    word = _mix(_mix(np.uint64(step) ^ key) ^ np.uint64(group))
    return float(word >> np.uint64(8)) / 2**24


def random_norms(norms: Array, c: float, beta: float, k: float, seed: int) -> Array:
    """What is left of norms ``(steps, groups)``."""
    done = np.empty_like(norms)
    for step, group in np.ndindex(norms.shape):
        n = norms[step, group]
        clip = n > c and draw(seed, step, group) < beta ** ((c / n) ** k)
        done[step, group] = c if clip else n
    return done


MANY = np.exp(np.random.default_rng(3).normal(size=(60, 5)))
RANDOM = [
    Case("linear", {}, clipped_norms(MANY), random_norms(MANY, 1.0, 0.85, 1, 0)),
    Case(
        "quadratic", {"beta": 0.2, "power": 2, "max_norm": 0.7, "seed": 5},
        clipped_norms(MANY), random_norms(MANY, 0.7, 0.2, 2, 5),
    ),
    Case(
        "a seed of 64 bits", {"beta": 0.2, "seed": 2**40 + 1}, clipped_norms(MANY),
        random_norms(MANY, 1.0, 0.2, 1, 2**40 + 1),
    ),
    Case("β 1 is norm", {"beta": 1.0}, clipped_norms(NORMS), at_most(N, 1.0)),
    Case("limit 0", {"max_norm": 0.0}, clipped_norms(NORMS), 0 * N),
]  # fmt: skip


class OneMinus(Random):
    """With probability 1 − β^(c/n)."""

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return torch.where(
            super().limit(seen, memory).isinf() & (seen.norm > self.max_norm),
            self.max_norm, math.inf,
        )  # fmt: skip


class AlwaysLinear(Random):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return Random(max_norm=self.max_norm, beta=self.beta, seed=self.seed).limit(seen, memory)


class SameEveryStep(Random):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {}


class SameInEveryGroup(Random):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        each = [
            super(SameInEveryGroup, self).limit(
                Seen(seen.norm[..., i : i + 1]), {"steps": memory["steps"][..., i : i + 1]}
            )
            for i in range(seen.norm.shape[-1])
        ]
        return torch.cat(each, dim=-1)


class SeedIgnored(Random):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return Random(max_norm=self.max_norm, beta=self.beta, power=self.power).limit(seen, memory)


# -- each example ----------------------------------------------------------------------------------

EXAMPLES = np.random.default_rng(11).normal(size=(6, 2, 3)) * np.array([[0.2], [3.0]])
EXAMPLES[4] = 0.0
"""Six examples' gradients of two tensors of three elements; one example has none."""


def mean_of_clipped(together: bool) -> Callable[[Strategy], Array]:
    """The strategy sees each example's norm as a row; the scaled examples are averaged."""
    norms = np.linalg.norm(EXAMPLES, axis=-1)
    if together:
        norms = np.linalg.norm(norms, axis=-1, keepdims=True)

    def run(strategy: Strategy) -> Array:
        _, left = gclip.simulate(strategy, [norms], dtype=torch.float64)
        factor = np.divide(left[0].numpy(), norms, out=np.ones_like(norms), where=norms > 0)
        return (EXAMPLES * factor[..., None]).mean(axis=0)

    return run


def _mean(factor: Callable[[float], float], together: bool) -> Array:
    total = np.zeros((2, 3))
    for example in EXAMPLES:
        if together:
            total += example * factor(size_of(example))
        else:
            total += np.stack([part * factor(size_of(part)) for part in example])
    return total / len(EXAMPLES)


def _scale_to(c: float) -> Callable[[float], float]:
    return lambda n: min(1.0, c / n) if n > 0 else 1.0


PER_SAMPLE = [
    Case("flat", {}, mean_of_clipped(True), _mean(_scale_to(1.0), True)),
    Case("each tensor", {"max_norm": 0.5, "scope": "tensor"}, mean_of_clipped(False),
         _mean(_scale_to(0.5), False)),
    Case("norms", {"max_norm": 0.3}, clipped_norms(NORMS), at_most(N, 0.3)),
    Case("limit 0", {"max_norm": 0.0}, clipped_norms(NORMS), 0 * N),
]  # fmt: skip


class LargestExampleDecides(PerSample):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        top = seen.norm.amax(dim=0, keepdim=True)
        return seen.norm * (self.max_norm / top.clamp(min=1e-12)).clamp(max=1.0)


class MeanIsClipped(PerSample):
    """Compares the mean of the norms with the limit."""

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        mean = seen.norm.mean(dim=0, keepdim=True)
        return torch.where(mean > self.max_norm, self.max_norm, math.inf)


class ShareOfTheBatch(PerSample):
    def limit(self, seen: Seen, memory: Memory) -> float:
        return self.max_norm / seen.norm.shape[0]


AUTOMATIC = [
    Case("mean", {}, mean_of_clipped(True), _mean(lambda n: 1 / (n + 0.01), True)),
    Case("each tensor", {"gamma": 0.5, "max_norm": 2.0, "scope": "tensor"}, mean_of_clipped(False),
         _mean(lambda n: 2 / (n + 0.5), False)),
    Case("whole gradient", {"side": "gradient"}, clip(WEIGHTS, GRADS),
         all_together(lambda n: 1 / (n + 0.01)), **SINGLE),
    Case("norms", {}, clipped_norms(NORMS), N / (N + 0.01)),
]  # fmt: skip


class GammaForgotten(Automatic):
    """The paper's AUTO-V."""

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return torch.full_like(seen.norm, self.max_norm)


class ClipsInstead(Automatic):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return torch.where(seen.norm > self.max_norm, self.max_norm, math.inf)


class GammaAddedToNorm(Automatic):
    """R·(n + γ)/n: the wrong side of the fraction."""

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.max_norm * (seen.norm + self.gamma)


CASES: dict[str, list[Case]] = {
    "none": NONE,
    "norm": NORM,
    "value": VALUE,
    "agc": AGC_CASES,
    "larc": LARC_CASES,
    "block_rms": BLOCK_RMS,
    "average_norm": AVERAGE,
    "update_rms": UPDATE,
    "normalized": NORMALIZED,
    "soft": SOFT,
    "delta": DELTA,
    "random": RANDOM,
    "per_sample": PER_SAMPLE,
    "automatic": AUTOMATIC,
}

MUTANTS: dict[str, list[type]] = {
    "none": [ClipsAtOne, ClipsOnlyHuge],
    "norm": [SquaredNorm, ClippedWhenBelow, EpsilonAdded, AlwaysL2],
    "value": [OnlyAbove, LowerIgnored, BoundsSwapped],
    "agc": [WholeTensors, NoFloor, FloorAdded, OtherRowsWeights],
    "larc": [RateForgotten, DecayForgotten, ZeroWeightsNeverTrain, ScalesAsLARS],
    "block_rms": [SizeNotRooted, SizeForgotten, RMSOfAll],
    "average_norm": [RootOfSize, NormNotAveraged],
    "update_rms": [LearningRateForgotten, UpdateSizeNotRooted, Inverted],
    "normalized": [OnlyLargeOnes, EpsilonForgotten],
    "soft": [HalfAsSoft, OnlyBeyond, SoftSquared],
    "delta": [NoDelta, DeltaAdded, DeltaAsNorm],
    "random": [OneMinus, AlwaysLinear, SameEveryStep, SameInEveryGroup, SeedIgnored],
    "per_sample": [LargestExampleDecides, MeanIsClipped, ShareOfTheBatch],
    "automatic": [GammaForgotten, ClipsInstead, GammaAddedToNorm],
}
