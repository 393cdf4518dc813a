"""Where the watcher is told from: functions of torch and gclip, called in between, for a while."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import GeneratorType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad
from torch.optim import optimizer as optimizers

from gclip.clipping.clipper import Clipper
from gclip.clipping.report import ClipReport
from gclip.doctor.events import ClipKind
from gclip.doctor.measure import full_tensor, largest_element
from gclip.doctor.redirect import redirect
from gclip.doctor.watcher import Watcher
from gclip.errors import UsageError

Given: TypeAlias = dict[str, Any]
"""Arguments, or fields of a `Clip`, by name."""


def tap(watcher: Watcher, stack: ExitStack) -> None:
    """Tell `watcher` what happens in any loop, until `stack` is closed."""
    taps = _Taps(watcher)
    redirect(stack, torch.autograd, "backward", taps.backward)
    redirect(stack, clip_grad, "clip_grad_norm_", taps.clip_norm)
    redirect(stack, clip_grad, "_clip_grads_with_norm_", taps.clip_with_norm)
    redirect(stack, clip_grad, "clip_grad_value_", taps.clip_value)
    redirect(stack, Clipper, "step", taps.clipper)
    redirect(stack, GradScaler, "scale", taps.scale)
    redirect(stack, GradScaler, "unscale_", taps.unscale)
    redirect(stack, GradScaler, "step", taps.scaler_step)
    before = optimizers.register_optimizer_step_pre_hook(taps.before_step)
    stack.callback(before.remove)
    after = optimizers.register_optimizer_step_post_hook(taps.after_step)
    stack.callback(after.remove)


class _Taps:
    """Each is given the original and its arguments, and returns what the original does."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def backward(self, original: Any, args: Any, named: Any) -> Any:
        if torch.compiler.is_compiling():
            return original(*args, **named)
        self._watcher.begin_backward()
        try:
            return original(*args, **named)
        finally:
            self._watcher.end_backward()

    def clip_norm(self, original: Any, args: Any, named: Any) -> Any:
        def describe(given: Given, norm: Any) -> Given:
            checked = bool(given.get("error_if_nonfinite", False))
            return {"limit": float(given["max_norm"]), "size": _number(norm), "checked": checked}

        return self._clip("norm", original, args, named, describe)

    def clip_with_norm(self, original: Any, args: Any, named: Any) -> Any:
        def describe(given: Given, _: Any) -> Given:
            return {"limit": float(given["max_norm"]), "size": _number(given["total_norm"])}

        return self._clip("norm", original, args, named, describe)

    def clip_value(self, original: Any, args: Any, named: Any) -> Any:
        size = math.nan

        def describe(given: Given, _: Any) -> Given:
            return {"limit": float(given["clip_value"]), "size": size, "checked": True}

        def look(listed: list[Tensor]) -> None:
            nonlocal size
            size = largest_element(p.grad for p in listed if p.grad is not None)

        return self._clip("value", original, args, named, describe, look)

    def _clip(
        self,
        kind: ClipKind,
        original: Any,
        args: Any,
        named: Any,
        describe: Callable[[Given, Any], Given],
        look: Callable[[list[Tensor]], None] | None = None,
    ) -> Any:
        """A call of one of torch's functions, with its parameters read once."""

        def described(result: Any) -> Given | None:
            said = describe(given, result)
            # inf is the usual way to measure a norm without clipping
            return None if said["limit"] == math.inf else said

        if self._watcher.clipping or torch.compiler.is_compiling():
            return original(*args, **named)
        try:
            given: Given = dict(inspect.signature(original).bind(*args, **named).arguments)
        except TypeError:
            return original(*args, **named)  # which says what is missing
        listed, given["parameters"] = _listed(given["parameters"])
        if look is not None:
            look(listed)
        name = original.__name__.removeprefix("_")
        return self._watcher.clip(kind, name, listed, lambda: original(**given), described)

    def clipper(self, original: Any, args: Any, named: Any) -> Any:
        clipper: Clipper = args[0]
        if self._watcher.clipping or torch.compiler.is_compiling():
            return original(*args, **named)
        on_updates = clipper.on_updates
        return self._watcher.clip(
            "gclip",
            "gclip",
            clipper.params,
            lambda: original(*args, **named),
            lambda report: {"of_update": True} if on_updates else _described(report),
        )

    def scale(self, original: Any, args: Any, named: Any) -> Any:
        result, scaler = original(*args, **named), args[0]
        if scaler.is_enabled():
            self._watcher.scaled(scaler.get_scale())
        return result

    def unscale(self, original: Any, args: Any, named: Any) -> Any:
        self._watcher.begin_unscale()
        result = original(*args, **named)
        optimizer = args[1] if len(args) > 1 else named["optimizer"]
        if args[0].is_enabled():
            self._watcher.end_unscale(optimizer)
        return result

    def scaler_step(self, original: Any, args: Any, named: Any) -> Any:
        made = self._watcher.made, self._watcher.skipped
        result = original(*args, **named)
        if (self._watcher.made, self._watcher.skipped) == made:
            self._watcher.skipped += 1
        return result

    def before_step(self, optimizer: Any, _args: Any, _named: Any) -> None:
        if not torch.compiler.is_compiling():
            self._watcher.begin_step(optimizer)

    def after_step(self, optimizer: Any, _args: Any, _named: Any) -> None:
        if not torch.compiler.is_compiling():
            self._watcher.end_step(optimizer)


def _listed(parameters: Any) -> tuple[list[Tensor], Tensor | Iterable[Tensor]]:
    """The parameters as a list, and once more as what was given: a generator can be read once."""
    if isinstance(parameters, Tensor):
        return [parameters], parameters
    listed = list(parameters)
    return listed, (p for p in listed) if isinstance(parameters, GeneratorType) else listed


def _described(report: ClipReport) -> Given | None:
    try:
        stages = report.stages
    except UsageError:  # the clipper was told to measure nothing
        return {"checked": True}
    skipped = bool(report.skipped)
    if not stages:
        return {"skipped": skipped}
    numbers = report.scalars()
    by = ", ".join(dict.fromkeys(stage.strategy for stage in stages))
    if by == "none":
        return None
    one = len(stages) == 1 and stages[0].limit.numel() == 1
    limit = float(stages[0].limit) if one else math.inf
    before = numbers["norm"]
    return {
        "by": f"gclip's {by}", "skipped": skipped, "checked": True,
        "limit": limit if math.isfinite(limit) else None,
        "size": float(stages[0].norm) if one else math.nan,
        "left": numbers["clipped_norm"] / before if before > 0 else None,
    }  # fmt: skip


def _number(norm: Any) -> float:
    return float(full_tensor(norm) if isinstance(norm, Tensor) else norm)
