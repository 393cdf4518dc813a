"""Random clipping: clip a large gradient not always, but the more likely the larger it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from gclip import Memory, Seen, Strategy, register, setting, tunable

Bits = TypeVar("Bits", int, Tensor)


@register("random", "random_clip")
@dataclass(frozen=True, kw_only=True)
class Random(Strategy):
    """Clip at random: where n > c, to c with probability β^((c/n)^k), else not at all.

    A gradient just above c is clipped with probability β, a huge one almost surely; those at or
    under c never. k is 1 ("linear") or 2 ("quadratic"). β = 1 gives `norm`.

    Each group draws for itself, and draws the same in every process and on every device: the
    number is a hash of `seed`, of how many steps the group has taken (memory, so that a resumed run
    goes on as if it had not stopped) and of its index. Runs with the same `seed` draw the same
    numbers.

    The equation is torch-clip's (MIT): its README and its code clip with probability β^(c/n), not
    1 − β^(c/n). There the default β is 0, which never clips; its example has 0.85. There too every
    tensor draws anew for one global norm; here a group that shares a norm shares the draw.
    """

    equation = "where n > c, to c with probability β^((c/n)^k), else not at all"
    paper = "torch-clip (MIT)"
    family = "fixed limit"

    max_norm: float = tunable(1.0, low=1e-3, high=100.0, log=True, doc="norm clipped to, c")
    beta: float = tunable(
        0.85, low=0.1, high=0.99, above=0.0, at_most=1.0, doc="probability of clipping at c, β"
    )
    power: float = setting(1.0, above=0, doc="exponent k of c/n: 1 linear, 2 quadratic")
    seed: int = setting(
        0, at_least=0, below=2.0**63, doc="which sequence of random numbers is drawn"
    )

    def remember(self, like: Tensor) -> Memory:
        return {"steps": torch.zeros_like(like, dtype=torch.long)}

    def limit(self, seen: Seen, memory: Memory) -> Tensor:
        ratio = (self.max_norm / seen.norm) ** self.power
        draw = uniform(self.seed, memory["steps"]).to(ratio.dtype)
        clip = (seen.norm > self.max_norm) & (draw < torch.pow(self.beta, ratio))
        return torch.full_like(seen.norm, self.max_norm).masked_fill(~clip, math.inf)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"steps": memory["steps"] + 1}


def uniform(seed: int, steps: Tensor) -> Tensor:
    """One number in [0, 1) for each group: `steps` int64 ``(…, groups)``, the number alike.

    Multiples of 2⁻²⁴ in float32, hence exact on every device.
    """
    groups = torch.arange(steps.shape[-1], device=steps.device)
    # 0 is the one number that `mix` leaves alone, and the constant keeps seed 0 away from it.
    key = mix((seed & 0xFFFFFFFF) ^ mix((seed >> 32) ^ 0x9E3779B9))
    bits = mix(mix((steps & 0xFFFFFFFF) ^ key) ^ groups)
    return (bits >> 8).float() * 2.0**-24


def mix(bits: Bits) -> Bits:
    """A permutation of the numbers below 2³² under which every bit depends on every other.

    After Wellons (2018), Prospecting for hash functions. Both factors are below 2³¹, so that no
    product overflows int64.
    """
    bits = ((bits ^ (bits >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    bits = ((bits ^ (bits >> 15)) * 0x735A2D97) & 0xFFFFFFFF
    return bits ^ (bits >> 15)
