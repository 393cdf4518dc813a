"""Clipping before every ``optimizer.step()``, without a line in the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import MethodType, TracebackType
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gclip.clipper import Clipper, Nonfinite
from gclip.errors import UsageError
from gclip.folding import Folded
from gclip.parameters import Parameters, Spec
from gclip.record import Record
from gclip.report import ClipReport

Closure: TypeAlias = Callable[[], Any] | None


class Attached:
    """The handle of an attached clipper: `remove` it, or use it in a ``with`` block.

    Attributes:
        clipper: the `Clipper` at work.
        report: what the last step saw and did; None before the first.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, clipper: Clipper, fold: bool = False
    ) -> None:
        self.optimizer, self.clipper = optimizer, clipper
        self._folded = Folded(optimizer, clipper) if fold else None
        self.report: ClipReport | None = None
        self._original = optimizer.step
        self._active = True
        handle = self

        def step(optimizer: torch.optim.Optimizer, closure: Closure = None) -> Any:
            return handle._step(closure) if handle._active else handle._original(closure)

        # A method of the optimizer, because learning-rate schedulers wrap it as one.
        self._mine = MethodType(step, optimizer)
        optimizer.step = self._mine  # type: ignore[method-assign]
        _attached[optimizer] = self

    @property
    def record(self) -> Record:
        """What clipping did so far."""
        return self.clipper.record

    def remove(self) -> None:
        """Give the optimizer its own ``step`` back. Doing so twice does no harm."""
        self._active = False  # where a scheduler has wrapped ours since, it stays, idle
        if self.optimizer.__dict__.get("step") is self._mine:
            self.optimizer.step = self._original  # type: ignore[method-assign]
        _attached.pop(self.optimizer, None)

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _step(self, closure: Closure) -> Any:
        if closure is not None:
            if self._folded is not None:
                raise UsageError("fold=True and a closure do not go together; attach without fold")
            try:
                with self.clipper.updating():
                    return self._original(self._with_clipping(closure))
            finally:
                self.report = self.clipper.report or self.report
        if getattr(self.optimizer, "grad_scale", None) is not None:
            raise UsageError(
                "the gradients are still scaled: call scaler.unscale_(optimizer) before "
                "scaler.step(optimizer), so that clipping sees their true size"
            )
        self.report = report = self.clipper.step()
        if self._folded is not None and report.norm is not None:
            with self._folded.folding(report.skipped):
                return self._original(None)
        try:
            with self.clipper.updating():
                if _fused_on_gpu(self.optimizer):
                    return self._step_unless(report.skipped)
                if bool(report.skipped):  # elsewhere one look at the device decides
                    return None
                return self._original(None)
        finally:
            self.report = self.clipper.report or report

    def _step_unless(self, skipped: Tensor) -> Any:
        """A fused optimizer leaves a step out by itself where ``found_inf`` is 1."""
        optimizer: Any = self.optimizer
        before = getattr(optimizer, "found_inf", None)
        optimizer.found_inf = skipped.float() if before is None else before + skipped.float()
        try:
            return self._original(None)
        finally:
            optimizer.found_inf = before

    def _with_clipping(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def clipped() -> Any:
            with torch.enable_grad():
                loss = closure()
            self.report = self.clipper.step()
            return loss

        return clipped


_attached: WeakKeyDictionary[torch.optim.Optimizer, Attached] = WeakKeyDictionary()


def attach(
    optimizer: torch.optim.Optimizer,
    strategy: Spec,
    *,
    model: nn.Module | None = None,
    exclude: Sequence[str] = (),
    nonfinite: Nonfinite = "skip",
    record: bool = True,
    total_steps: int | None = None,
    fold: bool = False,
) -> Attached:
    """Clip by `strategy` before every ``optimizer.step()`` from now on.

    A step whose gradients are not finite is left out (``nonfinite="skip"``): parameters, momentum
    and step counts stay as they are. With a closure (LBFGS), each evaluation is clipped.

    Strategies of the side ``update`` (``"clippy"``, ``"norm(side=update)"``) clip the step that
    the optimizer makes: parameters after it less those before. For strategies of the side
    ``sample`` call ``handle.clipper.backward(inputs, targets, loss)`` instead of
    ``loss.backward()``.

    Args:
        optimizer: any ``torch.optim.Optimizer``.
        model: gives the parameters their names, for patterns and the scope ``layer``; an
            optimizer made from ``named_parameters()`` has them itself. Needed to clip examples.
        total_steps: how many steps the run will have, for schedules that do not say it.
        fold: let a fused optimizer multiply by the factor as it reads the gradients, so that
            clipping costs one read of them. For one limit of all gradients (`gclip.folding`);
            ``.grad`` holds clipped values only after the step.

    Returns:
        A handle with ``.remove()``, ``.report`` and ``.record``.

    Raises:
        UsageError: as `Clipper`; or the optimizer is already clipped by gclip.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"attach takes a torch optimizer, but got {type(optimizer).__name__}")
    if optimizer in _attached:
        raise UsageError("this optimizer is clipped already: remove() the handle first")
    clipper = Clipper(
        _parameters(optimizer, model), strategy, exclude=exclude, nonfinite=nonfinite,
        record=record, optimizer=optimizer, total_steps=total_steps, model=model,
    )  # fmt: skip
    return Attached(optimizer, clipper, fold)


def _parameters(optimizer: torch.optim.Optimizer, model: nn.Module | None) -> Parameters:
    params: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    names: Iterable[str] | None = None
    if model is not None:
        known = {id(p): name for name, p in model.named_parameters()}
        if any(id(p) not in known for p in params):
            raise UsageError("the optimizer holds parameters that are not the given model's")
        names = [known[id(p)] for p in params]
    elif all("param_names" in group for group in optimizer.param_groups):
        names = [name for group in optimizer.param_groups for name in group["param_names"]]
    return params if names is None else list(zip(names, params, strict=True))


def _fused_on_gpu(optimizer: torch.optim.Optimizer) -> bool:
    groups = optimizer.param_groups
    return all(g.get("fused") for g in groups) and all(
        p.device.type == "cuda" for g in groups for p in g["params"]
    )
