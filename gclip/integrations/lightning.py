"""Lightning: a callback that clips by any strategy.

::

    from gclip.integrations.lightning import Clipping

    trainer = Trainer(callbacks=[Clipping("percentile(p=10)")])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from gclip.clipping.clip_handle import ClipHandle
from gclip.clipping.parameters import Spec
from gclip.clipping.step_log import StepLog, Write
from gclip.errors import UsageError
from gclip.integrations.options import ClippingOptions, attached_to, checked, missing

try:
    from lightning.pytorch.callbacks import Callback
except ImportError as error:
    raise missing("lightning", error) from error


class Clipping(Callback):  # type: ignore[misc] # Any, where Lightning is not installed
    """Clips each optimizer's gradients, when they are complete and before its step.

    Lightning computes the gradients within the optimizer's step, in a closure; precision plugins
    unscale them, callbacks see them in ``on_before_optimizer_step``, and only then they are
    clipped: after all that may change them, so under automatic and manual optimization, with
    ``accumulate_grad_batches``, in half precision with and without a scaler. A step that is
    skipped leaves no trace, as with `gclip.attach`.

    Strategies' memory and the record are in Lightning's checkpoints: a run that is resumed
    (``fit(..., ckpt_path=)``) goes on to the same bits. Without one, each ``fit`` begins anew, as
    its optimizers do.

    The trainer's loggers get ``clip/norm``, ``clip/limit``, ``clip/clip_rate`` and so on every
    ``log_every_n_steps`` steps (`gclip.Clipper.log_to`), of several optimizers
    ``clip/0/norm``, ….

    Args:
        strategy: as `gclip.Clipper`; or a list of them, one an optimizer.
        log: whether the trainer's loggers are told.
        options: as `gclip.attach`: ``exclude``, ``nonfinite`` and so on. ``total_steps``, for
            schedules, is the trainer's where there is one optimizer.

    Attributes:
        handles: of each optimizer, what `gclip.attach` gives: report, record and so on; they stay
            when training has ended.

    Raises:
        UsageError: an unknown strategy or option. When training begins: the trainer clips, too
            (``gradient_clip_val``); the number of strategies is not that of the optimizers; a
            fused optimizer would unscale gradients only in its step; DeepSpeed, which clips in its
            engine; a strategy clips single examples.
    """

    def __init__(
        self,
        strategy: Spec | Sequence[Spec],
        *,
        log: bool = True,
        **options: Unpack[ClippingOptions],
    ) -> None:
        super().__init__()
        self._strategies = list(strategy) if isinstance(strategy, list | tuple) else strategy
        for each in self._strategies if isinstance(self._strategies, list) else [strategy]:
            checked(cast(Spec, each), options)
        self._options, self._log = options, log
        self.handles: list[ClipHandle] = []
        self._logs: list[StepLog] = []
        self._saved: list[Mapping[str, Any]] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach to the optimizers, whose state has been restored by now."""
        self._refuse(trainer)
        strategies = self._one_each(len(trainer.optimizers))
        alone = len(strategies) == 1
        self.handles, self._logs = [], []
        try:
            for optimizer, strategy in zip(trainer.optimizers, strategies, strict=True):
                steps = _total_steps(trainer) if alone else None
                handle = attached_to(
                    optimizer, strategy, pl_module, self._options, total_steps=steps
                )
                self.handles.append(handle)
            self._restore()
        except BaseException:
            self._detach()
            raise
        every = trainer.log_every_n_steps
        if self._log and trainer.loggers and every:
            for index, handle in enumerate(self.handles):
                prefix = "clip/" if alone else f"clip/{index}/"
                self._logs.append(handle.log_to(_to_loggers(trainer, prefix), every=every))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Give the optimizers their steps back, and tell what is still to tell."""
        self._detach()
        for log in self._logs:
            log.flush()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give the optimizers their steps back."""
        self._detach()

    def state_dict(self) -> dict[str, Any]:
        """Each optimizer's clipper; nothing before training has begun."""
        if not self.handles:
            return {} if self._saved is None else {"clippers": self._saved}
        return {"clippers": [handle.state_dict() for handle in self.handles]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there when training begins, and there are optimizers."""
        self._saved = state_dict["clippers"]

    # -- inside ------------------------------------------------------------------------------

    def _one_each(self, optimizers: int) -> list[Spec]:
        strategies = self._strategies
        if not isinstance(strategies, list):
            return [cast(Spec, strategies)] * optimizers
        if len(strategies) != optimizers:
            raise UsageError(
                f"Clipping has {len(strategies)} strategies for {optimizers} optimizers: give one "
                "for all, or a list of one an optimizer, in the order of configure_optimizers"
            )
        return cast("list[Spec]", strategies)

    def _restore(self) -> None:
        saved, self._saved = self._saved, None
        if saved is None:
            return
        if len(saved) != len(self.handles):
            raise UsageError(
                f"the checkpoint has clipping for {len(saved)} optimizers, but there are "
                f"{len(self.handles)}"
            )
        for handle, state in zip(self.handles, saved, strict=True):
            handle.load_state_dict(state)

    def _detach(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _refuse(self, trainer: Any) -> None:
        if trainer.gradient_clip_val:
            raise UsageError(
                f"Trainer(gradient_clip_val={trainer.gradient_clip_val}) clips the gradients, and "
                "so does gclip: leave one of the two out"
            )
        if type(trainer.strategy).__name__ == "DeepSpeedStrategy":
            raise UsageError(
                "DeepSpeed makes the step in its engine, where gclip does not reach: set "
                "gradient_clipping in its config, or take another strategy of the trainer"
            )
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        for optimizer in trainer.optimizers if scaler is not None else ():
            if getattr(optimizer, "_step_supports_amp_scaling", False):
                raise UsageError(
                    f"a fused {type(optimizer).__name__} unscales the gradients only in its step, "
                    "too late for clipping: make it with fused=False, or train in bf16-mixed"
                )


def _total_steps(trainer: Any) -> int | None:
    """How many steps the optimizer will make; None where Lightning does not know."""
    steps = trainer.estimated_stepping_batches
    return int(steps) if 0 < steps < math.inf else None


def _to_loggers(trainer: Any, prefix: str) -> Write:
    def write(step: int, numbers: Mapping[str, float]) -> None:
        named = {prefix + name: value for name, value in numbers.items()}
        for logger in trainer.loggers:
            logger.log_metrics(named, step=step - 1)  # Lightning counts from 0

    return write
