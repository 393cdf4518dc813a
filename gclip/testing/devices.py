"""Promises about where a strategy runs: precision, GPUs, compiled graphs, other processes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from gclip.clipping.simulation import simulate
from gclip.core.strategy import Memory
from gclip.testing import process
from gclip.testing.applicability import DoesNotApply
from gclip.testing.comparing import apart, size_of
from gclip.testing.direct import Direct, ask
from gclip.testing.gradients import gradients, norms
from gclip.testing.promises import promise
from gclip.testing.subject import Subject

STEPS = 8
_OTHER_DTYPE = 0.02  # what rounding may add up to; `precision` is about single steps


@promise("float64 and float32 give the same numbers")
def precision(subject: Subject) -> Iterator[str]:
    strategy = subject.cls()
    calm = [100 + 0.1 * math.sin(1.7 * step) for step in range(40)]  # nearly constant norms
    wild = [float(norms(step, (), subject.seed, torch.float64)) for step in range(40)]
    for kind, sequence in (("calm", calm), ("wild", wild)):
        (_, single), (_, double) = (
            simulate(strategy, sequence, dtype=dtype, lr=0.1)
            for dtype in (torch.float32, torch.float64)
        )
        for step, (a, b) in enumerate(zip(single.flatten(), double.flatten(), strict=True)):
            if not math.isclose(a, b, rel_tol=1e-3):
                yield (
                    f"step {step} of {kind} norms is left with {a:.7g} in float32, "
                    f"but {b:.7g} in float64"
                )
                break
    narrow, wide = subject.rig(), subject.rig(dtype=torch.float64)
    wide.copy_parameters(narrow)
    yield from _compare(narrow, wide, "in float64", 1e-4)


@promise("a model that becomes float64 in mid-training, and float32 again, goes on as it was")
def mid_training(subject: Subject) -> Iterator[str]:
    for side in subject.sides:
        strategy = subject.create(side=side)
        mixed, double = subject.rig(strategy), subject.rig(strategy, dtype=torch.float64)
        double.copy_parameters(mixed)
        for step in range(12):
            mixed.to(torch.float64 if 4 <= step < 8 else torch.float32)
            grads = gradients(mixed.shapes, step, mixed.seed)
            actual, expected = mixed.step(grads).grads, double.step(grads).grads
            for name, grad in actual.items():
                reference = expected[name]
                if (
                    grad is None
                    or reference is None
                    or not apart(grad, reference, _OTHER_DTYPE, mixed.noise)
                ):
                    continue
                yield (
                    f"side {side}, step {step}: the norm of {name} is {size_of(grad):.7g}, but "
                    f"{size_of(reference):.7g} had it been float64 throughout"
                )


@promise("a GPU gives the numbers that a CPU does")
def cuda(subject: Subject) -> Iterator[str]:
    if not torch.cuda.is_available():
        raise DoesNotApply("there is no CUDA device here")
    yield from _compare(subject.rig(), subject.rig(device="cuda"), "on the GPU", 1e-4)


def _compare(rig: Any, other: Any, where: str, rtol: float) -> Iterator[str]:
    for step in range(STEPS):
        grads = gradients(rig.shapes, step, rig.seed)
        result, reference = rig.step(grads), other.step(grads)
        for name in rig.names:
            a, b = result.grads[name].double(), reference.grads[name].to("cpu").double()
            if reference.grads[name].dtype != other.params[name].dtype:
                yield f"step {step}: {name} becomes {reference.grads[name].dtype} {where}"
            if apart(a, b, rtol, 1e-9 + rig.noise):
                yield (
                    f"step {step}: the norm of {name} is {a.norm():.7g}, but {b.norm():.7g} {where}"
                )


class _Moves(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where a tensor's values go from one device to the other, for which both wait."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[-1] if func is torch.ops.aten._to_copy.default else args[1]
            from_device, to_device = source.device.type, result.device.type
            if from_device != to_device and not (kwargs or {}).get("non_blocking"):
                raise RuntimeError(
                    f"a tensor is copied from {from_device} to {to_device}, for which both wait"
                )
        return result


@promise("nothing waits for the GPU")
def no_waiting(subject: Subject) -> Iterator[str]:
    with FakeTensorMode():  # tensors with a device and a shape, of which no value can be read
        try:
            yield from _without_waiting(subject, _Moves)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise RuntimeError(
                f"the host reads a tensor's value, or how many there are, by {error.func}: "
                "no if, float(), .item() or mask indexing on a tensor"
            ) from error
    if torch.cuda.is_available():
        yield from _without_waiting(subject, _NoSync)


class _NoSync:
    """Makes CUDA raise where the host waits for it."""

    def __enter__(self) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *error: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


def _without_waiting(subject: Subject, guard: Callable[[], Any]) -> Iterator[str]:
    """The first step may prepare things, the later ones may not wait."""
    strategy = subject.cls()
    direct = Direct(strategy, seed=subject.seed, device="cuda")
    inputs = [direct.numbers(step) for step in range(3)]
    finite = [direct.finite(each) for each in inputs]
    direct.step(inputs[0], finite[0])
    with guard():
        for each, valid in zip(inputs[1:], finite[1:], strict=True):
            direct.step(each, valid)
    if strategy.side == "sample":  # torch.func does the rest
        return
    rig = subject.rig(device="cuda")
    steps = [
        {name: None if g is None else g.to("cuda") for name, g in grads.items()}
        for grads in (gradients(rig.shapes, step, rig.seed, 1.0) for step in range(3))
    ]
    rig.step(steps[0])
    with guard():
        for grads in steps[1:]:
            result = rig.step(grads)
    if result.norm.device.type != "cuda":
        yield f"the report's norms are on {result.norm.device.type}, not with the gradients"


@promise("torch.compile takes it as one graph, which gives the same numbers")
def compiled(subject: Subject) -> Iterator[str]:
    strategy = subject.cls()
    direct = Direct(strategy, seed=subject.seed)
    inputs = [direct.numbers(step) for step in range(2)]

    def steps(both: list[Tensor], weight: Tensor, size: Tensor, memory: Memory) -> list[Tensor]:
        first, memory = ask(strategy, both[0], weight, size, memory, 0)
        second, memory = ask(strategy, both[1], weight, size, memory, 1)
        return [first, second]

    expected = [direct.step(each.clone()) for each in inputs]
    fresh = Direct(strategy, seed=subject.seed)
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about itself
        graph = torch.compile(steps, fullgraph=True, backend="eager")
        actual = graph(inputs, fresh.weight, fresh.size, fresh.memory)
    torch.compiler.reset()
    for step, (a, b) in enumerate(zip(actual, expected, strict=True)):
        if not torch.allclose(a, b, rtol=1e-5, atol=0):
            yield f"step {step} is left with {a.tolist()} compiled, {b.tolist()} otherwise"


@promise("another process gives the same 20 steps bit for bit")
def another_process(subject: Subject) -> Iterator[str]:
    remote = process.subprocess_digests(subject.cls, subject.seed)
    local = process.digests(subject.cls, subject.seed)
    for step, (a, b) in enumerate(zip(local, remote, strict=True)):
        if a != b:
            yield f"step {step + 1} differs: {a} here, {b} there"
            return
