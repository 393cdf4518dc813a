"""The backward pass of a clipper whose strategy clips single examples."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from gclip.clipping.bound_clipper import BoundClipper
from gclip.clipping.per_sample.checks import Loss
from gclip.errors import UsageError


class SampleClipper(BoundClipper):
    """A `BoundClipper` with `backward`, for strategies of the side ``sample``."""

    @property
    def per_sample(self) -> bool:
        """Whether a strategy clips single examples, so that `backward` takes the place of
        ``loss.backward()``."""
        return self._samples is not None

    def backward(
        self,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss = F.cross_entropy,
        *,
        scale: float = 1.0,
        chunk: int | None = None,
    ) -> Tensor:
        """Per-example clipping: add the mean of the clipped examples' gradients to ``.grad``.

        In place of ``loss(model(inputs), targets).backward()``; then `step` as always. Call it
        several times to accumulate, with `scale` each batch's share of the examples.

        Parameters that are frozen or that the loss does not depend on keep their ``.grad``, and
        do not count in norms that they share. Modules that ``torch.func`` cannot take are computed
        one example after another, with a warning; see `gclip.per_sample_gradients`. An example
        whose gradient is not finite makes the step not finite (`nonfinite`), unless the strategy's
        rule is ``skip`` and has left it out.

        Args:
            inputs: ``(examples, …)``, of any dtype that the model takes.
            targets: ``(examples, …)``, of any dtype that the loss takes.
            loss: of a batch of one, one number; a ``reduction`` of mean, sum or none is the same.
            chunk: how many examples' gradients are held at once, each chunk a forward pass of its
                own; all by default.

        Returns:
            The mean loss, times `scale`.

        Raises:
            UsageError: no strategy has the side ``sample``; the model has batch norm; no parameter
                requires a gradient; the model or the loss fails on a batch of one.
        """
        if self._samples is None:
            raise UsageError(
                "backward() is for strategies that clip single examples, such as 'per_sample' or "
                "'norm(side=sample)'; with others, call loss.backward()"
            )
        if not self._samples.waiting and self._source.changed():
            self._follow()
        add = partial(self._samples.add, step=self._step, scale=scale, chunk=chunk)
        if torch.compiler.is_compiling():
            from gclip.clipping.graph_breaks import outside

            add = partial(outside, add)
        return add(inputs, targets, loss)
