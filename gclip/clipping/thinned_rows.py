"""Numbers of each step of a run of any length, in bounded memory: at most 256 points in time.

A point stands for the same number of steps everywhere, a power of two: where there would be more
than `POINTS` of them, neighbours are merged pairwise. Of its steps a point keeps the geometric mean
and the maximum. What comes out depends on the steps alone, to the last bit: not on when somebody
looked, saved or went on. Nothing waits for a GPU until somebody reads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

POINTS = 256
RECENT = 256
"""So many of the latest steps at least are kept one by one: a run that diverged is cut at the step,
which a GPU tells some steps later."""
_BLOCK = 128  # steps that are put together at a time

NONE = -1.0
"""In place of a norm that there is not."""


def width_for(steps: int) -> int:
    """How many steps a point stands for in a run of `steps`: 1, 2, 4, 8, …"""
    return 1 << _level_for(steps)


def _level_for(steps: int) -> int:
    return max(0, math.ceil(steps / POINTS) - 1).bit_length()


class ThinnedRows:
    """Rows of numbers ≥ 0, one a step, thinned as they come.

    Args:
        columns: how many numbers a row has; `NONE` stands for one that is missing.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._waiting: list[Tensor] = []
        self._recent: Tensor | None = None
        self._tree = _Tree(columns)
        self._steps = 0

    def __len__(self) -> int:
        return self._steps

    def add(self, row: Tensor) -> None:
        """Note a step: ``(columns,)``, kept as it is for now."""
        self._waiting.append(row)
        self._steps += 1
        if self._steps % _BLOCK:
            return
        # Always of the same steps together: kernels round by the shapes that they are given.
        recent = self._gathered()
        while len(recent) >= RECENT + _BLOCK:
            self._tree.push(recent[:_BLOCK])
            recent = recent[_BLOCK:].clone()
        self._recent = recent

    def points(self, steps: int | None = None) -> dict[str, Tensor]:
        """What is left of the first `steps` steps, on the CPU.

        Returns:
            ``step`` ``(points,)``: the first step of each point. ``mean``, ``(points, columns)``:
            geometric means of the numbers that are finite and above 0; where there are none of
            these, inf where any was not finite, else 0, and NaN where there were no numbers.
            ``largest``: the largest; inf where any was not finite. ``positive``: how many there
            were finite and above 0. ``count``: how many numbers in all.
        """
        wanted = self._steps if steps is None else min(steps, self._steps)
        recent, tree = self._gathered(), self._tree.copy()
        if wanted < tree.steps:  # as far as whole points go
            tree.cut(wanted)
        else:
            tree.push(recent[: wanted - tree.steps])
        sums, largest = (each.cpu() for each in tree.collapsed())
        logs, positive, count = sums.unbind(-1)
        mean = torch.exp(logs / positive.clamp(min=1))
        mean = torch.where(positive > 0, mean, largest)  # which is 0 or inf then
        missing = largest < 0
        places = torch.arange(len(largest)) * (1 << tree.level)
        nan = torch.full_like(mean, math.nan)
        return {
            "step": places,
            "mean": torch.where(missing, nan, mean),
            "largest": torch.where(missing, nan, largest),
            "positive": positive,
            "count": count,
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, on the CPU."""
        return {
            "recent": self._gathered().cpu(),
            "tree": self._tree.state_dict(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self._waiting, self._recent = [], state["recent"].clone()
        self._tree.load_state_dict(state["tree"])
        self._steps = state["steps"]

    def _gathered(self) -> Tensor:
        """The recent steps, ``(steps, columns)``, on the device of the latest one."""
        if self._waiting:
            rows = self._waiting
            device = rows[-1].device
            wide = torch.float64 if any(r.dtype == torch.float64 for r in rows) else rows[-1].dtype
            block = torch.stack([row.to(device, wide) for row in rows])
            self._waiting = []
            if self._recent is None:
                self._recent = block
            else:
                wide = torch.promote_types(self._recent.dtype, wide)
                self._recent = torch.cat([self._recent.to(device, wide), block.to(wide)])
        return torch.zeros(0, self.columns) if self._recent is None else self._recent


class _Tree:
    """Sums over 2^level steps: at every level at most one, at the highest up to `POINTS`.

    A node has for each column the sum of logarithms, how many numbers it is of and how many there
    were in all, ``(nodes, columns, 3)``; and the largest number, ``(nodes, columns)``.
    """

    def __init__(self, columns: int) -> None:
        self.steps = 0
        self._sums = [torch.zeros(0, columns, 3)]
        self._largest = [torch.zeros(0, columns)]

    @property
    def level(self) -> int:
        return len(self._sums) - 1

    def push(self, rows: Tensor) -> None:
        """Add steps, ``(steps, columns)``."""
        self.steps += len(rows)
        sums, largest = _leaves(rows)
        levels = max(self.level, _level_for(self.steps)) + 1
        for level in range(levels):
            if level == len(self._sums):
                self._sums.append(sums[:0])
                self._largest.append(largest[:0])
            sums = torch.cat([self._sums[level].to(sums), sums])
            largest = torch.cat([self._largest[level].to(largest), largest])
            paired = len(sums) // 2 * 2 if level + 1 < levels else 0
            self._sums[level], self._largest[level] = sums[paired:], largest[paired:]
            sums, largest = _merged(sums[:paired], largest[:paired])

    def collapsed(self) -> tuple[Tensor, Tensor]:
        """All nodes of the highest level, and what is below as the last of them."""
        sums, largest = self._sums[0], self._largest[0]
        for higher, top in zip(self._sums[1:], self._largest[1:], strict=True):
            last = higher is self._sums[-1]
            if len(sums) and len(higher) and not last:  # the higher one is the earlier one
                sums, largest = higher + sums, torch.maximum(top, largest)
            else:
                sums, largest = torch.cat([higher, sums]), torch.cat([top, largest])
        return sums, largest

    def cut(self, steps: int) -> None:
        """Forget all points that reach beyond the first `steps`."""
        whole = steps >> self.level
        self._sums[-1], self._largest[-1] = self._sums[-1][:whole], self._largest[-1][:whole]
        for level in range(self.level):
            self._sums[level] = self._sums[level][:0]
            self._largest[level] = self._largest[level][:0]
        self.steps = whole << self.level

    def copy(self) -> _Tree:
        """One that can be pushed to while this one stays."""
        twin = _Tree(0)
        twin.steps, twin._sums, twin._largest = self.steps, [*self._sums], [*self._largest]
        return twin

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "sums": [each.cpu().clone() for each in self._sums],
            "largest": [each.cpu().clone() for each in self._largest],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self._sums, self._largest = list(state["sums"]), list(state["largest"])


def _leaves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each step as a node; NaN counts as infinite."""
    wide = rows if rows.device.type == "mps" else rows.double()  # a Mac's GPU has no float64
    wide = torch.nan_to_num(wide, nan=math.inf, posinf=math.inf)
    positive = (wide > 0) & torch.isfinite(wide)
    logs = torch.where(positive, wide, 1.0).log()
    present = wide >= 0
    return torch.stack([logs, positive.to(wide), present.to(wide)], dim=-1), wide


def _merged(sums: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbours as one."""
    return sums[0::2] + sums[1::2], torch.maximum(largest[0::2], largest[1::2])
