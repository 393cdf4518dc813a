"""The forward and backward pass as one CUDA graph: one launch where there were some hundred.

A small net leaves a GPU waiting for Python to launch its kernels. A graph is recorded once, for
batches of one shape, and replayed for each batch of that shape; others (an epoch's last, smaller
one) are computed as ever. Clipping and the optimizer stay outside, at a bounded number of launches
however many tensors there are, so that every strategy works unchanged.

A graph is checked before it is used: its first replay must give the loss and the gradients that
the same batch gave without it. If it does not, or if recording fails, training goes on without,
a warning says why, and ``environment["graph"]`` of the result tells. The environment variable
``GCLIP_CUDA_GRAPHS=0`` turns graphs off.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

LEAST_STEPS = 100
"""Recording costs about ten steps: fewer than this many do not pay for it."""

SWITCH = "GCLIP_CUDA_GRAPHS"
_WARM_UP = 3  # passes before recording, as cuBLAS and cuDNN make their workspaces in the first
_TOLERANCE = 1e-4  # of the largest gradient: what other algorithms may make of the same sums

Compute = Callable[[Tensor, Tensor], Tensor]
"""Images and labels to the detached loss; the gradients are left in ``.grad``, which was None."""


class Recorded(Protocol):
    """Work that was recorded, and how to do it again on what the same tensors hold then."""

    loss: Tensor

    def replay(self) -> None:
        """Do the work again."""


class CudaGraph:
    """Work recorded as a CUDA graph.

    Args:
        work: leaves gradients and gives the loss; called some times to warm up, then recorded.
        clear: takes the gradients away, before each call.
    """

    def __init__(self, work: Callable[[], Tensor], clear: Callable[[], None]) -> None:
        side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        here = torch.cuda.current_stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                clear()
                work()
        here.wait_stream(side)
        clear()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.loss = work()

    def replay(self) -> None:
        """Do the work again, in one launch."""
        self._graph.replay()


class ForwardBackward:
    """`compute` for each batch, from a graph where that is possible.

    Args:
        model: whose parameters get gradients and whose buffers (statistics) the pass changes.
        compute: what is done for a batch.
        record: makes the graph; None for never, as `recorder` says.
        why: there are to be no graphs, in words.

    Attributes:
        state: ``recorded``, ``waiting`` for the first batch, or why there is no graph.
    """

    def __init__(
        self,
        model: nn.Module,
        compute: Compute,
        record: Callable[[Callable[[], Tensor], Callable[[], None]], Recorded] | None,
        why: str = "",
    ) -> None:
        self._compute, self._record = compute, record
        self._parameters, self._buffers = list(model.parameters()), list(model.buffers())
        self._graph: Recorded | None = None
        self._images: Tensor
        self._labels: Tensor
        self._grads: list[Tensor | None] = []
        self.state = why if record is None else "waiting"

    @property
    def facts(self) -> dict[str, str]:
        """What a result's environment tells of it; nothing where there are no graphs."""
        return {"graph": self.state} if self.state else {}

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, detached; the gradients are in ``.grad``, which must be None before.

        The gradients may be changed in place, and belong to the caller until the next call.
        """
        if self._record is not None:
            record, self._record = self._record, None
            self._begin(images, labels, record)
        if self._graph is None or not self._fits(images, labels):
            return self._compute(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        self._hand_over()
        return self._graph.loss.clone()  # the next replay writes over it

    def _begin(
        self,
        images: Tensor,
        labels: Tensor,
        record: Callable[[Callable[[], Tensor], Callable[[], None]], Recorded],
    ) -> None:
        """Record and check; afterwards nothing has changed but that there is a graph."""
        statistics = [buffer.clone() for buffer in self._buffers]

        def restore() -> None:
            for buffer, saved in zip(self._buffers, statistics, strict=True):
                buffer.copy_(saved)

        devices = [images.device] if images.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            try:
                self._clear()
                loss = self._compute(images, labels)
                expected = [p.grad for p in self._parameters]
                restore()
                self._images, self._labels = images.clone(), labels.clone()
                graph = record(lambda: self._compute(self._images, self._labels), self._clear)
                self._grads = [p.grad for p in self._parameters]
                restore()
                graph.replay()
                why = _unlike([loss, *expected], [graph.loss, *self._grads])
            except RuntimeError as error:
                why = (str(error).strip().splitlines() or ["it cannot be recorded"])[0]
            finally:
                self._clear()
                restore()
        if why:
            self._grads, self.state = [], f"none: {why}"
            warnings.warn(f"training goes on without a CUDA graph: {why}", stacklevel=3)
            return
        self._graph, self.state = graph, "recorded"

    def _fits(self, images: Tensor, labels: Tensor) -> bool:
        return (images.shape, labels.shape) == (self._images.shape, self._labels.shape)

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _hand_over(self) -> None:
        for parameter, grad in zip(self._parameters, self._grads, strict=True):
            parameter.grad = grad


def recorder(
    device: torch.device, steps: int, *, whole: bool, chance: bool = False
) -> tuple[type[CudaGraph] | None, str]:
    """What records graphs for a run, or None and why there are to be none.

    Args:
        steps: that are to come.
        whole: whether one pass makes a step's gradients, by ``loss.backward()``.
        chance: whether the model draws random numbers, so that no two passes are alike.
    """
    if device.type != "cuda":
        return None, ""
    if os.environ.get(SWITCH, "1") == "0":
        return None, f"none: {SWITCH}=0"
    if not whole:
        return None, "none: a step's gradients are of several passes, or of single examples"
    if chance:
        return None, "none: dropout draws anew in every pass"
    if steps < LEAST_STEPS:
        return None, f"none: fewer than {LEAST_STEPS} steps do not pay for it"
    return CudaGraph, ""


def _unlike(expected: list[Tensor | None], found: list[Tensor | None]) -> str:
    """How the graph's loss and gradients differ from what they should be; empty if they do not."""
    if [e is None for e in expected] != [f is None for f in found]:
        return "it leaves other parameters without gradients"
    for one, other in zip(expected, found, strict=True):
        if one is None or other is None:
            continue
        bound = _TOLERANCE * one.abs().amax()
        if not bool(((one - other).abs() <= bound).all()) and bool(one.isfinite().all()):
            return "it gives other gradients than the same batch without it"
    return ""
