"""Strategies that each break one promise of the contract, and what they are otherwise: correct.

A plugin file: another process imports it to make the same steps.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from gclip import Elements, Memory, Scope, Seen, Strategy, Transform, setting, tunable
from gclip.core import ema


@dataclass(frozen=True, kw_only=True)
class Sound(Strategy):
    """Keeps every promise: ‖g‖ ≤ c."""

    max_norm: float = tunable(1.0, low=1e-3, high=100.0, log=True, doc="largest norm")

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return self.max_norm


@dataclass(frozen=True, kw_only=True)
class SoundTransform(Transform):
    """Keeps every promise: halves the largest elements."""

    threshold: float = tunable(1.0, low=1e-3, high=100.0, log=True, doc="largest element")

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values = seen.values
        return torch.where(values.abs() > self.threshold, values / 2, values), {}


@dataclass(frozen=True, kw_only=True)
class SoundMemory(Sound):
    """Keeps every promise: ‖g‖ ≤ 2 · the mean norm so far."""

    def remember(self, like: Tensor) -> Memory:
        return {"mean": ema.empty(like)}

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return 2 * self.max_norm * ema.mean(memory["mean"])

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"mean": ema.push(memory["mean"], clipped_norm, 0.9, self.counts(seen))}

    def counts(self, seen: Seen) -> Tensor | None:
        return seen.valid


@dataclass(frozen=True, kw_only=True)
class Undocumented(Sound):
    """A field says nothing about itself."""

    other: float = setting(1.0)


@dataclass(frozen=True, kw_only=True)
class OutsideItsRange(Sound):
    """A study that searches the range never finds the default."""

    max_norm: float = tunable(1000.0, low=1e-3, high=100.0, log=True, doc="largest norm")


@dataclass(frozen=True, kw_only=True)
class Unchecked(Sound):
    """Forgets to call the base class."""

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class RefusesItsRange(Sound):
    """A study tries what it refuses."""

    def validate(self) -> None:
        from gclip import UsageError

        if self.max_norm > 50:
            raise UsageError(f"max_norm must be at most 50, but got {self.max_norm:g}")


@dataclass(frozen=True, kw_only=True)
class RoundsItsSpelling(Sound):
    """Two runs with different settings would have one name."""

    def __str__(self) -> str:
        value = self.max_norm if self.varying else f"{self.max_norm:.2g}"
        return f"{self.name}(max_norm={value})"


@dataclass(frozen=True, kw_only=True)
class IgnoresSchedules(Sound):
    """Does not clip where a field follows a schedule."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return math.inf if self.varying else self.max_norm


@dataclass(frozen=True, kw_only=True)
class NegativeLimit(Sound):
    """A large threshold flips the gradient's sign."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return self.max_norm if self.max_norm < 50 else 1 - self.max_norm


@dataclass(frozen=True, kw_only=True)
class Rounds(SoundTransform):
    """Multiplies by what ought to be 1."""

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return seen.values * 1.0000002, {}


@dataclass(frozen=True, kw_only=True)
class FailsWhenSoft(Sound):
    """One of the rules that it declares does not work with one of its scopes."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return -1.0 if self.rule == "soft" and self.scope == "layer" else self.max_norm


@dataclass(frozen=True, kw_only=True)
class FailsOnUpdates(Sound):
    """One scope does not work on one of the sides that it declares."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        broken = self.side == "update" and self.scope == "unit"
        return seen.norm[:0] if broken else self.max_norm


@dataclass(frozen=True, kw_only=True)
class WritesToNorms(Sound):
    """Writes to what it is given."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        seen.norm.clamp_(min=0)
        return self.max_norm


@dataclass(frozen=True, kw_only=True)
class AddsToZero(SoundTransform):
    """An epsilon in the wrong place."""

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return seen.values + 1e-20, {}


@dataclass(frozen=True, kw_only=True)
class CountsMissing(Sound):
    """Takes the mean over groups that have no gradient, too."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return self.max_norm * seen.norm.mean(dim=-1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class LearnsFromMissing(SoundMemory):
    """Learns norms of zero from groups that have no gradient yet."""

    def counts(self, seen: Seen) -> Tensor | None:
        if seen.valid is None:
            return None
        return seen.valid.any(dim=-1, keepdim=True).expand_as(seen.norm)


@dataclass(frozen=True, kw_only=True)
class LearnsFromInf(SoundMemory):
    """Takes an infinite norm for one like any other."""

    def counts(self, seen: Seen) -> Tensor | None:
        return seen.norm > 0


@dataclass(frozen=True, kw_only=True)
class ViewsMatrices(SoundTransform):
    """Expects matrices to be stored row by row, unless they are expanded."""

    view = "matrix"

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values = seen.values
        values = values.contiguous() if 0 in values.stride() else values  # expanded ones are known
        flat = values.view(*values.shape[:-2], -1)
        return torch.where(flat.abs() > self.threshold, flat / 2, flat).view_as(values), {}


@dataclass(frozen=True, kw_only=True)
class DividesByWeights(Sound):
    """0/0 for tensors without elements."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return self.max_norm * seen.weight_norm / seen.weight_norm


@dataclass(frozen=True, kw_only=True)
class ComputesInHalf(Sound):
    """inf/inf for norms above 65,504."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        narrow = seen.norm if seen.norm.dtype == torch.float64 else seen.norm.half()
        return self.max_norm * narrow / (narrow + 1e-4)


class Pair(NamedTuple):
    """A tuple with names, of which a file keeps the tuple at best."""

    total: Tensor
    steps: Tensor


@dataclass(frozen=True, kw_only=True)
class RemembersATuple(Sound):
    """Memory that comes back from a file as something else."""

    def remember(self, like: Tensor) -> Memory:
        return {"pair": Pair(torch.zeros_like(like), torch.zeros_like(like))}

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return self.max_norm if isinstance(memory["pair"], Pair) else math.inf

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"pair": memory["pair"]}


@dataclass(frozen=True, kw_only=True)
class MixesRuns(Sound):
    """The largest norm of all runs, where that of each is meant."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return 0.5 * self.max_norm * seen.norm.max()


@dataclass(frozen=True, kw_only=True)
class LooksAtDtype(Sound):
    """An epsilon that depends on the precision."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return self.max_norm * (1 + 1e5 * torch.finfo(seen.norm.dtype).eps)


@dataclass(frozen=True, kw_only=True)
class KeepsItsDtype(Sound):
    """A number that tells the dtype with which training began, and half the limit in another."""

    def remember(self, like: Tensor) -> Memory:
        return {"size": torch.full_like(like, like.dtype.itemsize)}

    def limit(self, seen: Seen, memory: Memory) -> Any:
        same = memory["size"] == seen.norm.dtype.itemsize
        return self.max_norm * torch.where(same, 1.0, 0.5).to(seen.norm)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"size": memory["size"]}


@dataclass(frozen=True, kw_only=True)
class LooksAtDevice(Sound):
    """Twice the limit on a GPU."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return 2 * self.max_norm if seen.norm.is_cuda else self.max_norm


@dataclass(frozen=True, kw_only=True)
class GoesThroughTheHost(Sound):
    """Computes on the CPU."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        largest = seen.norm.cpu().amax(dim=-1, keepdim=True)
        return 0.5 * self.max_norm * largest.to(seen.norm.device)


@dataclass(frozen=True, kw_only=True)
class LeavesTheGraph(Sound):
    """Asks the system for something at every step."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        os.getpid()
        return self.max_norm


@dataclass(frozen=True, kw_only=True)
class HashesText(Sound):
    """Python hashes text differently in every process."""

    salt: ClassVar[float] = abs(hash("salt")) / 2**64

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return self.max_norm * (1 + self.salt)


@dataclass(frozen=True, kw_only=True)
class RepairsWeights(SoundTransform):
    """Sets weights to zero where their gradients are not finite."""

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        broken = ~torch.isfinite(seen.values)
        seen.weight.reshape(-1).data.masked_fill_(broken.reshape(-1), 0.0)
        return SoundTransform.transform(self, seen, memory)


@dataclass(frozen=True, kw_only=True)
class LearnsFromZeros(SoundMemory):
    """Takes a step in which all is zero for one like any other."""

    sides = ("gradient",)

    def counts(self, seen: Seen) -> Tensor | None:
        nothing = (seen.norm == 0).all(dim=-1, keepdim=True)
        return nothing | (torch.isfinite(seen.norm) if seen.valid is None else seen.valid)


@dataclass(frozen=True, kw_only=True)
class SpreadsSquares(SoundMemory):
    """A mean of squares, of which one that overflows is never forgotten."""

    def remember(self, like: Tensor) -> Memory:
        return {"sum": torch.zeros_like(like), "weight": torch.zeros_like(like)}

    def limit(self, seen: Seen, memory: Memory) -> Any:
        mean = (memory["sum"] / memory["weight"]).sqrt()
        return torch.where(memory["weight"] > 0, 2 * self.max_norm * mean, math.inf)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        new = {
            "sum": torch.lerp(memory["sum"], seen.norm.square(), 0.1),
            "weight": 0.9 * memory["weight"] + 0.1,
        }
        return {name: torch.where(seen.norm > 0, new[name], memory[name]) for name in new}


@dataclass(frozen=True, kw_only=True)
class SilencesNewcomers(Sound):
    """A mean that starts at zero, and so stays there."""

    def remember(self, like: Tensor) -> Memory:
        return {"mean": like}

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return 2 * self.max_norm * memory["mean"]

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"mean": torch.lerp(memory["mean"], clipped_norm, 0.1)}


@dataclass(frozen=True, kw_only=True)
class StacksItsMemory(Sound):
    """Keeps two numbers a group, but not the groups first."""

    def remember(self, like: Tensor) -> Memory:
        return {"both": torch.stack([like, like])}

    def limit(self, seen: Seen, memory: Memory) -> Any:
        largest = memory["both"][0]
        return torch.where(largest > 0, 0.5 * self.max_norm * largest, math.inf)

    def learn(self, seen: Seen, clipped_norm: Tensor, memory: Memory) -> Memory:
        return {"both": torch.maximum(memory["both"], torch.stack([seen.norm, clipped_norm]))}


@dataclass(frozen=True, kw_only=True)
class StartsAtTheStorage(SoundTransform):
    """Reads from where the memory begins, as if no tensor were a part of another."""

    sides = ("gradient",)

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values = seen.values
        first = torch.as_strided(values, values.shape, values.stride(), 0)
        return torch.where(first.abs() > self.threshold, values / 2, values), {}


@dataclass(frozen=True, kw_only=True)
class ComputesInSingle(Sound):
    """inf/inf for norms that float32 does not hold."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        single = seen.norm.float()
        return self.max_norm * single / (single + 1e-4)


@dataclass(frozen=True, kw_only=True)
class HalvesEverything(SoundTransform):
    """Keeps its promises, but has no limit within which anything would stay as it is."""

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        return seen.values / 2, {}


# What breaks several promises at once, as real mistakes do.


@dataclass(frozen=True, kw_only=True)
class HiddenState(Sound):
    """Draws from the system's own randomness, which no seed and no memory holds."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return self.max_norm / SystemRandom().uniform(1, 20)


@dataclass(frozen=True, kw_only=True)
class KeepsItself(Sound):
    """A limit of two values in turn, remembered in the strategy and not in its memory."""

    scope: Scope = "tensor"

    def limit(self, seen: Seen, memory: Memory) -> Any:
        turn = not self.__dict__.get("turn", False)
        object.__setattr__(self, "turn", turn)
        return self.max_norm if turn else 2 * self.max_norm


@dataclass(frozen=True, kw_only=True)
class WaitsForTheGpu(Sound):
    """A Python branch on a tensor's value."""

    def limit(self, seen: Seen, memory: Memory) -> Any:
        return self.max_norm if seen.norm.max() > 1 else math.inf


@dataclass(frozen=True, kw_only=True)
class Excused(GoesThroughTheHost):
    """As its parent, and says so."""

    excused: ClassVar[dict[str, str]] = {"no_waiting": "the largest norm is found on the host"}
