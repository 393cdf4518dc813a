"""Golden numbers of the strategies that follow past norms.

The references are loops over plain numbers, one group at a time unless the groups depend on one
another, written from the equations. A NaN stands for a norm that says nothing: a step whose
gradient is not finite, or a group that has not appeared yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gclip
from gclip import Band, Limit, Memory, Seen
from gclip.core import ema, window
from gclip.core.quantile import push, quantile
from gclip.strategies.adagc import AdaGC
from gclip.strategies.adanorm import AdaNorm
from gclip.strategies.aggc import AGGC
from gclip.strategies.ema_ratio import EMARatio
from gclip.strategies.lognormal_skip import LogNormalSkip
from gclip.strategies.median_window import MedianWindow
from gclip.strategies.past_quantile import PastQuantile
from gclip.strategies.percentile import Percentile
from gclip.strategies.quantile_tracking import QuantileTracking
from gclip.strategies.ratio_skip import RatioSkip
from gclip.strategies.sigma_skip import SigmaSkip
from gclip.strategies.zclip import ZClip
from tests.golden.cases import Array, Case, clipped_norms, limits

NORMS = [1.0, 2.0, 3.0, 2.0, 2.0, 10.0, 2.0, 2.0, 0.5]
NAN = math.nan
INF = math.inf
One = Callable[[list[float]], list[float]]


def _drifting(steps: int, seed: int, groups: int = 3) -> Array:
    """Norms around a drifting level with spikes; of three groups one has a bad step and one,
    the last, appears late."""
    random = np.random.default_rng(seed)
    norms = np.exp(random.normal(0, 0.4, (steps, groups)) - np.linspace(0, 1, steps)[:, None])
    norms *= [0.5, 1.0, 4.0][:groups]
    norms[random.random((steps, groups)) < 0.08] *= 15
    if groups == 3:
        norms[steps // 2, 1] = NAN
        norms[:7, 2] = NAN
    return norms


LONG = _drifting(90, seed=1)
SHORT = _drifting(40, seed=2)


def _by_group(one: One, norms: Array = LONG) -> Array:
    """The reference `one`, of a single group's norms, on each group by itself."""
    return np.stack([one([float(n) for n in column]) for column in norms.T], axis=1)


def _case(label: str, want: Array, norms: Any = LONG, **fields: object) -> Case:
    return Case(label, fields, clipped_norms(norms), want)


# -- percentile ------------------------------------------------------------------------------


def _percentile(p: float, window: int | None = None) -> One:
    def one(norms: list[float]) -> list[float]:
        past: list[float] = []
        left = []
        for n in norms:
            if math.isnan(n):
                left.append(NAN)
                continue
            past.append(n)
            left.append(min(n, float(np.percentile(past[-window:] if window else past, p))))
        return left

    return one


class _PercentileOfPast(Percentile):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return quantile(memory["past"], q=self.p / 100)


class _PercentileOfClipped(Percentile):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"past": push(memory["past"], clipped_norm, seen.valid)}


class _PercentileForgetsValid(Percentile):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"past": push(memory["past"], seen.norm.nan_to_num(0.0), None)}


PERCENTILE = [
    Case("published p50", {"p": 50}, limits(NORMS), np.array([1, 1.5, 2, 2, 2, 2, 2, 2, 2])),
    Case("published p10", {}, limits(NORMS), np.array([1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 0.9])),
    _case("all past norms", _by_group(_percentile(30)), p=30),
    _case("window", _by_group(_percentile(75, 12)), p=75, window=12),
]


# -- zclip -----------------------------------------------------------------------------------


def _zclip(
    mode: str = "adaptive",
    z_most: float = 2.5,
    warmup: int = 25,
    decay: float = 0.97,
    cap: float = INF,
) -> One:
    def one(norms: list[float]) -> list[float]:
        collected: list[float] = []
        mean = var = 0.0
        left = []
        for n in norms:
            if math.isnan(n):
                left.append(NAN)
                continue
            if n == 0:
                left.append(0.0)
                continue
            if len(collected) < warmup:
                collected.append(n)
                mean, var = float(np.mean(collected)), float(np.var(collected))
                left.append(min(n, cap))
                continue
            std = math.sqrt(var)
            z = (n - mean) / (std + 1e-6)
            c = n
            if z > z_most:
                c = {
                    "adaptive": mean + z_most * std / (z / z_most),
                    "mean": mean,
                    "cap": mean + z_most * std,
                }[mode]
            left.append(min(c, cap))
            mean = decay * mean + (1 - decay) * c
            var = decay * var + (1 - decay) * (c - mean) ** 2
        return left

    return one


def _zclip_after_spike(strategy: gclip.Strategy) -> Array:
    """What the published numbers say of the 10: the norm left, then the mean and the variance."""
    memory = strategy.remember(torch.zeros(1, dtype=torch.float64))
    left = torch.zeros(1)
    for norm in NORMS[:6]:
        seen = Seen(torch.tensor([norm], dtype=torch.float64))
        left = torch.minimum(seen.norm, torch.as_tensor(strategy.limit(seen, memory)))
        memory = {**memory, **strategy.learn(seen, left, memory)}
    return np.array([float(left), float(memory["mean"]), float(memory["var"])])


class _ZClipOfRaw(ZClip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        raw = gclip.create("zclip", z_threshold=1e9, mode="cap", warmup=self.warmup)
        return raw.learn(seen, clipped_norm, memory)


class _ZClipSampleVariance(ZClip):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        wide = memory["var"] * (self.warmup / max(self.warmup - 1, 1))
        bound: Tensor = super().limit(seen, {**memory, "var": wide})
        return bound


class _ZClipOldMean(ZClip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        new = super().learn(seen, clipped_norm, memory)
        ready = memory["count"] >= self.warmup
        left = torch.minimum(seen.norm, self._by_score(seen.norm, memory))
        away = (left - memory["mean"]).square()
        var = torch.lerp(away, memory["var"], self.decay)
        return {**new, "var": torch.where(ready, var, new["var"])}


class _ZClipCountsHostSteps(ZClip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        new = super().learn(seen, clipped_norm, memory)
        return {**new, "count": torch.full_like(new["count"], min(seen.step + 1, self.warmup))}


class _ZClipFedWithCapped(ZClip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return super().learn(Seen(clipped_norm, step=seen.step), clipped_norm, memory)


PUBLISHED = {"warmup": 3, "max_norm": None}
ZCLIP = [
    Case(
        "published spike",
        PUBLISHED,
        _zclip_after_spike,
        np.array([2.490052, 2.014702, 0.615227]),
        rtol=1e-6,
    ),
    Case(
        "published mean",
        {**PUBLISHED, "mode": "mean"},
        lambda strategy: _zclip_after_spike(strategy)[:1],
        np.array([2.0]),
    ),
    Case(
        "published cap",
        {**PUBLISHED, "mode": "cap"},
        lambda strategy: _zclip_after_spike(strategy)[:1],
        np.array([3.980004]),
        rtol=1e-6,
    ),
    _case("defaults", _by_group(_zclip(cap=1.0))),
    _case("no cap", _by_group(_zclip()), max_norm=None),
    _case(
        "mean",
        _by_group(_zclip("mean", 2.0, 10, 0.9)),
        mode="mean", z_threshold=2, warmup=10, decay=0.9, max_norm=None,
    ),
    _case("cap", _by_group(_zclip("cap", warmup=5)), mode="cap", warmup=5, max_norm=None),
    _case(
        "zero norms first",
        np.array(_zclip(warmup=2)([0.0] * 5 + [1.0, 1.2, 1.1, 0.0, 9.0])),
        [0.0] * 5 + [1.0, 1.2, 1.1, 0.0, 9.0],
        warmup=2, max_norm=None,
    ),
]  # fmt: skip


# -- adagc -----------------------------------------------------------------------------------


def _adagc(
    norms: Array, rel: float = 1.05, most: float = 1.0, warmup: int = 100, beta: float = 0.98
) -> Array:
    level = [INF] * norms.shape[1]
    count = [0] * norms.shape[1]
    left = np.full_like(norms, NAN)
    for t, row in enumerate(norms):
        whole = math.sqrt(float(sum(n * n for n in row)))  # NaN where a group's norm is
        for i, n in enumerate(row):
            warming = count[i] < warmup
            if warming:
                left[t, i] = n * most / whole if whole > most else n
            else:
                left[t, i] = min(1.0, rel * level[i] / n) * n if n > 0 else n
            if math.isnan(n) or n == 0:
                continue
            count[i] += 1
            if warming or math.isinf(level[i]):
                level[i] = min(level[i], left[t, i])
            else:
                level[i] = beta * level[i] + (1 - beta) * left[t, i]
    return left


class _AdaGCOfSquares(AdaGC):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return super().learn(seen, clipped_norm.square(), memory)


class _AdaGCOfRaw(AdaGC):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return super().learn(seen, seen.norm, memory)


class _AdaGCWarmsUpByTensor(AdaGC):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        warming = memory["count"] < self.warmup
        return torch.where(warming, self.absolute, self.relative * memory["level"])


class _AdaGCAverageFromTheStart(AdaGC):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        new = super().learn(seen, clipped_norm, memory)
        old = memory["level"]
        mean = torch.lerp(clipped_norm, old, self.decay)
        return {**new, "level": torch.where(old.isinf(), clipped_norm, mean)}


class _AdaGCCountsHostSteps(AdaGC):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        steps = torch.full_like(memory["count"], seen.step)
        bound: Tensor = super().limit(seen, {**memory, "count": steps})
        return bound


QUIET = np.array([[0.0, 1.0], [0.3, 0.4], [0.5, 0.0], [0.4, 0.9], [2.0, 0.4], [0.4, 3.0]])
ADAGC = [
    Case(
        "by hand",
        {"warmup": 2, "relative": 2.0, "decay": 0.5},
        # Global norms 5 and .5: factors .2 and 1, so that γ = (.3, .4); then limits (.6, .8).
        # γ = (.45, .4) after the third step: limits (.9, .8).
        clipped_norms(np.array([[3.0, 4.0], [0.3, 0.4], [5.0, 0.4], [0.8, 9.0]])),
        np.array([[0.6, 0.8], [0.3, 0.4], [0.6, 0.4], [0.8, 0.8]]),
    ),
    _case("short warm-up", _adagc(LONG, warmup=20), warmup=20),
    _case(
        "other settings",
        _adagc(SHORT, rel=1.5, most=3.0, warmup=6, beta=0.8),
        SHORT,
        relative=1.5, absolute=3.0, warmup=6, decay=0.8,
    ),
    _case("no warm-up", _adagc(SHORT, warmup=0), SHORT, warmup=0),
    _case("defaults", _adagc(_drifting(130, seed=3)), _drifting(130, seed=3)),
    _case("zero norms", _adagc(QUIET, warmup=3), QUIET, warmup=3),
]  # fmt: skip


# -- ema_ratio -------------------------------------------------------------------------------


def _ema_ratio(ratio: float = 2.0, decay: float = 0.95) -> One:
    def one(norms: list[float]) -> list[float]:
        mean: float | None = None
        left = []
        for n in norms:
            if math.isnan(n) or n == 0:
                left.append(n)
                continue
            if mean is None:
                mean = n
            left.append(min(n, ratio * mean))
            mean = decay * mean + (1 - decay) * left[-1]
        return left

    return one


class _EMARatioOfRaw(EMARatio):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return super().learn(seen, seen.norm, memory)


class _EMARatioNeverLearns(EMARatio):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        first = memory["mean"].isinf()
        return {"mean": torch.where(first, clipped_norm, memory["mean"])}


class _EMARatioCorrected(EMARatio):
    def remember(self, like: Tensor) -> Memory:
        return {"average": ema.empty(like)}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self.ratio * ema.mean(memory["average"])

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"average": ema.push(memory["average"], clipped_norm, self.decay, seen.valid)}


EMA_RATIO = [
    Case(
        "by hand",
        {"decay": 0.5},
        clipped_norms([1.0, 5.0, 2.0, 9.0]),  # means 1, 1.5, 1.75: limits 2, 3, 3.5
        np.array([1, 2, 2, 3.5]),
    ),
    _case("defaults", _by_group(_ema_ratio())),
    _case("other settings", _by_group(_ema_ratio(1.3, 0.8)), ratio=1.3, decay=0.8),
    _case(
        "zero norms",
        np.array(_ema_ratio()([0.0, 0.0, 1.0, 0.0, 9.0])),
        [0.0, 0.0, 1.0, 0.0, 9.0],
    ),
]


# -- quantile_tracking -----------------------------------------------------------------------


def _tracking(
    update: str = "geometric",
    eta: float = 0.2,
    gamma: float = 0.5,
    start: float = 1.0,
    lowest: float = 1e-8,
    highest: float = 1e8,
) -> One:
    def one(norms: list[float]) -> list[float]:
        c = start
        left = []
        for n in norms:
            left.append(NAN if math.isnan(n) else min(n, c))
            if math.isnan(n):
                continue
            b = 1.0 if n <= c else 0.0
            c = c * math.exp(-eta * (b - gamma)) if update == "geometric" else c - eta * (b - gamma)
            c = min(max(c, lowest), highest)
        return left

    return one


class _TrackingOfClipped(QuantileTracking):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return super().learn(Seen(clipped_norm), clipped_norm, memory)


class _TrackingTheWrongWay(QuantileTracking):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        new = super().learn(seen, clipped_norm, memory)["limit"]
        old = memory["limit"]
        return {"limit": old * old / new if self.update == "geometric" else 2 * old - new}


class _TrackingBeforeClipping(QuantileTracking):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        bound: Tensor = self.learn(seen, seen.norm, memory)["limit"]
        return bound


QUANTILE_TRACKING = [
    Case(
        "published update",
        {"eta": 0.2, "quantile": 0.5},
        limits([2.0, 2.0, 0.5]),
        np.exp([0.0, 0.1, 0.2]),
    ),
    _case("geometric", _by_group(_tracking())),
    _case(
        "another quantile", _by_group(_tracking(eta=0.5, gamma=0.8, start=3)),
        eta=0.5, quantile=0.8, start=3,
    ),
    _case("arithmetic", _by_group(_tracking("arithmetic", 0.1)), update="arithmetic", eta=0.1),
    _case(
        "bounds",
        _by_group(_tracking(eta=1.0, lowest=0.7, highest=1.2)),
        eta=1.0, lowest=0.7, highest=1.2,
    ),
]  # fmt: skip


# -- past_quantile ---------------------------------------------------------------------------


def _past_quantile(q: float = 0.9, window: int = 1000) -> One:
    def one(norms: list[float]) -> list[float]:
        past: list[float] = []
        left = []
        for n in norms:
            if math.isnan(n):
                left.append(NAN)
                continue
            left.append(min(n, float(np.quantile(past[-window:], q))) if past else n)
            past.append(n)
        return left

    return one


class _PastQuantileWithCurrent(PastQuantile):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return quantile(memory["past"], extra=seen.norm, q=self.q)


class _PastQuantileOfClipped(PastQuantile):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"past": push(memory["past"], clipped_norm, seen.valid)}


PAST_QUANTILE = [
    Case(
        "by hand",
        {"q": 0.5},
        limits([1.0, 3.0, 2.0, 9.0]),
        np.array([INF, 1, 2, 2]),
    ),
    _case("defaults", _by_group(_past_quantile())),
    _case("window", _by_group(_past_quantile(0.4, 9)), q=0.4, window=9),
]


# -- median_window ---------------------------------------------------------------------------


def _median_window(scale: float = 2.0, window: int = 100) -> One:
    def one(norms: list[float]) -> list[float]:
        past: list[float] = []
        first, c = True, INF
        left = []
        for n in norms:
            if math.isnan(n):
                left.append(NAN)
                continue
            if first:
                first = False
                left.append(n)
                continue
            past.append(n)
            k = len(past)
            early = k in (10, 20, 40) and k < window
            if early or k % window == 0:
                last = sorted(past[-window:])
                c = scale * last[2 * (len(last) // 4)] * (2 if early else 1)
            left.append(min(n, c))
        return left

    return one


class _MedianEveryStep(MedianWindow):
    def _updated(self, past: Any, seen: Seen, memory: Memory) -> Tensor:
        held = window.count(past).unsqueeze(-1)
        slots = torch.arange(self.window)
        values = torch.where(slots < held, past["values"], INF).sort(dim=-1).values
        return self.scale * values.gather(-1, 2 * (held // 4)).squeeze(-1)


class _MedianNotDoubled(MedianWindow):
    def _updated(self, past: Any, seen: Seen, memory: Memory) -> Tensor:
        new: Tensor = super()._updated(past, seen, memory)
        young = past["count"] < self.window
        return torch.where(young & (new != memory["limit"]), new / 2, new)


class _MedianCountsTheFirst(MedianWindow):
    def _updated(self, past: Any, seen: Seen, memory: Memory) -> Tensor:
        late: Tensor = super()._updated({**past, "count": past["count"] + 1}, seen, memory)
        return late


class _MedianOfClipped(MedianWindow):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return super().learn(Seen(clipped_norm, valid=seen.valid), clipped_norm, memory)


class _MedianWithoutCurrent(MedianWindow):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        bound: Tensor = memory["limit"]
        return bound


RISING = np.exp(np.arange(60) / 4)[:, None]
VERY_LONG = _drifting(230, seed=4)
MEDIAN_WINDOW = [
    Case(
        "by hand",
        {"window": 4, "scale": 3.0},
        # The first is left out; then at every fourth, counting it in: 3 times the third of the
        # sorted four, 1, 2, 3, 8 and 1, 5, 7, 9.
        limits([4.0, 1.0, 3.0, 2.0, 8.0, 7.0, 9.0, 1.0, 5.0]),
        np.array([INF, INF, INF, INF, 9, 9, 9, 9, 21]),
    ),
    Case(
        "the first limit by hand",
        {},
        # After the first, ten norms from 1 to 10: 2·2 times the fifth of them.
        limits([0.5, 3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 10.0, 8.0, 9.0, 7.0, 50.0]),
        np.array([INF] * 10 + [20.0, 20.0]),
    ),
    _case("defaults", _by_group(_median_window(), VERY_LONG), VERY_LONG),
    # Every norm is beyond the limit, which must not hold the median down.
    _case("rising norms", _by_group(_median_window(1.0, 8), RISING), RISING, scale=1.0, window=8),
    _case("window 30", _by_group(_median_window(1.2, 30)), scale=1.2, window=30),
    _case("window 20", _by_group(_median_window(1.5, 20)), scale=1.5, window=20),
]


# -- the three that skip ---------------------------------------------------------------------


def _skipped(norms: Array, bound: Callable[[list[float]], float], keep: str = "all") -> Array:
    """Skip the steps in which a group is beyond `bound` of the norms it keeps: ``all`` of them,
    only those of ``accepted`` steps, or as much of them as is within (``capped``)."""
    past: list[list[float]] = [[] for _ in norms.T]
    left = np.array(norms)
    for t, row in enumerate(norms):
        caps = [bound(kept) for kept in past]
        skip = any(n > c for n, c in zip(row, caps, strict=True))
        left[t] = row * 0 if skip else row
        for kept, n, c in zip(past, row, caps, strict=True):
            if math.isnan(n) or (n == 0 and keep != "all") or (skip and keep == "accepted"):
                continue
            kept.append(min(n, c) if keep == "capped" else n)
    return left


def _weights(count: int, decay: float) -> Array:
    return (1 - decay) * decay ** np.arange(count)[::-1]


def _lognormal(k: float = 4.0, decay: float = 0.995, ready: float = 0.75) -> Callable[..., float]:
    def bound(past: list[float]) -> float:
        weights = _weights(len(past), decay)
        if weights.sum() <= ready or not past:
            return INF
        logs = np.log(past)
        mean = np.average(logs, weights=weights)
        std = math.sqrt(np.average((logs - mean) ** 2, weights=weights))
        return math.exp(mean + k * max(std, 1e-3))

    return bound


class _LogNormalOfRaw(LogNormalSkip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        wide = gclip.create("lognormal_skip", sigmas=1e9, decay=self.decay)
        return wide.learn(seen, clipped_norm, memory)


class _LogNormalUncorrected(LogNormalSkip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        full = {**memory, "weight": torch.ones_like(memory["weight"])}
        new = super().learn(seen, clipped_norm, full)
        weight = self.decay * memory["weight"] + (1 - self.decay)
        return {**new, "weight": weight}


class _LogNormalWithCurrent(LogNormalSkip):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        bound: Tensor = super().limit(seen, {**memory, **self.learn(seen, seen.norm, memory)})
        return bound


class _LinearScale(LogNormalSkip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return super().learn(Seen(seen.norm.exp()), clipped_norm, memory)

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        bound: Tensor = super().limit(seen, memory).log()
        return bound


CALM = _drifting(320, seed=5)
CALM[300, 0] = 1e3  # after ln 4 / 0.005 = 277 steps the defaults bind
FAST = {"decay": 0.9, "sigmas": 2.0}
LOGNORMAL_SKIP = [
    _case("defaults", _skipped(CALM, _lognormal(), "capped"), CALM),
    _case("soon", _skipped(LONG, _lognormal(2.0, 0.9), "capped"), **FAST),
    _case(
        "at once", _skipped(SHORT, _lognormal(3.0, 0.95, 0.0), "capped"), SHORT,
        sigmas=3.0, decay=0.95, ready=0.0,
    ),
    _case(
        "one group",
        _skipped(LONG[:, :1], _lognormal(2.0, 0.9), "capped"), LONG[:, :1], **FAST,
    ),
    _case(
        "zero norms",
        _skipped(np.array([[0.0], [1.0], [1.1], [0.0], [0.9], [50.0], [1.0]]),
                 _lognormal(4.0, 0.5, 0.6), "capped"),
        np.array([[0.0], [1.0], [1.1], [0.0], [0.9], [50.0], [1.0]]), decay=0.5, ready=0.6,
    ),
    Case(
        "limit by hand",
        {"decay": 0.5, "ready": 0.5, "sigmas": 2.0},
        # log norms 0 and 3 with the weights 1/3 and 2/3: mean 2, variance 2.
        lambda strategy: limits([1.0, math.exp(3), 1.0])(strategy)[2:],
        np.array([math.exp(2 + 2 * math.sqrt(2))]),
    ),
]  # fmt: skip


def _sigma(k: float = 6.0, window: int = 128, start: int = 63) -> Callable[..., float]:
    def bound(past: list[float]) -> float:
        last = past[-window:]
        return float(np.mean(last) + k * np.std(last, ddof=1)) if len(last) >= start else INF

    return bound


class _SigmaOfPopulation(SigmaSkip):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        past = memory["past"]
        bound = window.mean(past) + self.sigmas * window.deviation(past)
        return torch.where(window.count(past) >= self.start, bound, INF)


class _SigmaWithCurrent(SigmaSkip):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        bound: Tensor = super().limit(seen, self.learn(seen, seen.norm, memory))
        return bound


class _SigmaOfAccepted(SigmaSkip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        valid = clipped_norm > 0
        return {"past": window.push(memory["past"], seen.norm, valid)}


class _SigmaStartsAtOnce(SigmaSkip):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        past = memory["past"]
        bound = window.mean(past) + self.sigmas * window.deviation(past, correction=1)
        return torch.where(window.count(past) >= 2, bound, INF)


class _SigmaStartsLate(SigmaSkip):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        bound: Tensor = super().limit(seen, memory)
        return torch.where(window.count(memory["past"]) > self.start, bound, INF)


SWINGING = [1.0, 3.0] * 32
SIGMA_SKIP = [
    Case(
        "the 64th norm is the first that is held to a limit",
        {},
        limits(SWINGING),
        # Of 32 ones and 31 threes: mean 125/63, squares of 32·31/63·2² about it.
        np.array([INF] * 63 + [125 / 63 + 6 * math.sqrt(32 * 31 / 63 * 4 / 62)]),
    ),
    _case("defaults", _skipped(VERY_LONG, _sigma()), VERY_LONG),
    _case("small window", _skipped(LONG, _sigma(2.0, 16, 8)), sigmas=2.0, window=16, start=8),
    Case(
        "limit by hand",
        {"sigmas": 2.0, "window": 3, "start": 3},
        # Of 1, 2, 6: mean 3, sample variance 7; then of 2, 6, 1 the same.
        limits([1.0, 2.0, 6.0, 1.0, 7.0]),
        np.array([INF, INF, INF, 3 + 2 * math.sqrt(7), 3 + 2 * math.sqrt(7)]),
    ),
]


def _ratio(k: float = 20.0, decay: float = 0.99) -> Callable[..., float]:
    def bound(past: list[float]) -> float:
        return k * float(np.average(past, weights=_weights(len(past), decay))) if past else INF

    return bound


class _RatioOfAll(RatioSkip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"mean": ema.push(memory["mean"], seen.norm, self.decay, seen.valid)}


class _RatioGroupByGroup(RatioSkip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return RatioSkip.learn(replace(self, rule="scale"), seen, clipped_norm, memory)


class _RatioOfTotal(RatioSkip):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        mean = memory["mean"]
        return self.ratio * torch.where(mean["weight"] > 0, mean["sum"], INF)


class _RatioNotCorrected(RatioSkip):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        new = super().learn(seen, clipped_norm, memory)["mean"]
        first = (memory["mean"]["weight"] == 0) & (new["weight"] > 0)
        start = torch.where(first, new["sum"] / (1 - self.decay), new["sum"])
        return {"mean": {"sum": start, "weight": (new["weight"] > 0).to(start.dtype)}}


ZEROS = np.array([[0.0], [0.0], [1.0], [0.0], [2.0], [9.0], [3.0]])
RATIO_SKIP = [
    _case("defaults", _skipped(VERY_LONG * 2, _ratio(), "accepted"), VERY_LONG * 2),
    _case("small ratio", _skipped(LONG, _ratio(4.0, 0.9), "accepted"), ratio=4.0, decay=0.9),
    _case("one group", _skipped(SHORT[:, :1], _ratio(3.0), "accepted"), SHORT[:, :1], ratio=3.0),
    _case("zero norms", _skipped(ZEROS, _ratio(3.0), "accepted"), ZEROS, ratio=3.0),
    Case(
        "by hand",
        {"ratio": 3.0, "decay": 0.5},
        # Means 1, then (1 + 2·2)/3 = 5/3 (limit 5); the 6 is skipped and leaves the mean alone.
        clipped_norms([1.0, 2.0, 6.0, 5.0]),
        np.array([1.0, 2.0, 0.0, 5.0]),
    ),
    Case(
        "one group stops all",
        {"ratio": 3.0, "decay": 0.5},
        # The first group's 6 stops the step, so that the second's 2 does not enter: its limit
        # stays 3, and the 4 stops the next.
        clipped_norms(np.array([[1.0, 1.0], [6.0, 2.0], [1.0, 4.0], [2.0, 3.0]])),
        np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [2.0, 3.0]]),
    ),
    Case(
        "warm-up accepts all",
        {"ratio": 2.0, "decay": 0.5, "warmup": 2},
        # The 4 counts, though beyond twice the mean: mean (1 + 2·4)/3 = 3, limit 6.
        clipped_norms([1.0, 4.0, 5.0, 20.0]),
        np.array([1.0, 4.0, 5.0, 0.0]),
    ),
]


# -- aggc ------------------------------------------------------------------------------------


def _aggc(
    high: float = 1.0,
    low: float = 0.0,
    floor: float = 0.9,
    most: float = 1.1,
    beta: float = 0.98,
) -> One:
    def one(norms: list[float]) -> list[float]:
        mean: float | None = None
        left = []
        for n in norms:
            if math.isnan(n) or n == 0:
                left.append(n)
                continue
            factor = 1.0
            if mean is not None and n > high * mean:
                factor = max(high * mean / n, floor)
            elif mean is not None and n < low * mean:
                factor = min(low * mean / n, most)
            left.append(n * factor)
            mean = left[-1] if mean is None else beta * mean + (1 - beta) * left[-1]
        return left

    return one


class _AGGCOfRaw(AGGC):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return super().learn(seen, seen.norm, memory)


class _AGGCFromZero(AGGC):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        mean = memory["mean"]
        old = torch.where(mean.isinf(), 0.0, mean)
        return {"mean": torch.lerp(clipped_norm, old, self.decay)}


class _AGGCUnlimitedUp(AGGC):
    def limit(self, seen: Seen, memory: Memory) -> Limit:
        band = super().limit(seen, memory)
        if not isinstance(band, Band):
            return band
        mean = memory["mean"]
        return band._replace(low=self.low * torch.where(mean.isinf(), 0.0, mean))


class _AGGCAlwaysUp(AGGC):
    def limit(self, seen: Seen, memory: Memory) -> Limit:
        mean = memory["mean"]
        low = self.low * torch.where(mean.isinf(), 0.0, mean)
        return Band(torch.minimum(low, self.most * seen.norm), self.high * mean)


AGGC_CASES = [
    Case(
        "by hand",
        {"floor": 0, "decay": 0.5, "high": 2.0, "low": 0.5, "scale_up": True, "most": 3.0},
        # S: 1, 1.5, 1.125 …; 4 is cut to 2, .1 raised threefold only, .4 to half of S.
        clipped_norms([1.0, 4.0, 0.75, 0.1, 0.35]),
        np.array([1.0, 2.0, 0.75, 0.3, 0.35625]),
    ),
    _case("defaults", _by_group(_aggc())),
    _case("no floor", _by_group(_aggc(1.3, floor=0.0)), high=1.3, floor=0),
    _case(
        "band",
        _by_group(_aggc(1.5, 0.8, 0.5, 1.4, 0.9)),
        high=1.5, low=0.8, floor=0.5, most=1.4, decay=0.9, scale_up=True,
    ),
    _case(
        "zero norms",
        np.array(_aggc(floor=0.0)([0.0, 1.0, 0.0, 9.0])),
        [0.0, 1.0, 0.0, 9.0],
        floor=0, scale_up=True,
    ),
]  # fmt: skip


# -- adanorm ---------------------------------------------------------------------------------


def _adanorm(gamma: float = 0.95) -> One:
    def one(norms: list[float]) -> list[float]:
        e = 0.0
        left = []
        for n in norms:
            if math.isnan(n):
                left.append(NAN)
                continue
            e = gamma * e + (1 - gamma) * n
            left.append(max(n, e) if n > 0 else 0.0)
        return left

    return one


class _AdaNormNeverLearns(AdaNorm):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {}


class _AdaNormOfRaised(AdaNorm):
    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"mean": torch.lerp(clipped_norm, memory["mean"], self.decay)}


class _AdaNormWithoutCurrent(AdaNorm):
    def limit(self, seen: Seen, memory: Memory) -> Band:
        return Band(memory["mean"], INF)


class _AdaNormScalesDown(AdaNorm):
    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        return self._average(seen, memory)


ADANORM = [
    Case(
        "by hand",
        {"decay": 0.5},
        clipped_norms([4.0, 1.0, 0.0, 8.0]),  # e: 2, 1.5, .75, 4.375
        np.array([4.0, 1.5, 0.0, 8.0]),
    ),
    _case("defaults", _by_group(_adanorm())),
    _case("other settings", _by_group(_adanorm(0.7)), decay=0.7),
]


CASES: dict[str, list[Case]] = {
    "percentile": PERCENTILE,
    "zclip": ZCLIP,
    "adagc": ADAGC,
    "ema_ratio": EMA_RATIO,
    "quantile_tracking": QUANTILE_TRACKING,
    "past_quantile": PAST_QUANTILE,
    "median_window": MEDIAN_WINDOW,
    "lognormal_skip": LOGNORMAL_SKIP,
    "sigma_skip": SIGMA_SKIP,
    "ratio_skip": RATIO_SKIP,
    "aggc": AGGC_CASES,
    "adanorm": ADANORM,
}

MUTANTS: dict[str, list[type]] = {
    "percentile": [_PercentileOfPast, _PercentileOfClipped, _PercentileForgetsValid],
    "zclip": [
        _ZClipOfRaw,
        _ZClipSampleVariance,
        _ZClipOldMean,
        _ZClipCountsHostSteps,
        _ZClipFedWithCapped,
    ],
    "adagc": [
        _AdaGCOfSquares,
        _AdaGCOfRaw,
        _AdaGCWarmsUpByTensor,
        _AdaGCAverageFromTheStart,
        _AdaGCCountsHostSteps,
    ],
    "ema_ratio": [_EMARatioOfRaw, _EMARatioNeverLearns, _EMARatioCorrected],
    "quantile_tracking": [_TrackingOfClipped, _TrackingTheWrongWay, _TrackingBeforeClipping],
    "past_quantile": [_PastQuantileWithCurrent, _PastQuantileOfClipped],
    "median_window": [
        _MedianEveryStep,
        _MedianNotDoubled,
        _MedianOfClipped,
        _MedianWithoutCurrent,
        _MedianCountsTheFirst,
    ],
    "lognormal_skip": [
        _LogNormalOfRaw,
        _LogNormalUncorrected,
        _LogNormalWithCurrent,
        _LinearScale,
    ],
    "sigma_skip": [
        _SigmaOfPopulation,
        _SigmaWithCurrent,
        _SigmaOfAccepted,
        _SigmaStartsAtOnce,
        _SigmaStartsLate,
    ],
    "ratio_skip": [_RatioOfAll, _RatioGroupByGroup, _RatioOfTotal, _RatioNotCorrected],
    "aggc": [_AGGCOfRaw, _AGGCFromZero, _AGGCUnlimitedUp, _AGGCAlwaysUp],
    "adanorm": [
        _AdaNormNeverLearns,
        _AdaNormOfRaised,
        _AdaNormWithoutCurrent,
        _AdaNormScalesDown,
    ],
}
