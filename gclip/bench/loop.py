"""``gclip bench loop``: a training step with our clipping beside the same step with torch's own."""

from __future__ import annotations

import importlib.util
import io
import itertools
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gclip.clipping.clipper import Clipper
from gclip.clipping.hooks import attach
from gclip.training import models

BATCH, STEPS = 128, 24
MAX_NORM = 1.0
STRATEGY = f"norm(max_norm={MAX_NORM:g})"
Block = Callable[[], list[float]]
"""Makes `STEPS` steps; the seconds that each took the processor."""


def rows(
    *,
    seconds: float = 10.0,
    batch: int = BATCH,
    model: str = "lenet",
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """``case, peer, overhead, lower, upper, ours_ms, peer_ms``: what our clipping adds to a step.

    Ours and the peer's take turns, `STEPS` steps each, of which the median counts; ``overhead`` is
    the median of the turns' ratios, less 1, and ``lower`` and ``upper`` are their quartiles. On one
    thread, in the processor's time, so that other programs hardly count. The peers clip by torch's
    ``clip_grad_norm_``: in the same loop by hand, or by the framework's own option. Frameworks that
    are not installed are left out.

    Args:
        seconds: each row measures for about that long.
        batch: images a batch.
        model: the net, by its name.
        progress: told what is measured next.
    """
    measured = []
    for case, peer, makers in CASES:
        if case.split()[0] in _FRAMEWORKS and importlib.util.find_spec(case.split()[0]) is None:
            continue
        progress(case)
        with _on_one_thread():
            ours, theirs = (make(_Task(model, batch)) for make in makers)
            measured.append({"case": case, "peer": peer, **_compare(ours, theirs, seconds)})
    return measured


class _Task:
    """A net, its optimizer, and batches that lie ready."""

    def __init__(self, model: str, batch: int) -> None:
        torch.manual_seed(0)
        self.net = models.build(model)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9)
        some = [torch.randn(batch, 3, 32, 32) for _ in range(4)]
        labels = [torch.randint(10, (batch,)) for _ in some]
        self.batches = [(some[i % 4], labels[i % 4]) for i in range(STEPS)]

    def forward_backward(self, images: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(self.net(images), labels))

    def block(self, finish: Callable[[], None]) -> Block:
        """Steps of a loop by hand, which `finish` ends: clip, and step."""

        def steps() -> list[float]:
            taken = []
            for images, labels in self.batches:
                began = time.process_time()
                self.forward_backward(images, labels)
                finish()
                taken.append(time.process_time() - began)
            return taken

        return steps


def _compare(ours: Block, theirs: Block, seconds: float) -> dict[str, float]:
    ratios: list[float] = []
    medians: dict[Block, list[float]] = {ours: [], theirs: []}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(ratios) < 3:
        for block in (ours, theirs) if len(ratios) % 2 else (theirs, ours):
            medians[block].append(statistics.median(block()))
        ratios.append(medians[ours][-1] / medians[theirs][-1])
    lower, overhead, upper = (each - 1 for each in statistics.quantiles(ratios, n=4))
    return {
        "overhead": overhead,
        "lower": lower,
        "upper": upper,
        "ours_ms": 1000 * statistics.median(medians[ours]),
        "peer_ms": 1000 * statistics.median(medians[theirs]),
    }


# -- loops by hand -------------------------------------------------------------------------------


def _torchs(task: _Task) -> Block:
    def finish() -> None:
        nn.utils.clip_grad_norm_(task.net.parameters(), MAX_NORM)
        task.optimizer.step()

    return task.block(finish)


def _attached(task: _Task) -> Block:
    attach(task.optimizer, STRATEGY, model=task.net)
    return task.block(lambda: task.optimizer.step())


def _stepped(task: _Task) -> Block:
    clipper = Clipper(task.net, STRATEGY)

    def finish() -> None:
        if not clipper.step().skipped:
            task.optimizer.step()

    return task.block(finish)


# -- frameworks ----------------------------------------------------------------------------------


def _starts_to_durations(starts: list[float]) -> list[float]:
    """Of the starts of steps: what each took, without the first ones, which prepare the others."""
    return [after - before for before, after in itertools.pairwise(starts[2:])]


def _lightning(clips: bool) -> Callable[[_Task], Block]:
    def make(task: _Task) -> Block:
        import lightning.pytorch as lightning

        from gclip.integrations.lightning import Clipping

        starts: list[float] = []

        class Net(lightning.LightningModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.net = task.net

            def training_step(self, batch: Any, index: int) -> Any:  # noqa: ARG002
                starts.append(time.process_time())
                return F.cross_entropy(self.net(batch[0]), batch[1])

            def configure_optimizers(self) -> Any:
                return task.optimizer

        net = Net()

        def steps() -> list[float]:
            starts.clear()
            own: dict[str, Any] = {"callbacks": [Clipping(STRATEGY)]} if clips else {}
            own = own or {"gradient_clip_val": MAX_NORM}
            lightning.Trainer(
                max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, **own,
            ).fit(net, DataLoader(cast(Any, task.batches), batch_size=None))  # fmt: skip
            return _starts_to_durations(starts)

        return steps

    return make


def _transformers(clips: bool) -> Callable[[_Task], Block]:
    def make(task: _Task) -> Block:
        import transformers

        from gclip.integrations.transformers import ClippingCallback

        starts: list[float] = []

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = task.net

            def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
                starts.append(time.process_time())
                return {"loss": F.cross_entropy(self.net(images), labels)}

        net = Net()
        every = [{"images": images, "labels": labels} for images, labels in task.batches]

        def steps() -> list[float]:
            starts.clear()
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
                given = transformers.TrainingArguments(
                    folder, max_grad_norm=0 if clips else MAX_NORM, max_steps=STEPS,
                    per_device_train_batch_size=1, use_cpu=True, report_to="none",
                    save_strategy="no", logging_strategy="no", disable_tqdm=True,
                    dataloader_pin_memory=False,
                )  # fmt: skip
                constant = torch.optim.lr_scheduler.LambdaLR(task.optimizer, lambda _: 1.0)
                transformers.Trainer(
                    net, given, train_dataset=every, data_collator=lambda found: found[0],
                    callbacks=[ClippingCallback(STRATEGY)] if clips else [],
                    optimizers=(task.optimizer, constant),
                ).train()  # fmt: skip
            return _starts_to_durations(starts)

        return steps

    return make


def _accelerate(clips: bool) -> Callable[[_Task], Block]:
    def make(task: _Task) -> Block:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        net, optimizer = accelerator.prepare(task.net, task.optimizer)
        if clips:
            attach(optimizer, STRATEGY, model=net)

        def steps() -> list[float]:
            taken = []
            for images, labels in task.batches:
                began = time.process_time()
                optimizer.zero_grad()
                accelerator.backward(F.cross_entropy(net(images), labels))
                if not clips:
                    accelerator.clip_grad_norm_(net.parameters(), MAX_NORM)
                optimizer.step()
                taken.append(time.process_time() - began)
            return taken

        return steps

    return make


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """On one thread, and without what frameworks tell of themselves whenever they start."""
    before, threads = logging.root.manager.disable, torch.get_num_threads()
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        torch.set_num_threads(threads)


_FRAMEWORKS = ("lightning", "transformers", "accelerate")
_BY_HAND = "the same with clip_grad_norm_"
CASES: tuple[tuple[str, str, tuple[Callable[[_Task], Block], Callable[[_Task], Block]]], ...] = (
    ("a loop with gclip.attach", _BY_HAND, (_attached, _torchs)),
    ("a loop with a gclip.Clipper", _BY_HAND, (_stepped, _torchs)),
    ("lightning with Clipping", "gradient_clip_val", (_lightning(True), _lightning(False))),
    ("transformers with ClippingCallback", "max_grad_norm",
     (_transformers(True), _transformers(False))),
    ("accelerate with gclip.attach", "its clip_grad_norm_",
     (_accelerate(True), _accelerate(False))),
    ("lightning by itself", "a loop by hand", (_lightning(False), _torchs)),
    ("transformers by itself", "a loop by hand", (_transformers(False), _torchs)),
)  # fmt: skip
"""What is measured, beside what; the last rows tell what the frameworks cost without us."""
