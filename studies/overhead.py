"""What does each strategy cost? Time of one clip call, its share of a training step, and memory.

Measured here and now on the setting's model, batch size and optimizer: a whole training step
without clipping, a call of the strategy and a call of ``norm`` (one norm for the whole model) take
turns, so that whatever else the machine does hits all three. Numbers are medians. Three gradients
of four are alike and the fourth is a hundred times larger, so that strategies act that learn what
is usual; where one acts often enough, only the calls in which it did count.

On the side ``update`` a call is what clipping adds to the optimizer's step, on the side ``sample``
what it adds to the forward and backward pass: each is timed in turns with the bare part.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

import gclip
from gclip.clipping.report import clipped_or_skipped
from gclip.clipping.state import tensors_of
from gclip.studies._runs import drawing, number, spellings
from gclip.text.screen import bytes_text, plural
from gclip.tuning.study import Answer, Request

if TYPE_CHECKING:
    from gclip.training import RunConfig

USES: tuple[str, ...] = ()

SECONDS = 2.0
"""For each strategy, about."""
WARM = 128
"""Calls before the measurement: the longest published warm-up is over by then."""
LEAST = 12
"""Rounds of every call, however long they take."""
SCALES = (1.0, 1.0, 1.0, 100.0)
ACTS = 0.1
"""The share of calls that clip above which the others do not count."""
REFERENCE = "norm(max_norm=0.0001)"
"""Clips at every call."""

COLUMNS = {
    "strategy": "strategy",
    "a call": "call_text",
    "× norm": "ratio_text",
    "of a step": "share_text",
    "memory": "memory_text",
    "clipped %": "clipped_text",
    "on": "side",
}

Call = Callable[[], Any]


def run(request: Request, *, seconds: float = SECONDS, warm: int = WARM) -> Answer:
    """One row a strategy, the cheapest first."""
    from gclip.training import resolve_device
    from gclip.training.device import environment, reproducible

    chosen = spellings(request)
    device = resolve_device(request.execution.device)
    with reproducible(device, request.execution.threads) as threads:
        measured = [measure(text, request.base, device, seconds, warm) for text in chosen]
        machine = environment(device, threads)
    where = f"{machine['device']}, {plural(threads, 'thread')}, torch {machine['torch']}"
    base = request.base
    measured_on = f"{base.model} · batch {base.batch_size} · {base.optimizer} · {where}"
    rows = [{**row(each), "measured_on": measured_on} for each in measured]
    rows.sort(key=lambda found: found["ratio"])
    return Answer(
        rows=rows,
        columns=COLUMNS,
        notes=[
            f"{request.base.model}, batch {request.base.batch_size}, {request.base.optimizer}, on "
            f"{where}. Medians of at least {min(each.rounds for each in measured)} rounds in turns "
            "with norm and with a whole training step without clipping.",
            "a call: what clipping adds to a step; × norm: beside one norm for the whole model, in "
            "the same rounds; of a step: a call over the step with it.",
            "memory: what the strategy remembers between steps; + where it grew during the "
            "measurement.",
        ],
        figures={"overhead": drawing("overhead", "overhead", rows=rows)},
        more={"machine": machine},
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Medians in seconds, and bytes.

    Attributes:
        call, bare: the strategy's part of a step, and the same part without it (0 where the
            clip call is a part of its own).
        norm: a clip call of `REFERENCE`.
        step: a whole training step without clipping.
        clipped: the share of calls in which something was clipped.
        memory, before: what is remembered at the end, and was before the measurement.
        size: bytes of the model's parameters.
    """

    strategy: str
    side: str
    call: float
    bare: float
    norm: float
    step: float
    clipped: float
    memory: int
    before: int
    size: int
    rounds: int


def measure(
    text: str, base: RunConfig, device: torch.device, seconds: float, warm: int
) -> Measured:
    """Time one strategy beside ``norm`` and a bare step. Call within `device.reproducible`."""
    bench = Bench(base, device)
    clipper = bench.clipper(text)
    norm = bench.clipper(REFERENCE)
    side = "sample" if clipper.per_sample else "update" if clipper.on_updates else "gradient"
    calls: dict[str, Call] = {"norm": norm.step, "step": bench.train}
    if side == "sample":
        calls |= {"ours": partial(bench.by_example, clipper), "bare": bench.backward}
    elif side == "update":
        calls |= {"ours": partial(bench.update, clipper), "bare": bench.optimizer.step}
    else:
        calls["ours"] = clipper.step
    until = time.perf_counter() + seconds
    for place in range(warm):
        bench.reset(SCALES[place % len(SCALES)])
        calls["ours"]()
        if time.perf_counter() > until:
            break
    before = _bytes(clipper)
    times: dict[str, list[float]] = {name: [] for name in calls}
    acted: list[bool] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(acted) < LEAST:
        turn = len(acted)
        # Who comes first changes with every round of scales: not always the same at a spike.
        order = list(calls)[:: -1 if turn // len(SCALES) % 2 else 1]
        for name in order:
            bench.reset(SCALES[turn % len(SCALES)])
            times[name].append(bench.time(calls[name]))
            if name == "ours":
                acted.append(clipped_or_skipped(clipper.report))
    share = sum(acted) / len(acted)
    counting = acted if share >= ACTS else [True] * len(acted)
    middle = {
        name: statistics.median(t for t, counts in zip(all_of, counting, strict=True) if counts)
        for name, all_of in times.items()
    }
    return Measured(
        strategy=text,
        side=side,
        call=middle["ours"],
        bare=middle.get("bare", 0.0),
        norm=middle["norm"],
        step=middle["step"],
        clipped=share,
        memory=_bytes(clipper),
        before=before,
        size=sum(p.numel() * p.element_size() for p in bench.parameters),
        rounds=sum(counting),
    )


def row(found: Measured) -> dict[str, Any]:
    """What a measurement says: the extra time of a call, its ratio to ``norm``, its share."""
    # A difference of two medians may fall below nothing where clipping costs nearly nothing.
    extra = max(found.call - found.bare, 0.0)
    share = extra / (found.step + extra)
    ratio = extra / found.norm
    grew = found.memory > found.before
    return {
        "strategy": found.strategy,
        "side": found.side,
        "call_us": 1e6 * extra,
        "norm_us": 1e6 * found.norm,
        "step_us": 1e6 * found.step,
        "ratio": ratio,
        "share": share,
        "memory_bytes": found.memory,
        "memory_share": number(found.memory / found.size),
        "memory_grows": grew,
        "clipped": found.clipped,
        "rounds": found.rounds,
        "call_text": f"{1e6 * extra:.0f} µs",
        "ratio_text": f"{ratio:.2f}",
        "share_text": f"{100 * share:.1f} %",
        "memory_text": (bytes_text(found.memory) if found.memory else "0") + (" +" if grew else ""),
        "clipped_text": f"{100 * found.clipped:.0f}",
    }


class Bench:
    """A model with gradients that come back for every call, and the parts of its training step."""

    def __init__(self, base: RunConfig, device: torch.device) -> None:
        from gclip.training import models, optimizers
        from gclip.training.dataset import SIZE
        from gclip.training.device import memory_format

        layout = memory_format(device, base.precision)
        self._base, self.device = base, device
        self.model = models.build(base.model, seed=base.seed).to(device).to(memory_format=layout)
        self.parameters = list(self.model.parameters())
        chance = torch.Generator().manual_seed(0)
        images = torch.randn(base.batch_size, 3, SIZE, SIZE, generator=chance)
        self._images = images.to(device).contiguous(memory_format=layout)
        self._labels = torch.randint(10, (base.batch_size,), generator=chance).to(device)
        self.optimizer = optimizers.build(
            base.optimizer,
            self.parameters,
            lr=base.lr,
            momentum=base.momentum,
            weight_decay=base.weight_decay,
            settings=base.settings,
            device=device,
        )
        self._start = [p.detach().clone() for p in self.parameters]
        self.backward()
        self._gradients = [_gradient(p).clone() for p in self.parameters]

    def clipper(self, text: str) -> gclip.Clipper:
        """A clipper of this model, as a run has it."""
        return gclip.Clipper(self.model, text, optimizer=self.optimizer, total_steps=1_000_000)

    def reset(self, scale: float) -> None:
        """The weights as they were, and the first gradients times `scale`."""
        with torch.no_grad():
            torch._foreach_copy_([p.detach() for p in self.parameters], self._start)
            for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
                if parameter.grad is None:
                    parameter.grad = gradient.clone()
            grads = [_gradient(p) for p in self.parameters]
            torch._foreach_copy_(grads, self._gradients)
            torch._foreach_mul_(grads, scale)

    def train(self) -> None:
        """A whole step without clipping."""
        self.backward()
        self.optimizer.step()

    def backward(self) -> None:
        """Forward and backward."""
        for parameter in self.parameters:
            parameter.grad = None
        with self._precision():
            logits = self.model(self._images)
        F.cross_entropy(logits.float(), self._labels).backward()  # type: ignore[no-untyped-call]

    def by_example(self, clipper: gclip.Clipper) -> None:
        """Forward and backward with one gradient an example, and their clipping."""
        for parameter in self.parameters:
            parameter.grad = None
        with self._precision():
            clipper.backward(self._images, self._labels, chunk=128)
        clipper.step()

    def update(self, clipper: gclip.Clipper) -> None:
        """The optimizer's step, clipped."""
        clipper.step()
        with clipper.updating():
            self.optimizer.step()

    def time(self, call: Call) -> float:
        """Seconds of one call, until the device has done it."""
        self._wait()
        began = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._base.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("a parameter of the model takes no part in its answer")
    return parameter.grad


def _bytes(clipper: gclip.Clipper) -> int:
    """What the strategies remember, without the clipper's own record of the run."""
    memory = [part["memory"] for part in clipper.state_dict()["parts"]]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(memory))
