"""Promises about memory: it survives a file, and many runs side by side keep their own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gclip.testing.direct import Direct
from gclip.testing.gradients import gradients
from gclip.testing.promises import promise
from gclip.testing.rigs import Rig
from gclip.testing.subject import Subject

BEFORE, AFTER = 25, 20
RUNS, STEPS = 3, 12


@promise("saved after 25 steps and loaded, the next 20 steps are the same bit for bit")
def saved(subject: Subject) -> Iterator[str]:
    for settings in [*({"side": side} for side in subject.sides), *subject.apart_if_any()]:
        first, second = (subject.rig(subject.cls(**settings)) for _ in range(2))
        first.run(0, BEFORE)
        second.load(first.saved())
        for step in range(BEFORE, BEFORE + AFTER):
            message = _compared(first, second, step)
            if message:
                yield f"after saving and loading, {message}{_on(settings)}"
                break


def _on(settings: dict[str, Any]) -> str:
    return "".join(f", with {name}={value}" for name, value in settings.items() if name != "side")


def _compared(first: Rig, second: Rig, step: int) -> str | None:
    grads = gradients(first.shapes, step, first.seed)
    expected, actual = first.step(grads), second.step(grads)
    for name, grad in actual.grads.items():
        reference = expected.grads[name]
        if grad is not None and reference is not None and not torch.equal(grad, reference):
            a, b = float(actual.clipped_norm.sum()), float(expected.clipped_norm.sum())
            if a != b:
                return f"step {step + 1}'s clipped norm is {a:.9g}, not {b:.9g}"
            return f"step {step + 1}'s gradient of {name} differs"
    return None


@promise("many runs side by side decide as each would alone")
def batched(subject: Subject) -> Iterator[str]:
    strategy = subject.cls()
    together = Direct(strategy, lead=(RUNS,), seed=subject.seed)
    alone = [Direct(strategy, seed=subject.seed) for _ in range(RUNS)]
    for run, direct in enumerate(alone):
        direct.weight, direct.size = together.weight[run], together.size[run]
    for step in range(STEPS):
        inputs = together.numbers(step)
        if step == 4:
            inputs[1].flatten()[0] = math.nan
        finite = together.finite(inputs)
        outputs = together.step(inputs.clone(), finite)
        for run, direct in enumerate(alone):
            expected = direct.step(inputs[run].clone(), finite[run])
            if outputs.shape != inputs.shape:
                yield f"step {step}: {tuple(inputs.shape)} becomes {tuple(outputs.shape)}"
                return
            if bool(finite[run].all()) and not torch.allclose(
                outputs[run], expected, rtol=1e-5, atol=0
            ):
                yield (
                    f"step {step}: run {run} of {RUNS} is left with {_shown(outputs[run])}, "
                    f"but {_shown(expected)} alone"
                )


def _shown(values: Tensor) -> str:
    return ", ".join(f"{value:.6g}" for value in values.flatten()[:3].tolist())
