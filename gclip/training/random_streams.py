"""Two streams of torch's random numbers: what models draw, and what strategies draw.

A model's dropout and a strategy that draws at random both use torch's global generator. Kept apart,
a model sees the same dropout masks whatever strategy clips it: comparisons stay paired.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch

_State = tuple[torch.Tensor, torch.Tensor | None]


class RandomStream:
    """A stream of its own within ``with``; outside, the global generator goes on where it was.

    Args:
        seed: of the stream.
        device: of the run: a GPU's generator is swapped too.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        before = self._get()
        torch.manual_seed(seed)
        self._own = self._get()
        self._set(before)
        self._outside = before

    def __enter__(self) -> None:
        self._outside = self._get()
        self._set(self._own)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._own = self._get()
        self._set(self._outside)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is."""
        return {"cpu": self._own[0], "cuda": self._own[1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self._own = (state["cpu"], state["cuda"] if self._cuda else None)

    def _get(self) -> _State:
        return torch.get_rng_state(), torch.cuda.get_rng_state() if self._cuda else None

    def _set(self, state: _State) -> None:
        torch.set_rng_state(state[0])
        if self._cuda and state[1] is not None:
            torch.cuda.set_rng_state(state[1])
