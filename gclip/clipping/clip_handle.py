"""A clipper at work in an optimizer's step, which it takes the place of."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from types import MethodType, TracebackType
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch

from gclip.clipping.clipper import Clipper
from gclip.clipping.fused import FusedClipping
from gclip.clipping.record import Record
from gclip.clipping.report import ClipReport
from gclip.clipping.step_log import LogTarget, StepLog
from gclip.clipping.step_skipping import StepSkipped, creates_state, fused_on_gpu, set_found_inf
from gclip.clipping.step_snapshot import StepSnapshot
from gclip.errors import UsageError

Closure: TypeAlias = Callable[[], Any]


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
        self._fused = FusedClipping(optimizer, clipper) if fold else None
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
        def step(_optimizer: torch.optim.Optimizer, /, *args: Any, **kwargs: Any) -> Any:
            if not handle._active:
                return handle._original(*args, **kwargs)
            return handle._step(*args, **kwargs)

        # A method of the optimizer, because learning-rate schedulers wrap it as one.
        self._method = MethodType(step, optimizer)
        optimizer.step = self._method  # type: ignore[method-assign]
        self._hook = _registered(optimizer, self._refuse_bypass)
        optimizer.__getstate__ = MethodType(_state_with_a_warning, optimizer)  # type: ignore[method-assign]
        attached[optimizer] = self

    @property
    def record(self) -> Record:
        """What clipping did so far."""
        return self.clipper.record

    def log_to(self, target: LogTarget, *, every: int = 50) -> StepLog:
        """Tell a logger what clipping does: `Clipper.log_to`."""
        return self.clipper.log_to(target, every=every)

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
        attached.pop(self.optimizer, None)

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
        index, name = self._closure
        closure = kwargs.get(name) if name in kwargs else (args[index : index + 1] or (None,))[0]
        if closure is None:
            return self._step_once(args, kwargs)
        if self._fused is not None:
            raise UsageError("fold=True and a closure do not go together; attach without fold")
        if name in kwargs:
            return self._step_with(closure, lambda c: self._call(args, {**kwargs, name: c}))
        rest = args[index + 1 :]
        return self._step_with(closure, lambda c: self._call((*args[:index], c, *rest), kwargs))

    def _step_once(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if creates_state(self.optimizer):
            return self._call(args, kwargs)
        self._refuse_scaled()
        self.report = report = self.clipper.step()
        if self._fused is not None and report.stages:
            if not self._begun and bool(report.skipped):
                return self._leave_out(None)
            with self._fused.folding(report.skipped):
                return self._call(args, kwargs)
        try:
            with self.clipper.updating():
                if self._begun and fused_on_gpu(self.optimizer):
                    with set_found_inf(self.optimizer, report.skipped):
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
                raise StepSkipped(loss)
            return loss

        try:
            with self.clipper.updating():
                try:
                    return call(clipped)
                except StepSkipped as skipped:
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


attached: WeakKeyDictionary[torch.optim.Optimizer, ClipHandle] = WeakKeyDictionary()
"""The handles at work, by their optimizers."""


def _closure_of(step: Callable[..., Any]) -> tuple[tuple[int, str], bool | None]:
    """Where a step takes its closure, and whether it may evaluate it again (None: not known)."""
    try:
        parameters = list(inspect.signature(step).parameters.values())
    except (TypeError, ValueError):
        return (0, "closure"), None
    for index, each in enumerate(parameters):
        if each.name == "closure":
            # A step that cannot do without one evaluates it as often as it likes.
            return (index, "closure"), True if each.default is each.empty else None
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
