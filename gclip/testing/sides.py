"""One adapter a side: hand in gradients, get back what clipping left of them.

The promises know nothing of sides. On the side ``gradient`` what is left is ``.grad`` after
``clipper.step()``; on the side ``update`` it is the step that SGD with a learning rate of 1 makes
of the gradient, weights before less weights after; on the side ``sample`` each of two equal
examples has the gradient as its own, so that their mean is again what was handed in. Weights are
put back after each step: a strategy that looks at them sees the same ones always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gclip.clipping.base_clipper import Nonfinite
from gclip.clipping.clipper import Clipper
from gclip.core.strategy import Strategy
from gclip.testing.applicability import DoesNotApply
from gclip.testing.gradients import Gradients
from gclip.testing.rigs import STEPS, Rig, Step


class GradientRig(Rig):
    """The side ``gradient``."""

    def _clipper(self, nonfinite: Nonfinite, times: int) -> Clipper:
        named = [*self.params.items()] * times
        return Clipper(
            named, self.strategy, nonfinite=nonfinite, optimizer=self._optimizer(0.1),
            total_steps=STEPS,
        )  # fmt: skip

    def step(self, grads: Mapping[str, Tensor | None]) -> Step:
        self._put(grads)
        report = self.clipper.step()
        return self._step({name: p.grad for name, p in self.params.items()}, report)

    def unclipped(self, grads: Mapping[str, Tensor | None]) -> Gradients:
        return dict(grads)


class UpdateRig(Rig):
    """The side ``update``, behind SGD with a learning rate of 1."""

    def _clipper(self, nonfinite: Nonfinite, times: int) -> Clipper:
        if times > 1:
            raise DoesNotApply("torch's optimizers refuse a parameter listed twice themselves")
        self._sgd = self._optimizer(1.0)
        named = self.params.items()
        return Clipper(
            named, self.strategy, nonfinite=nonfinite, optimizer=self._sgd, total_steps=STEPS
        )

    def step(self, grads: Mapping[str, Tensor | None]) -> Step:
        self._put(grads)
        before = {name: param.detach().clone() for name, param in self.params.items()}
        try:
            self.clipper.step()
            with self.clipper.updating():
                self._sgd.step()
            after = {name: param.detach().clone() for name, param in self.params.items()}
        finally:
            with torch.no_grad():
                for name, param in self.params.items():
                    param.copy_(before[name])
        report = self.clipper.report
        assert report is not None
        clipped_grads: Gradients = {
            name: None if grads[name] is None else before[name] - after[name] for name in before
        }
        return self._step(clipped_grads, report)

    def unclipped(self, grads: Mapping[str, Tensor | None]) -> Gradients:
        unclipped: Gradients = {}
        for name, grad in grads.items():
            param = self.params[name].detach()
            unclipped[name] = None if grad is None else param - (param - grad.to_dense().to(param))
        return unclipped

    @property
    def noise(self) -> float:
        params = [param for param in self.params.values() if param.numel()]
        largest = max(float(param.detach().abs().max()) for param in params)
        return 4 * largest * torch.finfo(params[0].dtype).eps


class Linear(nn.Module):
    """An answer whose gradient with respect to the parameters is the example itself."""

    def __init__(self, params: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        for name, param in params.items():
            path, _, leaf = name.rpartition(".")
            if path not in self._modules:
                self.add_module(path, nn.Module())
            self.get_submodule(path).register_parameter(leaf, param)

    def forward(self, example: Tensor) -> Tensor:
        return example @ torch.cat([param.reshape(-1) for param in self.parameters()])


class Shared(Linear):
    """As `Linear` for two parameters that are added up, so that autograd may give both the same
    tensor; a third counts with its sum, whose gradient is one number, expanded."""

    def forward(self, example: Tensor) -> Tensor:
        first, second, third = self.parameters()
        width = first.numel()
        return example[..., :width] @ (first + second) + third.sum()


class SampleRig(Rig):
    """The side ``sample``, with two equal examples.

    Without copies for three parameters only, of which the first two are alike: see `Shared`.
    """

    def _clipper(self, nonfinite: Nonfinite, times: int) -> Clipper:
        if times > 1:
            raise DoesNotApply("a module names each parameter once")
        self._model: nn.Module = (Linear if self._copies else Shared)(self.params)
        return Clipper(
            self._model, self.strategy, nonfinite=nonfinite, optimizer=self._optimizer(0.1),
            total_steps=STEPS,
        )  # fmt: skip

    def step(self, grads: Mapping[str, Tensor | None]) -> Step:
        tensors = list(grads.values())
        if any(grad is None or grad.is_sparse for grad in tensors):
            raise DoesNotApply("each example has a dense gradient for every parameter")
        param = next(iter(self.params.values()))
        rows = [grad.reshape(-1).to(param) for grad in tensors if grad is not None]
        example = torch.cat([rows[self.names.index(n)] for n, _ in self._model.named_parameters()])
        for param in self.params.values():
            param.grad = None
        inputs = torch.stack([example, example])
        self.clipper.backward(inputs, torch.zeros_like(inputs[:, 0]), answer)
        report = self.clipper.step()
        clipped_grads: Gradients = {name: p.grad for name, p in self.params.items()}
        norm, limit, clipped_norm, clipped = (
            each[0] for each in (report.norm, report.limit, report.clipped_norm, report.clipped)
        )
        return Step(
            clipped_grads, norm, limit, clipped_norm, clipped, report.finite, report.skipped
        )

    def unclipped(self, grads: Mapping[str, Tensor | None]) -> Gradients:
        return dict(grads)


def answer(output: Tensor, _target: Tensor) -> Tensor:
    """The loss of one example: the output itself."""
    return output.sum()


_RIGS: dict[str, type[Rig]] = {"gradient": GradientRig, "update": UpdateRig, "sample": SampleRig}


def make(strategy: Strategy, **options: Any) -> Rig:
    """The rig of the side that the strategy works on."""
    return _RIGS[strategy.side](strategy, **options)
