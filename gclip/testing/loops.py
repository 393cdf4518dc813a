"""A training loop in small: parameters, an optimizer and a clipper, on any side.

Where a rig looks at what clipping leaves of a gradient, a loop looks at what a whole step does to
the parameters and to the optimizer's state.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gclip.clipping.clipper import Clipper
from gclip.clipping.hooks import attach
from gclip.clipping.report import ClipReport
from gclip.core.strategy import Strategy
from gclip.testing.gradients import SHAPES, Gradients, Shapes, present, weights
from gclip.testing.rigs import STEPS
from gclip.testing.sides import Linear, answer

MakeOptimizer: TypeAlias = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
State: TypeAlias = dict[str, Tensor]


class Loop:
    """Parameters that are trained by whatever gradients a step is given.

    Args:
        attached: clip by `gclip.attach`; else by a `gclip.Clipper` that the loop asks itself.
        compiler: the backend of ``torch.compile`` for the clipping step; None for a plain one.
    """

    def __init__(
        self,
        strategy: Strategy,
        optimizer: MakeOptimizer,
        *,
        attached: bool,
        seed: int = 0,
        shapes: Shapes = SHAPES,
        compiler: str | None = None,
    ) -> None:
        self.params = {name: nn.Parameter(each) for name, each in weights(shapes, seed).items()}
        self._model, self._attached = Linear(self.params), attached
        self._optimizer = optimizer([*self._model.parameters()])
        self._step: Callable[..., Any]
        if attached:
            handle = attach(
                self._optimizer, strategy, model=self._model, total_steps=STEPS,
                max_consecutive_skips=None,
            )  # fmt: skip
            self._clipper, self._step = handle.clipper, self._optimizer.step
        else:
            self._clipper = Clipper(
                self._model, strategy, optimizer=self._optimizer, total_steps=STEPS,
                max_consecutive_skips=None,
            )  # fmt: skip
            self._step = self._clipper.step
        if compiler is not None:
            self._step = torch.compile(self._step, backend=compiler)

    def step(self, grads: Gradients, *, closure: bool = False) -> ClipReport:
        """Make a step of these gradients, which a closure computes if wished; what was clipped."""
        if closure:
            self._step(lambda: self._backward(grads))
        elif self._attached:
            self._backward(grads)
            self._step()
        else:
            self._backward(grads)
            if not self._step().skipped:
                with self._clipper.updating():
                    self._optimizer.step()
        report = self._clipper.report
        assert report is not None
        return report

    @property
    def state(self) -> State:
        """A copy of the parameters and of the optimizer's state for each."""
        state = {name: param.detach().clone() for name, param in self.params.items()}
        for name, param in self.params.items():
            for key, value in self._optimizer.state.get(param, {}).items():
                state[f"{key} of {name}"] = torch.as_tensor(copy.deepcopy(value))
        return state

    def _backward(self, grads: Gradients) -> Tensor:
        if self._clipper.per_sample:
            return self._backward_example(grads)
        for name, param in self.params.items():
            grad = grads[name]
            param.grad = None if grad is None else grad.clone()
        return torch.zeros(())

    def _backward_example(self, grads: Gradients) -> Tensor:
        tensors = present(grads)
        example = torch.cat([tensors[name].flatten() for name, _ in self._model.named_parameters()])
        for param in self.params.values():
            param.grad = None
        return self._clipper.backward(example[None], torch.zeros_like(example[:1]), answer)


def changes(before: State, after: State) -> Iterator[str]:
    """The names of what is not, to the bit, what it was."""
    for name in [*before, *(name for name in after if name not in before)]:
        a, b = before.get(name), after.get(name)
        if a is None or b is None or not torch.equal(a, b):
            yield name
