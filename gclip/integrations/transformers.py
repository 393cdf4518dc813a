"""Transformers: a callback that clips by any strategy.

::

    from gclip.integrations.transformers import ClippingCallback

    args = TrainingArguments(..., max_grad_norm=0)
    trainer = Trainer(model, args, ..., callbacks=[ClippingCallback("percentile(p=10)")])
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import torch

from gclip.clipping.clip_handle import ClipHandle
from gclip.clipping.hooks import innermost
from gclip.clipping.parameters import Spec
from gclip.clipping.report import NUMBERS, ClipReport
from gclip.clipping.step_log import recent_numbers
from gclip.core.files import read_file
from gclip.core.tensor_files import load_tensors
from gclip.errors import UsageError
from gclip.integrations.options import (
    ClippingOptions,
    attached_to,
    checked,
    missing,
    warn_twice_clipped,
)

try:
    from transformers import TrainerCallback
    from transformers.trainer_callback import ExportableState
except ImportError as error:
    raise missing("transformers", error) from error

FILE = "gclip.pt"
"""What is beside ``trainer_state.json`` in a checkpoint's folder."""


class ClippingCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Clips the gradients when they are complete, before the optimizer's step.

    The trainer accumulates, unscales, clips by ``max_grad_norm`` and tells its callbacks
    (``on_pre_optimizer_step``); what is clipped here comes after all of that, within the step of
    the innermost optimizer. A step that is skipped leaves no trace, as with `gclip.attach`; the
    learning-rate schedule goes on.

    Set ``max_grad_norm=0`` in the trainer's arguments: it is 1 by default, and gradients that are
    clipped already tell a strategy little. Else you are warned.

    Strategies' memory and the record are in ``gclip.pt`` in every checkpoint's folder: a run that
    is resumed goes on to the same bits. The trainer's log gets ``clip/norm``, ``clip/limit``,
    ``clip/clip_rate`` and so on beside the loss: in ``log_history``, and for callbacks that come
    after this one. For others, ``callback.handle.log_to(...)``.

    Args:
        strategy: as `gclip.Clipper`.
        log: whether the trainer's log is told.
        resume_from: the folder of the checkpoint that is resumed, where it lies neither in
            ``output_dir`` nor where it was made.
        options: as `gclip.attach`: ``exclude``, ``nonfinite`` and so on. ``total_steps``, for
            schedules, is the trainer's.

    Attributes:
        handle: what `gclip.attach` gives: report, record and so on; None before training.

    Raises:
        UsageError: an unknown strategy or option. When training begins: the checkpoint's
            ``gclip.pt`` is not found; DeepSpeed, which clips in its engine; a strategy clips single
            examples.
    """

    def __init__(
        self,
        strategy: Spec,
        *,
        log: bool = True,
        resume_from: str | Path | None = None,
        **options: Unpack[ClippingOptions],
    ) -> None:
        super().__init__()
        checked(strategy, options)
        self._strategy, self._options, self._log = strategy, options, log
        self._resume_from = resume_from
        self.handle: ClipHandle | None = None
        self._folder = ""
        self._mark = ""
        self._logged = 0

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any, **_: Any
    ) -> None:
        """Attach to the optimizer, whose state has been restored by now."""
        if getattr(args, "deepspeed", None):
            raise UsageError(
                "DeepSpeed makes the step in its engine, where gclip does not reach: set "
                "gradient_clipping in its config"
            )
        if args.max_grad_norm:
            warn_twice_clipped(
                f"the Trainer (max_grad_norm={args.max_grad_norm:g})",
                "set max_grad_norm=0 in TrainingArguments, and gclip alone clips",
            )
        if self.handle is not None:
            self.handle.remove()
        self._folder = str(args.output_dir)
        steps = state.max_steps if state.max_steps > 0 else None
        self.handle = attached_to(
            optimizer, self._strategy, model, self._options, total_steps=steps
        )
        try:
            _let_scalers_see(optimizer)
            self._restore(state)
        except BaseException:
            self.handle.remove()
            raise
        self._logged = len(self.handle.record)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Give the optimizer its step back."""
        if self.handle is not None:
            self.handle.remove()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Put the numbers beside the loss."""
        numbers = self._numbers() if self._log and logs and "loss" in logs else {}
        if logs is not None and numbers:
            logs.update(numbers)
            if state.log_history and "loss" in state.log_history[-1]:
                state.log_history[-1].update(numbers)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the clipper's state into the checkpoint's folder."""
        if self.handle is None or not args.should_save:
            return
        folders = _folders(args.output_dir, state.global_step)
        if not folders:
            raise UsageError(
                f"no checkpoint-{state.global_step} in {args.output_dir}, into which the clipper's "
                "state should be written"
            )
        newest = max(folders, key=lambda folder: folder.stat().st_mtime)
        torch.save({"mark": self._mark, "clipper": self.handle.state_dict()}, newest / FILE)

    def state(self) -> dict[str, Any]:
        """What goes into ``trainer_state.json``: by which mark the file beside it is known.

        The trainer asks for it at every checkpoint, just before `on_save`.
        """
        self._mark = uuid.uuid4().hex
        args = {
            "strategy": _spelled(self._strategy),
            "log": self._log,
            "resume_from": None if self._resume_from is None else str(self._resume_from),
            **{key: value for key, value in self._options.items() if value is not None},
        }
        attributes = {} if self.handle is None else {"saved": [self._mark, self._folder]}
        return {"args": args, "attributes": attributes}

    # -- inside ------------------------------------------------------------------------------

    def _restore(self, state: Any) -> None:
        """Go on from the checkpoint that is resumed, if one is that was made with clipping."""
        if self.handle is None or not state.global_step:
            return
        own = (state.stateful_callbacks or {}).get(type(self).__name__)
        own = own[0] if isinstance(own, list) else own
        if not own or "saved" not in own.get("attributes", {}):
            return
        mark, origin = own["attributes"]["saved"]
        places = [] if self._resume_from is None else [Path(self._resume_from)]
        for folder in (self._folder, origin):
            places += _folders(folder, state.global_step)
        for file in (place / FILE for place in places):
            if file.exists():
                saved = load_tensors(read_file(file), f"the state {file}")
                if saved["mark"] == mark:
                    self.handle.load_state_dict(saved["clipper"])
                    return
        raise UsageError(
            f"the checkpoint at step {state.global_step} was made with clipping, but its {FILE} is "
            f"neither in {self._folder} nor where it was made ({origin}): name the checkpoint's "
            "folder, ClippingCallback(..., resume_from=…)"
        )

    def _numbers(self) -> dict[str, float]:
        handle = self.handle
        report: ClipReport | None = None if handle is None else handle.report
        if handle is None or report is None:
            return {}
        since, self._logged = len(handle.record) - self._logged, len(handle.record)
        numbers = recent_numbers(report, handle.record, since).tolist()
        return {f"clip/{name}": value for name, value in zip(NUMBERS, numbers, strict=True)}


def _let_scalers_see(optimizer: Any) -> None:
    """Accelerate's wrapper keeps the step from before for its GradScaler: it is to keep ours.

    It does so anew when it is unpickled; there is no other way to ask for it.
    """
    inner = innermost(optimizer)
    while optimizer is not inner:
        if getattr(optimizer, "scaler", None) is not None and hasattr(optimizer, "__setstate__"):
            optimizer.__setstate__({})
        optimizer = optimizer.optimizer


def _folders(output: str, step: int) -> list[Path]:
    """Where the checkpoint of a step is: a search of hyperparameters has a folder for each run."""
    name = f"checkpoint-{step}"
    return [
        path for path in (Path(output) / name, *Path(output).glob(f"*/{name}")) if path.is_dir()
    ]


def _spelled(strategy: Spec) -> Any:
    """A strategy as JSON has it."""
    if isinstance(strategy, Mapping):
        return {pattern: str(each) for pattern, each in strategy.items()}
    return str(strategy)
