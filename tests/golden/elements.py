"""Strategies that change elements: whole tensors, step by step, against their equations.

`want` is float64 NumPy that shares nothing with gclip. Wherever it makes sense two different runs
stand side by side in the first dimension, so that a reduction over too much is noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gclip import Elements, Memory, Strategy, Transform
from gclip.clipping.rules import transformed
from gclip.strategies.cclip import ACClip, CClip
from gclip.strategies.clippy import Clippy
from gclip.strategies.power import Power
from gclip.strategies.spam import Spam
from gclip.strategies.spectral import Spectral
from gclip.strategies.stable_spam import StableSpam
from tests.golden.cases import Array, Case


def outputs(
    values: Array,
    *,
    weights: Array | None = None,
    grads: Array | None = None,
    lr: float | None = None,
) -> Callable[[Strategy], Array]:
    """Runs a transform on ``values[step]`` in float64; what it makes of them."""

    def run(strategy: Strategy) -> Array:
        assert isinstance(strategy, Transform)
        memory: Memory | None = None
        made = []
        for step, each in enumerate(values):
            shown = torch.tensor(each)
            if memory is None:
                memory = strategy.remember(torch.zeros_like(shown))
            seen = Elements(
                shown,
                step=step,
                weight=None if weights is None else torch.tensor(weights[step]),
                grad=None if grads is None else torch.tensor(grads[step]),
                lr=lr,
            )
            new, memory = transformed(strategy, seen, memory, None)
            made.append(new.numpy())
        return np.stack(made)

    return run


def _draws(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def _heavy(seed: int, *shape: int) -> Array:
    """Gradients with spikes, and with a size of their own at each step."""
    rng = np.random.default_rng(seed)
    steps = np.exp(rng.standard_normal((shape[0], *(1 for _ in shape[1:]))))
    return rng.standard_t(1.5, shape) * steps


# -- spam -----------------------------------------------------------------------------------------


def _spam(values: Array, theta: float, beta: float, warmup: int) -> Array:
    v, made = np.zeros_like(values[0]), []
    for step, g in enumerate(values):
        spike = (step >= warmup) & (v > 0) & (g**2 > theta * v)
        g = np.where(spike, np.sign(g) * np.sqrt(theta * v), g)
        v = beta * v + (1 - beta) * g**2
        made.append(g)
    return np.stack(made)


_SPIKES = _heavy(0, 60, 2, 5)
_SPIKES[:30, 0, 0] = 0.0  # no past when its first gradient comes, long after the warm-up
_SPIKES[:, 1, 1] = 0.0
_SPAM: list[Case] = [
    Case(
        "by hand",
        {"threshold": 2.0, "decay": 0.5, "warmup": 1},
        outputs(np.array([[1.0, 0.0], [3.0, 5.0], [-3.0, -1.0]])),
        # v: .5, then .5·.5 + .5·1 = .75; the second element starts at 5, which gives v 12.5
        np.array([[1.0, 0.0], [1.0, 5.0], [-np.sqrt(1.5), -1.0]]),
    ),
    Case(
        "spikes",
        {"threshold": 4.0, "decay": 0.9, "warmup": 7},
        outputs(_SPIKES),
        _spam(_SPIKES, 4.0, 0.9, 7),
    ),
    Case("defaults", {}, outputs(_SPIKES * 9), _spam(_SPIKES * 9, 5000.0, 0.999, 19)),
    Case(
        "the 20th gradient is the first to be cut",
        {},
        outputs(np.array([[1.0]] * 18 + [[-1.0], [100.0]])),
        # v after 19 squares of 1: 1 − 0.999¹⁹
        np.array([[1.0]] * 18 + [[-1.0], [np.sqrt(5000 * (1 - 0.999**19))]]),
    ),
]


class SpamNeverLearns(Spam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values, new = super().transform(seen, memory)
        square = torch.where(memory["count"] == 0, new["square"], memory["square"])
        return values, {**new, "square": square}


class SpamLearnsTheSpike(Spam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values, new = super().transform(seen, memory)
        raw = self.decay * memory["square"] + (1 - self.decay) * seen.values.square()
        return values, {**new, "square": raw}


class SpamCorrectsTheBias(Spam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        weight = (1 - self.decay ** memory["count"]).clamp(min=1e-9)
        values, new = super().transform(seen, {**memory, "square": memory["square"] / weight})
        square = self.decay * memory["square"] + (1 - self.decay) * values.square()
        return values, {**new, "square": square}


class SpamLosesTheSign(Spam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values, new = super().transform(seen, memory)
        return torch.where(values == seen.values, values, values.abs()), new


class SpamFreezes(Spam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values, new = super().transform(seen, memory)
        frozen = (memory["square"] == 0) & (memory["count"] >= self.warmup)
        kept = torch.where(frozen, memory["square"], new["square"])
        return torch.where(frozen, 0.0, values), {**new, "square": kept}


class SpamStartsLate(Spam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values, new = super().transform(seen, {**memory, "count": memory["count"] - 1})
        return values, {**new, "count": memory["count"] + 1}


class SpamHasNoWarmup(Spam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return super().transform(seen, {**memory, "count": memory["count"] + 1e9})


class SpamAveragesTheTensor(Spam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        shared = memory["square"].mean(dim=-1, keepdim=True).expand_as(seen.values)
        return super().transform(seen, {**memory, "square": shared})


# -- stable_spam ----------------------------------------------------------------------------------


def _stable_spam(
    values: Array,
    gamma1: float = 0.7,
    gamma2: float = 0.9,
    theta: float = 0.999,
    eps: float = 1e-8,
) -> Array:
    made = np.zeros_like(values)
    for run in range(values.shape[1]):
        top = mean = square = 0.0
        for step, g in enumerate(values[:, run]):
            t = step + 1
            largest = np.abs(g).max()
            top = theta * top + (1 - theta) * largest
            limit = top / (1 - theta**t)
            g = np.where(np.abs(g) > limit, g * limit / (largest or 1.0), g)
            n = np.sqrt((g**2).sum())
            mean = gamma1 * mean + (1 - gamma1) * n
            square = gamma2 * square + (1 - gamma2) * n**2
            usual = mean / (1 - gamma1**t) / (np.sqrt(square / (1 - gamma2**t)) + eps)
            made[step, run] = g / n * usual if n > 0 else g
    return made


_SHAKEN = _heavy(1, 25, 2, 6)
_SHAKEN[4, 1] = 0.0
_STABLE: list[Case] = [
    Case(
        "the first gradient is left with a norm of 1",
        {"eps": 1e-12},
        outputs(np.array([[[3.0, -4.0], [0.0, 0.1]]])),
        np.array([[[0.6, -0.8], [0.0, 1.0]]]),
    ),
    Case("defaults", {}, outputs(_SHAKEN), _stable_spam(_SHAKEN)),
    Case(
        "settings",
        {"gamma1": 0.5, "gamma2": 0.6, "theta": 0.8, "eps": 0.01},
        outputs(_SHAKEN),
        _stable_spam(_SHAKEN, 0.5, 0.6, 0.8, 0.01),
    ),
    Case(
        "zero stays zero",
        {},
        outputs(np.zeros((3, 1, 2))),
        np.zeros((3, 1, 2)),
    ),
]


class StableSpamForgetsTheBias(StableSpam):
    @staticmethod
    def _pushed(memory: Memory, name: str, value: Tensor, decay: float) -> dict[str, Tensor]:
        made = StableSpam._pushed(memory, name, value, decay)
        return {**made, f"{name}_weight": torch.ones_like(made[name])}


class StableSpamNeverLearns(StableSpam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return super().transform(seen, memory)[0], {}


class StableSpamLooksBack(StableSpam):
    """The limit of the elements without this step's."""

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        size = seen.values.abs()
        before = memory["top"] / memory["top_weight"]
        limit = torch.where(memory["top_weight"] > 0, before, torch.inf)
        spike = size > limit
        share = limit / size.amax(dim=-1, keepdim=True)
        cut = torch.where(spike, seen.values * share, seen.values)
        made, new = super().transform(Elements(cut, step=seen.step), memory)
        top = self._pushed(memory, "top", size.amax(dim=-1, keepdim=True), self.theta)
        return made, {**new, **top}


class StableSpamMixesRuns(StableSpam):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        shared = {
            key: value.mean(dim=0, keepdim=True).expand_as(value) for key, value in memory.items()
        }
        return super().transform(seen, shared)


class StableSpamClamps(StableSpam):
    """Spikes clamped at the limit instead of scaled by it."""

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values = seen.values
        top = values.abs().amax(dim=-1, keepdim=True)
        mean = self._pushed(memory, "top", top, self.theta)
        limit = mean["top"] / mean["top_weight"]
        clamped = torch.maximum(torch.minimum(values, limit), -limit)
        made, new = super().transform(Elements(clamped, step=seen.step), memory)
        return made, {**new, **mean}


class StableSpamSkipsTheElements(StableSpam):
    @staticmethod
    def _pushed(memory: Memory, name: str, value: Tensor, decay: float) -> dict[str, Tensor]:
        made = StableSpam._pushed(memory, name, value, decay)
        if name == "top":
            return {**made, "top": value * made["top_weight"]}
        return made


class StableSpamAveragesNorms(StableSpam):
    """n where n² belongs."""

    @staticmethod
    def _pushed(memory: Memory, name: str, value: Tensor, decay: float) -> dict[str, Tensor]:
        value = value.sqrt() if name == "square" else value
        return StableSpam._pushed(memory, name, value, decay)


# -- clippy ---------------------------------------------------------------------------------------


def _clippy(values: Array, weights: Array, relative: float, absolute: float) -> Array:
    made = values.copy()
    for index in np.ndindex(values.shape[:-1]):
        pairs = zip(values[index], weights[index], strict=True)
        ratios = [(relative * abs(w) + absolute) / abs(d) for d, w in pairs if d != 0]
        made[index] = values[index] * min([1.0, *ratios])
    return made


_STEPS, _WEIGHTS = 0.3 * _draws(2, 4, 3, 6), _draws(3, 4, 3, 6)
_STEPS[0, 0, 0] = _WEIGHTS[0, 0, 1] = _STEPS[0, 1] = 0.0
_STEPS[1] *= 1e-3
_CLIPPY: list[Case] = [
    Case(
        "by hand",
        {"relative": 0.1, "absolute": 0.01},
        # allowed: .11, .21, .01; of the three ratios .55, 2.1 and (no update) 1 the least
        outputs(np.array([[0.2, -0.1, 0.0]]), weights=np.array([[1.0, -2.0, 0.0]])),
        np.array([[0.11, -0.055, 0.0]]),
    ),
    Case(
        "a weight at zero holds the tensor back",
        {},
        outputs(np.array([[1e-3, 2e-6]]), weights=np.array([[1.0, 0.0]])),
        np.array([[5e-5, 1e-7]]),
    ),
    Case(
        "random",
        {"relative": 0.2, "absolute": 1e-3},
        outputs(_STEPS, weights=_WEIGHTS),
        _clippy(_STEPS, _WEIGHTS, 0.2, 1e-3),
    ),
    Case("defaults", {}, outputs(_STEPS, weights=_WEIGHTS), _clippy(_STEPS, _WEIGHTS, 0.1, 1e-7)),
]


class _Shares(Clippy):
    def _shares(self, seen: Elements) -> Tensor:
        allowed = self.relative * seen.weight.abs() + self.absolute
        return torch.where(seen.values == 0, 1.0, allowed / seen.values.abs())


class ClippyByTheLargest(_Shares):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        share = self._shares(seen).amax(dim=-1, keepdim=True)
        return seen.values * share.clamp(max=1.0), {}


class ClippyByElement(_Shares):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return seen.values * self._shares(seen).clamp(max=1.0), {}


class ClippyGrows(_Shares):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return seen.values * self._shares(seen).amin(dim=-1, keepdim=True), {}


class ClippyOverAllRuns(_Shares):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return seen.values * self._shares(seen).amin().clamp(max=1.0), {}


class ClippyAfterTheStep(Clippy):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return super().transform(
            Elements(seen.values, step=seen.step, weight=seen.weight + seen.values), memory
        )


# -- cclip, acclip --------------------------------------------------------------------------------


def _cut(momentum: Array, tau: Array | float, eps: float) -> Array:
    return momentum * np.clip(tau / (np.abs(momentum) + eps), 0.0, 1.0)


def _acclip(gradients: Array, momenta: Array, alpha: float, beta: float, eps: float) -> Array:
    power, made = np.zeros_like(gradients[0]), []
    for g, m in zip(gradients, momenta, strict=True):
        power = beta * power + (1 - beta) * np.abs(g) ** alpha
        made.append(_cut(m, power ** (1 / alpha), eps))
    return np.stack(made)


def _momenta(gradients: Array, beta: float = 0.9) -> Array:
    m, made = np.zeros_like(gradients[0]), []
    for g in gradients:
        m = beta * m + (1 - beta) * g
        made.append(m)
    return np.stack(made)


_NOISE = _heavy(4, 30, 2, 5)
_NOISE[:, 0, 0] = 0.0
_MOMENTA = _momenta(_NOISE)
_CCLIP: list[Case] = [
    Case(
        "by hand",
        {"threshold": 0.5, "eps": 0.25},
        outputs(np.array([[0.2, -0.075, 0.025, 0.0]]), lr=0.1),
        # |m| + ε: 2.25, 1, .5 and .25, of which the first two are beyond .5
        np.array([[0.2 / 4.5, -0.0375, 0.025, 0.0]]),
    ),
    Case(
        "random",
        {"threshold": 0.3},
        outputs(-0.05 * _MOMENTA, lr=0.05),
        -0.05 * _cut(_MOMENTA, 0.3, 1e-5),
    ),
    Case("no learning rate", {}, outputs(np.zeros((2, 3)), lr=0.0), np.zeros((2, 3))),
]
_ACCLIP: list[Case] = [
    Case(
        f"alpha {alpha:g}",
        {"alpha": alpha, "decay": beta, "eps": eps},
        outputs(-0.05 * _MOMENTA, grads=_NOISE, lr=0.05),
        -0.05 * _acclip(_NOISE, _MOMENTA, alpha, beta, eps),
    )
    for alpha, beta, eps in ((1.0, 0.99, 1e-5), (1.5, 0.9, 1e-5), (2.0, 0.8, 0.1))
] + [
    Case(
        "by hand",
        {"decay": 0.75, "eps": 1e-12},
        # τ: .5 and .5·.75 + 1 = 1.375, of m = 1.5 and −.5
        outputs(np.array([[-1.5], [0.5]]), grads=np.array([[2.0], [-4.0]]), lr=1.0),
        np.array([[-0.5], [0.5]]),
    ),
    Case(
        "no learning rate",
        {},
        outputs(np.zeros((2, 3)), grads=np.ones((2, 3)), lr=0.0),
        np.zeros((2, 3)),
    ),
]


class CClipIgnoresTheRate(CClip):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return super().transform(Elements(seen.values, step=seen.step, lr=1.0), memory)


class CClipLosesTheSign(CClip):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values, new = super().transform(seen, memory)
        return torch.where(values == seen.values, values, values.abs()), new


class CClipByNorm(CClip):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        lr = max(float(seen.lr), 1e-9)
        norm = torch.linalg.vector_norm(seen.values, dim=-1, keepdim=True) / lr
        return seen.values * (self.threshold / (norm + self.eps)).clamp(max=1.0), {}


class CClipWithoutEps(CClip):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        bound = self.threshold * float(seen.lr)
        return seen.values.clamp(-bound, bound), {}


class ACClipNeverLearns(ACClip):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return super().transform(seen, memory)[0], {}


class ACClipCorrectsTheBias(ACClip):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        _, new = super().transform(seen, memory)
        weight = (1 - self.decay ** (seen.step + 1)) ** (1 / self.alpha)
        size = seen.values.abs() / (seen.lr or 1.0) + self.eps
        limit = new["power"].pow(1 / self.alpha) / weight
        return seen.values * (limit / size).clamp(max=1.0), new


class ACClipLearnsFromTheUpdate(ACClip):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        update = Elements(seen.values, step=seen.step, grad=seen.values, lr=seen.lr)
        return super().transform(update, memory)


class ACClipForgetsTheRoot(ACClip):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        _, new = super().transform(seen, memory)
        size = seen.values.abs() / (seen.lr or 1.0) + self.eps
        return seen.values * (new["power"] / size).clamp(max=1.0), new


class ACClipLooksBack(ACClip):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        _, new = super().transform(seen, memory)
        size = seen.values.abs() / (seen.lr or 1.0) + self.eps
        limit = memory["power"].pow(1 / self.alpha)
        return seen.values * (limit / size).clamp(max=1.0), new


# -- power ----------------------------------------------------------------------------------------

_ANY = np.concatenate(
    [_draws(5, 3, 2, 7), np.array([[[0.0, -0.0, 1.0, -1.0, 4.0, 1e-9, -1e9]]] * 3)], 1
)
_POWER: list[Case] = [
    Case(
        "by hand", {"p": 0.5}, outputs(np.array([[4.0, -9.0, 0.0]])), np.array([[2.0, -3.0, 0.0]])
    ),
    Case("defaults", {}, outputs(_ANY), np.sign(_ANY) * np.abs(_ANY) ** 1.2),
    Case("identity", {"p": 1.0}, outputs(_ANY), _ANY.copy(), rtol=0, atol=0),
]


class PowerLosesTheSign(Power):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return super().transform(seen, memory)[0].abs(), {}


class PowerTakesTheRoot(Power):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return torch.copysign(seen.values.abs().pow(1 / self.p), seen.values), {}


class PowerMultiplies(Power):
    """The size once too often: g·|g|^p."""

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return seen.values * seen.values.abs().pow(self.p), {}


# -- spectral -------------------------------------------------------------------------------------


def _spectral(values: Array, tau: float) -> Array:
    made = values.copy()
    for index in np.ndindex(values.shape[:-2]):
        u, s, vt = np.linalg.svd(values[index], full_matrices=False)
        made[index] = u @ np.diag(np.minimum(s, tau)) @ vt
    return made


_TALL, _WIDE = _draws(6, 2, 2, 6, 3), _draws(7, 2, 3, 4)
_TURN = np.array([[0.6, -0.8], [0.8, 0.6]])
_SPECTRAL: list[Case] = [
    Case(
        "by hand",
        {"threshold": 1.0},
        # a turned diag(3, .5), and one of rank 1
        outputs(np.stack([_TURN @ np.diag([3.0, 0.5]), [[3.0, 4.0], [0.0, 0.0]]])),
        np.stack([_TURN @ np.diag([1.0, 0.5]), [[0.6, 0.8], [0.0, 0.0]]]),
    ),
    Case("tall", {"threshold": 2.0}, outputs(_TALL), _spectral(_TALL, 2.0)),
    Case("wide", {}, outputs(_WIDE), _spectral(_WIDE, 1.0)),
    Case("within", {"threshold": 50.0}, outputs(_WIDE), _WIDE.copy(), rtol=0, atol=0),
    Case("zero", {}, outputs(np.zeros((1, 2, 3))), np.zeros((1, 2, 3)), rtol=0, atol=0),
]


def _decomposed(values: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    u, s, vt = torch.linalg.svd(values, full_matrices=False)
    return (u * change(s).unsqueeze(-2)) @ vt


class SpectralScales(Spectral):
    """Every singular value shrunk by the same factor."""

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        top = torch.linalg.matrix_norm(seen.values, 2, keepdim=True)
        return seen.values * torch.fmin(self.threshold / top, torch.ones_like(top)), {}


class SpectralEvens(Spectral):
    """Every singular value at the threshold, as Muon does."""

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return _decomposed(seen.values, lambda s: torch.full_like(s, self.threshold)), {}


class SpectralFromBelow(Spectral):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return _decomposed(seen.values, lambda s: s.clamp(min=self.threshold)), {}


class SpectralByFrobenius(Spectral):
    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        norm = torch.linalg.matrix_norm(seen.values, keepdim=True)
        return torch.where(
            norm > self.threshold, seen.values * self.threshold / norm, seen.values
        ), {}


CASES: dict[str, list[Case]] = {
    "spam": _SPAM,
    "stable_spam": _STABLE,
    "clippy": _CLIPPY,
    "cclip": _CCLIP,
    "acclip": _ACCLIP,
    "power": _POWER,
    "spectral": _SPECTRAL,
}
MUTANTS: dict[str, list[type[Any]]] = {
    "spam": [
        SpamNeverLearns,
        SpamLearnsTheSpike,
        SpamCorrectsTheBias,
        SpamLosesTheSign,
        SpamFreezes,
        SpamStartsLate,
        SpamHasNoWarmup,
        SpamAveragesTheTensor,
    ],
    "stable_spam": [
        StableSpamForgetsTheBias,
        StableSpamNeverLearns,
        StableSpamLooksBack,
        StableSpamMixesRuns,
        StableSpamClamps,
        StableSpamSkipsTheElements,
        StableSpamAveragesNorms,
    ],
    "clippy": [
        ClippyByTheLargest,
        ClippyByElement,
        ClippyGrows,
        ClippyOverAllRuns,
        ClippyAfterTheStep,
    ],
    "cclip": [CClipIgnoresTheRate, CClipLosesTheSign, CClipByNorm, CClipWithoutEps],
    "acclip": [
        ACClipNeverLearns,
        ACClipCorrectsTheBias,
        ACClipLearnsFromTheUpdate,
        ACClipForgetsTheRoot,
        ACClipLooksBack,
    ],
    "power": [PowerLosesTheSign, PowerTakesTheRoot, PowerMultiplies],
    "spectral": [SpectralScales, SpectralEvens, SpectralFromBelow, SpectralByFrobenius],
}
