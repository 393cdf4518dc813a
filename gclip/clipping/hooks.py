"""Clipping before every ``optimizer.step()``, without a line in the training loop."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType, TracebackType
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gclip.clipping.clipper import Clipper, Nonfinite
from gclip.clipping.fused import FusedClipping
from gclip.clipping.parameter_sources import OptimizerSource
from gclip.clipping.parameters import Spec
from gclip.clipping.record import Record
from gclip.clipping.report import ClipReport
from gclip.clipping.skip_monitor import MOST_SKIPS, OnSkips
from gclip.clipping.step_snapshot import StepSnapshot
from gclip.clipping.units import UnitDims
from gclip.errors import UsageError

Closure: TypeAlias = Callable[[], Any]


class _StepSkipped(Exception):
    """Ends an optimizer's step from within its closure; never leaves this module."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss


class ClipHandle:
    """The handle of an attached clipper: `remove` it, or use it in a ``with`` block.

    Attributes:
        optimizer: the one whose step clips; of optimizers that wrap one another, the innermost.
        clipper: the `Clipper` at work.
        report: what the last step saw and did; None before the first.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, clipper: Clipper, fold: bool = False
    ) -> None:
        self.optimizer, self.clipper = optimizer, clipper
        self._folded = FusedClipping(optimizer, clipper) if fold else None
        self.report: ClipReport | None = None
        original = optimizer.step
        self._original: Callable[..., Any] = original
        self._closure, self._reevaluates = _closure_of(original)
        self._active, self._inside = True, False
        # torch's fused SGD, told by `found_inf` to leave out its first step, goes on with momentum
        # that was never written: until a step has been taken, one look at the device decides.
        self._begun = bool(optimizer.state)
        handle = self

        # With the attributes of the original, by which schedulers know that they have seen it.
        @functools.wraps(original)
        def step(optimizer: torch.optim.Optimizer, /, *args: Any, **kwargs: Any) -> Any:
            if not handle._active:
                return handle._original(*args, **kwargs)
            return handle._step(*args, **kwargs)

        # A method of the optimizer, because learning-rate schedulers wrap it as one.
        self._method = MethodType(step, optimizer)
        optimizer.step = self._method  # type: ignore[method-assign]
        self._hook = _registered(optimizer, self._refuse_bypass)
        optimizer.__getstate__ = MethodType(_state_with_a_warning, optimizer)  # type: ignore[method-assign]
        _attached[optimizer] = self

    @property
    def record(self) -> Record:
        """What clipping did so far."""
        return self.clipper.record

    def state_dict(self) -> dict[str, Any]:
        """The clipper's state: `Clipper.state_dict`."""
        return self.clipper.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another stopped: `Clipper.load_state_dict`."""
        self.clipper.load_state_dict(state)

    def remove(self) -> None:
        """Give the optimizer its own ``step`` back. Doing so twice does no harm."""
        if not self._active:
            return
        self._active = False  # where a scheduler has wrapped ours since, it stays, idle
        if self.optimizer.__dict__.get("step") is self._method:
            self.optimizer.step = self._original  # type: ignore[method-assign]
        self.optimizer.__dict__.pop("__getstate__", None)
        if self._hook is not None:
            self._hook.remove()
        _attached.pop(self.optimizer, None)

    def __enter__(self) -> ClipHandle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    # -- a step ------------------------------------------------------------------------------

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        place, name = self._closure
        closure = kwargs.get(name) if name in kwargs else (args[place : place + 1] or (None,))[0]
        if closure is None:
            return self._step_once(args, kwargs)
        if self._folded is not None:
            raise UsageError("fold=True and a closure do not go together; attach without fold")
        if name in kwargs:
            return self._step_with(closure, lambda c: self._call(args, {**kwargs, name: c}))
        rest = args[place + 1 :]
        return self._step_with(closure, lambda c: self._call((*args[:place], c, *rest), kwargs))

    def _step_once(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _creates_state(self.optimizer):
            return self._call(args, kwargs)
        self._refuse_scaled()
        self.report = report = self.clipper.step()
        if self._folded is not None and report.stages:
            if not self._begun and bool(report.skipped):
                return self._leave_out(None)
            with self._folded.folding(report.skipped):
                return self._call(args, kwargs)
        try:
            with self.clipper.updating():
                if self._begun and _fused_on_gpu(self.optimizer):
                    with _leaving_out(self.optimizer, report.skipped):
                        return self._call(args, kwargs)
                if bool(report.skipped):
                    return self._leave_out(None)
                return self._call(args, kwargs)
        finally:
            self.report = self.clipper.report or report

    def _step_with(self, closure: Closure, call: Callable[[Closure], Any]) -> Any:
        """A step that computes the gradients itself, once or several times, each time clipped.

        Where they are to be skipped, the step ends there. Most optimizers have changed nothing by
        then; for those that evaluate the closure again at other parameters, what they changed is
        put back.
        """
        snapshot = None if self._reevaluates is False else StepSnapshot(self.optimizer)
        evaluations = 0
        moved = bool(self._reevaluates)

        def clipped() -> Any:
            nonlocal evaluations, moved
            if snapshot is not None and not moved:
                moved = evaluations > 0 or not snapshot.same_parameters()
            evaluations += 1
            with torch.enable_grad():
                loss = closure()
            self._refuse_scaled()
            self.report = report = self.clipper.step()
            if bool(report.skipped):
                if evaluations > 1 and snapshot is None:
                    warnings.warn(
                        f"{type(self.optimizer).__name__} evaluated its closure again, and this "
                        "time the gradients are to be skipped: they are zero, but the step could "
                        "not be left out; from now on it will be",
                        stacklevel=2,
                    )
                    return loss
                raise _StepSkipped(loss)
            return loss

        try:
            with self.clipper.updating():
                try:
                    return call(clipped)
                except _StepSkipped as skipped:
                    if snapshot is not None:
                        snapshot.restore()
                    return self._leave_out(skipped.loss)
        finally:
            self._reevaluates = moved or evaluations > 1
            self.report = self.clipper.report or self.report

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._inside = True
        try:
            result = self._original(*args, **kwargs)
        finally:
            self._inside = False
        self._begun = True
        return result

    def _leave_out(self, loss: Any) -> Any:
        # Else a scheduler says that it was called before the optimizer.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        return loss

    def _refuse_scaled(self) -> None:
        if getattr(self.optimizer, "grad_scale", None) is not None:
            raise UsageError(
                "the gradients are still scaled: call scaler.unscale_(optimizer) before "
                "scaler.step(optimizer), so that clipping sees their true size"
            )

    def _refuse_bypass(self, *_: Any) -> None:
        if self._active and not self._inside:
            raise UsageError(
                f"the step of {type(self.optimizer).__name__} was called past gclip.attach, so "
                "nothing would be clipped: something has kept the optimizer's own step from "
                "before (Accelerate does, with a GradScaler). Attach before it is wrapped, or use "
                "gclip.Clipper in the loop"
            )


Attached = ClipHandle
"""The name that `ClipHandle` had in version 0.1."""

_attached: WeakKeyDictionary[torch.optim.Optimizer, ClipHandle] = WeakKeyDictionary()


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
    max_consecutive_skips: int | None = MOST_SKIPS,
    on_max_skips: OnSkips = "warn",
    unit_dims: UnitDims | None = None,
) -> ClipHandle:
    """Clip by `strategy` before every ``optimizer.step()`` from now on.

    A step whose gradients are not finite (``nonfinite="skip"``), or that a strategy's rule
    ``skip`` refuses, is left out: parameters, momentum and step counts stay as they are, also
    where the optimizer is given a closure. With a closure that is evaluated several times (LBFGS),
    each evaluation is clipped.

    Parameters that the optimizer is given later (``add_param_group``) are clipped like the others.
    Where optimizers wrap one another (Accelerate's, Opacus'), the innermost is clipped, whose step
    is one real step. Copies and pickles of the optimizer are not clipped, and say so.

    Strategies of the side ``update`` (``"clippy"``, ``"norm(side=update)"``) clip the step that
    the optimizer makes: parameters after it less those before. For strategies of the side
    ``sample`` call ``handle.clipper.backward(inputs, targets, loss)`` instead of
    ``loss.backward()``.

    Args:
        optimizer: any ``torch.optim.Optimizer``.
        model: gives the parameters their names, for patterns and the scope ``layer``; an
            optimizer made from ``named_parameters()`` has them itself. Its classes tell what a
            unit is (`gclip.clipping.units`). Needed to clip examples.
        total_steps: how many steps the run will have, for schedules that do not say it.
        fold: let a fused optimizer multiply by the factor as it reads the gradients, so that
            clipping costs one read of them. For one limit of all gradients
            (`gclip.clipping.fused`); ``.grad`` holds clipped values only after the step.
        max_consecutive_skips: how many steps in a row may be skipped before something is said;
            None for any number.
        on_max_skips: ``warn`` then, or ``raise`` a `FloatingPointError`.
        unit_dims: as `Clipper`.

    Returns:
        A handle with ``.remove()``, ``.report``, ``.record`` and ``.state_dict()``.

    Raises:
        UsageError: as `Clipper`; or the optimizer is already clipped by gclip.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"attach takes a torch optimizer, but got {type(optimizer).__name__}")
    optimizer = innermost(optimizer)
    if optimizer in _attached:
        raise UsageError("this optimizer is clipped already: remove() the handle first")
    clipper = Clipper(
        OptimizerSource(optimizer, model), strategy, exclude=exclude, nonfinite=nonfinite,
        record=record, optimizer=optimizer, total_steps=total_steps, model=model,
        max_consecutive_skips=max_consecutive_skips, on_max_skips=on_max_skips,
        unit_dims=unit_dims,
    )  # fmt: skip
    return ClipHandle(optimizer, clipper, fold)


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that makes the step, where others wrap it.

    A wrapper's own step may be no step (one of several micro-batches), or change the gradients
    first (add noise to them).
    """
    while True:
        inner = [getattr(optimizer, name, None) for name in ("optimizer", "original_optimizer")]
        found = next((each for each in inner if isinstance(each, torch.optim.Optimizer)), optimizer)
        if found is optimizer:
            return optimizer
        optimizer = found


def _closure_of(step: Callable[..., Any]) -> tuple[tuple[int, str], bool | None]:
    """Where a step takes its closure, and whether it may evaluate it again (None: not known)."""
    try:
        parameters = list(inspect.signature(step).parameters.values())
    except (TypeError, ValueError):
        return (0, "closure"), None
    for place, each in enumerate(parameters):
        if each.name == "closure":
            # A step that cannot do without one evaluates it as often as it likes.
            return (place, "closure"), True if each.default is each.empty else None
    return (0, "closure"), None


def _registered(optimizer: torch.optim.Optimizer, hook: Callable[..., None]) -> Any:
    """A hook before the optimizer's own step, where it has such hooks."""
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        return None
    return optimizer.register_step_pre_hook(hook)


def _state_with_a_warning(optimizer: torch.optim.Optimizer) -> Any:
    warnings.warn(
        f"a copy of this {type(optimizer).__name__} is being made (or a pickle), which gclip does "
        "not clip: call gclip.attach on the copy; to save a run, save optimizer.state_dict() and "
        "the handle's state_dict()",
        stacklevel=2,
    )
    return type(optimizer).__getstate__(optimizer)


def _creates_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the step is no step of training, but made to have the optimizer's state created.

    Checkpoint tools do so (``torch.distributed.checkpoint.state_dict.get_state_dict``): all
    learning rates are 0, and all gradients.
    """
    if torch.compiler.is_compiling():
        return False
    for group in optimizer.param_groups:
        rate = group.get("lr", 1.0)
        if isinstance(rate, Tensor) and rate.device.type != "cpu":
            return False
        if float(rate):
            return False
    grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
    return not any(bool(grad.any()) for grad in grads if grad is not None)


@contextmanager
def _leaving_out(optimizer: Any, skipped: Tensor) -> Iterator[None]:
    """A fused optimizer leaves a step out by itself where ``found_inf`` is 1."""
    there = hasattr(optimizer, "found_inf")
    before = getattr(optimizer, "found_inf", None)
    optimizer.found_inf = skipped.float() if before is None else before + skipped.float()
    try:
        yield
    finally:
        optimizer.found_inf = before
        if not there:
            del optimizer.found_inf


def _fused_on_gpu(optimizer: torch.optim.Optimizer) -> bool:
    groups = optimizer.param_groups
    return all(g.get("fused") for g in groups) and all(
        p.device.type == "cuda" for g in groups for p in g["params"]
    )
