"""Quantiles of all past norms, exact, at a cost per step that hardly grows with the steps.

Sorting the whole past at every step is what makes the published percentile clipping cost as much
as the training step itself after 100,000 steps. A quantile moves slowly, though: each new
norm moves the wanted rank by at most one. So it is enough to keep, sorted, the few norms around
that rank, and to fetch a new neighbourhood from a larger one every `R` steps, which itself is
fetched from a larger one every ``8 R`` steps, and so on: O(log n) levels, each with a constant
share of work per step. The result is the exact order statistic, never an approximation.

The schedule depends on the number of steps alone, which the host knows, so nothing here waits
for a GPU; steps whose norm may not enter (``valid`` False) fill their slot with padding.

State is a dict of tensors and numbers, every tensor shaped ``(…, groups, slots)``.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gclip.core.host import on_host

History: TypeAlias = dict[str, Any]

FIRST = 16  # slots in the innermost level
GROWTH = 8  # each level is so much larger than the one inside it
PAD = math.inf  # an empty slot sorts behind every norm


def empty(like: Tensor, q: float | None, window: int | None = None) -> History:
    """A history without norms, for groups `like` ``(…, groups)`` and the quantile `q` in [0, 1].

    With a `window`, only the last `window` norms that were valid count. Where `q` is None, any
    quantile may be asked for, a different one at each step (a schedule's): all norms are then
    sorted again at every step.
    """
    if window is not None:
        return {"q": q, "ring": _blank(like, window), "count": 0}
    return {"q": q, "count": 0, "levels": [_level(_blank(like, 0), FIRST, 0)]}


def quantile(history: History, extra: Tensor | None = None, q: float | None = None) -> Tensor:
    """The q-quantile of the norms so far, and of `extra` ``(…, groups)`` as one more.

    `q` is needed where the history was made for any, and is the history's own otherwise.

    Linear interpolation between order statistics, as ``numpy.percentile``. Where nothing has
    been seen the result is ``inf``.

    Returns:
        ``(…, groups)``, of the same dtype as the history.
    """
    count = history["count"]
    q = history["q"] if history["q"] is not None else q
    if q is None:
        raise ValueError("this history was made for no quantile in particular: say which q")
    if "ring" in history:
        (values, count), low = _in_window(history, extra is not None), 0
    else:
        values, low = history["levels"][0]["slots"], history["levels"][0]["low"]
        # Slots not used yet hold inf, which sorts behind every norm.
    if extra is not None:
        count = count + 1
    rank = _rank(q, count, low)
    if isinstance(rank, float) and _is_small(values) and (extra is None or on_host(extra)):
        return _at_rank_on_host(values, extra, rank)
    if extra is not None:
        values = torch.cat((values, extra.unsqueeze(-1)), dim=-1)
    if values.shape[-1] == 0:
        return torch.full(values.shape[:-1], math.inf, dtype=values.dtype, device=values.device)
    return _at_rank(_in_order(values), rank)


def push(history: History, norm: Tensor, valid: Tensor | None = None) -> History:
    """The history with one more norm ``(…, groups)``; where not `valid`, without it.

    Tensors of the given history may be written to: keep only the one returned.
    """
    count = history["count"] + (1 if valid is None else valid.long())
    if "ring" in history:
        return _push_ring(history, norm, count, valid)
    if valid is not None:
        norm = torch.where(valid, norm, PAD)
    levels = list(history["levels"])
    inner = levels[0]
    inner["slots"].select(-1, inner["used"]).copy_(norm)
    levels[0] = inner = {**inner, "used": inner["used"] + 1}
    new = {**history, "count": count, "levels": levels}
    if inner["used"] == inner["slots"].shape[-1]:
        _overflow(new, 0)
    return new


def _in_window(history: History, room: bool) -> tuple[Tensor, Any]:
    """The norms in the window and how many; with `room`, less the oldest where it is full."""
    ring, count = history["ring"], history["count"]
    size = ring.shape[-1]
    if isinstance(count, int):
        slot = count % size
        if not room or count < size:
            return ring[..., :count], min(count, size)
        return torch.cat((ring[..., :slot], ring[..., slot + 1 :]), dim=-1), size - 1
    if not room:
        return ring, count.clamp(max=size)
    slot = (count % size).unsqueeze(-1)
    return ring.scatter(-1, slot, PAD), count.clamp(max=size - 1)


def _push_ring(history: History, norm: Tensor, count: Any, valid: Tensor | None) -> History:
    ring, slot = history["ring"], history["count"] % history["ring"].shape[-1]
    if valid is None and isinstance(slot, int):
        ring.select(-1, slot).copy_(norm)
        return {**history, "count": count}
    if isinstance(slot, int):
        slot = torch.full_like(norm, slot, dtype=torch.long)
    place = slot.unsqueeze(-1)
    if valid is not None:
        norm = torch.where(valid, norm, ring.gather(-1, place).squeeze(-1))
    return {**history, "ring": ring.scatter(-1, place, norm.unsqueeze(-1)), "count": count}


def _level(near: Tensor, size: int, low: Any) -> dict[str, Any]:
    """A level: the norms around the rank, then `size` free slots; `low` are left out below."""
    free = near.new_full((*near.shape[:-1], size), PAD)
    slots = torch.cat((near, free), dim=-1)
    return {"slots": slots, "size": size, "used": near.shape[-1], "low": low}


def _overflow(history: History, depth: int) -> None:
    """Level `depth` is full: hand its recent norms to the next, fetch a new neighbourhood."""
    levels = history["levels"]
    full = levels[depth]
    size = full["size"]
    if depth + 1 == len(levels):
        # The outermost level keeps everything. Let it grow; when it is GROWTH times its own
        # slots, put a smaller level inside it.
        whole = _sorted(full)
        if history["q"] is None:
            levels[depth] = _level(whole, max(size, whole.shape[-1]), 0)
            return
        if whole.shape[-1] <= GROWTH * size:
            levels[depth] = _level(whole, size, 0)
            return
        levels[depth] = _level(whole, GROWTH * size, 0)
        levels.insert(depth, full)
        _fetch(history, depth)
        return
    outer = levels[depth + 1]
    recent = full["slots"].narrow(-1, full["used"] - size, size)
    outer["slots"].narrow(-1, outer["used"], size).copy_(recent)
    levels[depth + 1] = outer = {**outer, "used": outer["used"] + size}
    if outer["used"] == outer["slots"].shape[-1]:
        _overflow(history, depth + 1)
    # A level inserted in between shifts this one; either way every full level is fetched anew.
    for inner in reversed(range(len(levels) - 1)):
        if levels[inner]["used"] == levels[inner]["slots"].shape[-1]:
            _fetch(history, inner)


def _fetch(history: History, depth: int) -> None:
    """Fill level `depth` with the norms of the next level around the wanted rank."""
    levels = history["levels"]
    outer, size = levels[depth + 1], levels[depth]["size"]
    values = _sorted(outer)
    width = min(2 * size + 2, values.shape[-1])
    rank = _rank(history["q"], history["count"], outer["low"])
    if isinstance(rank, float):
        start = min(max(math.floor(rank) - size, 0), values.shape[-1] - width)
        near = values.narrow(-1, start, width)
    else:
        start = (rank.floor().long() - size).clamp(0, values.shape[-1] - width)
        near = values.gather(-1, start.unsqueeze(-1) + torch.arange(width, device=values.device))
    levels[depth] = _level(near, size, outer["low"] + start)


def _rank(q: float, count: Any, low: Any) -> Any:
    """Where the quantile of `count` norms stands among those kept, `low` of them left out below."""
    if isinstance(count, int) and isinstance(low, int):
        return q * (count - 1) - low
    device = (count if isinstance(count, Tensor) else low).device
    exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    count = count.to(exact) if isinstance(count, Tensor) else count
    return (count - 1) * q - low


def _at_rank(values: Tensor, rank: Any) -> Tensor:
    """The order statistic at a fractional rank, interpolated; ``inf`` where there is none."""
    last = values.shape[-1] - 1
    if isinstance(rank, float):
        below = min(max(math.floor(rank), 0), last)
        weight = rank - below
        if weight <= 0 or below == last:
            return values.select(-1, below)
        return torch.lerp(values.select(-1, below), values.select(-1, below + 1), weight)
    below = rank.floor().clamp(0, last).long()
    weight = (rank - below).clamp(0, 1).to(values.dtype)
    pair = torch.stack((below, (below + 1).clamp(max=last)), dim=-1)
    low, high = values.gather(-1, pair).unbind(-1)
    # Padding may stand above the last norm: 0 · inf must not become NaN.
    return torch.where(weight > 0, torch.lerp(low, torch.where(weight > 0, high, low), weight), low)


def _at_rank_on_host(values: Tensor, extra: Tensor | None, rank: float) -> Tensor:
    """As `_at_rank`, of a few `values` in any order: half the time, as NumPy calls cost less."""
    numbers = values.numpy()
    if extra is not None:
        numbers = np.concatenate((numbers, extra.numpy()[..., None]), axis=-1)
    if not numbers.shape[-1]:
        return torch.full(values.shape[:-1], math.inf, dtype=values.dtype)
    ordered = np.sort(numbers, axis=-1)
    last = ordered.shape[-1] - 1
    below = min(max(math.floor(rank), 0), last)
    lower = torch.from_numpy(ordered[..., below])
    if rank <= below or below == last:
        return lower
    return torch.lerp(lower, torch.from_numpy(ordered[..., below + 1]), rank - below)


def _sorted(level: dict[str, Any]) -> Tensor:
    return _in_order(level["slots"].narrow(-1, 0, level["used"]))


def _in_order(values: Tensor) -> Tensor:
    if _is_small(values):  # for a few numbers, a third of the time
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(dim=-1).values


def _is_small(values: Tensor) -> bool:
    return on_host(values) and values.shape[-1] <= 256


def _blank(like: Tensor, slots: int) -> Tensor:
    return like.new_full((*like.shape, slots), PAD)
