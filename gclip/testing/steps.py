"""Promises about whole steps of training: left out when skipped, compiled, always the same."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from gclip.core.strategy import Strategy
from gclip.testing.applicability import DoesNotApply
from gclip.testing.comparing import apart
from gclip.testing.gradients import SHAPES, Gradients, Shapes, gradients, present
from gclip.testing.loops import Loop, MakeOptimizer, State, changes
from gclip.testing.promises import promise
from gclip.testing.subject import Subject, shown

OPTIMIZERS: dict[str, MakeOptimizer] = {
    "AdamW": partial(torch.optim.AdamW, lr=0.1, weight_decay=0.1),
    "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
}
ASKED = "asked by `if not clipper.step().skipped`"
CALL_MODES: dict[str, tuple[bool, bool]] = {
    "attached": (True, False),
    "attached, with a closure": (True, True),
    ASKED: (False, False),
}
"""How a loop is told that a step is skipped: whether it is attached, whether by a closure."""
BY_RULE = {"AdamW": ASKED, "SGD": "attached"}
"""In which way a step is taken that a strategy's own rule is to leave out."""
SPIKES = {9: 1.0, 39: 1e3, 139: 1e6}
"""How large gradients are at which steps; at the others a thousandth."""
COMPILED_SHAPES: Shapes = {"stem.scale": (), "conv.weight": (2, 3, 2, 2), "conv.bias": (2,)}
"""Of what compiled steps train; compiling takes its time for every parameter."""
COMPILED_STEPS = 6
WARMUP_STEPS = 3
"""After how many compiled steps nothing may be compiled any more."""


@promise("a skipped step leaves parameters and optimizer as they were, however it is called")
def skipped(subject: Subject) -> Iterator[str]:
    for optimizer in OPTIMIZERS:
        for side in subject.sides:
            steps = [gradients(SHAPES, step, subject.seed) for step in range(4)]
            present(steps[-1])["head.weight"][1, 2] = math.nan
            yield from _left_out(subject, subject.create(side=side), optimizer, steps)
            strategy, steps = _by_rule(subject, side, optimizer)
            if strategy is not None:  # after many steps, so in one way for each optimizer
                yield from _left_out(subject, strategy, optimizer, steps, [BY_RULE[optimizer]])


def _by_rule(
    subject: Subject, side: str, optimizer: str
) -> tuple[Strategy | None, list[Gradients]]:
    """The strategy with the rule ``skip``, and steps of which it skips the last; None if never."""

    @cache  # as far as any setting needs them
    def spiked(step: int) -> Gradients:
        return gradients(SHAPES, step, subject.seed, SPIKES.get(step, 1e-3))

    for settings in ({}, *subject.sweep(3)[:2]):  # small limits bind sooner
        strategy = subject.try_create(
            rule="skip", floor=0.0, side=side, **subject.short, **settings
        )
        if strategy is None:
            continue
        loop = Loop(strategy, OPTIMIZERS[optimizer], attached=True, seed=subject.seed)
        for step in range(max(SPIKES) + 1):
            if bool(loop.step(spiked(step)).skipped):
                if not step:  # there is nothing yet that could be changed
                    break
                return strategy, [spiked(each) for each in range(step + 1)]
    return None, []


def _left_out(
    subject: Subject,
    strategy: Strategy,
    optimizer: str,
    steps: list[Gradients],
    modes: Iterable[str] = CALL_MODES,
) -> Iterator[str]:
    for mode in modes:
        attached, closure = CALL_MODES[mode]
        loop = Loop(strategy, OPTIMIZERS[optimizer], attached=attached, seed=subject.seed)
        for grads in steps[:-1]:
            loop.step(grads, closure=closure)
        before = loop.state
        report = loop.step(steps[-1], closure=closure)
        setting = f"{shown(strategy)}, {optimizer} {mode}"
        if not bool(report.skipped):
            yield f"{setting}: a step that is to be skipped is not called so"
        for name in changes(before, loop.state):
            old, new = before.get(name), loop.state.get(name)
            yield f"{setting}: a skipped step changes {name} from {_size(old)} to {_size(new)}"
            break


def _size(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    return f"{float(tensor):g}" if tensor.ndim == 0 else f"a norm of {float(tensor.norm()):.7g}"


@promise("a compiled step gives the plain one's values, and is not compiled again and again")
def compiled_steps(subject: Subject) -> Iterator[str]:
    strategy, broken = subject.cls(), False
    for attached in (True, False):
        expected = _trained(subject, strategy, attached, None)
        try:
            actual, compiler = _trained(subject, strategy, attached, subject.compiler), ""
        except Exception as error:
            if "InvalidCxxCompiler" not in f"{type(error)} {error}":
                raise
            actual, compiler = _trained(subject, strategy, attached, "aot_eager"), "aot_eager"
        for message in _compared(actual, expected):
            broken = True
            yield f"{'optimizer' if attached else 'clipper'}.step() compiled: {message}"
    if compiler and not broken:
        raise DoesNotApply(
            "torch's inductor finds no C++ compiler here; compiled by aot_eager it is kept"
        )


class _Trained(NamedTuple):
    """What compiled steps led to: the parameters, and how many graphs there were, after each."""

    states: list[State]
    graphs: list[int]


def _trained(
    subject: Subject, strategy: Strategy, attached: bool, compiler: str | None
) -> _Trained:
    from torch._dynamo.utils import counters  # what compiling counts; it takes a second to load

    torch.compiler.reset()
    counters.clear()
    trained = _Trained([], [])
    loop = Loop(
        strategy,
        _sgd,
        attached=attached,
        seed=subject.seed,
        shapes=COMPILED_SHAPES,
        compiler=compiler,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about itself
        for step in range(COMPILED_STEPS):
            loop.step(gradients(COMPILED_SHAPES, step, subject.seed, 30.0 if step % 2 else 1.0))
            trained.states.append(loop.state)
            trained.graphs.append(counters["stats"]["unique_graphs"])
    torch.compiler.reset()
    return trained


_sgd: MakeOptimizer = partial(torch.optim.SGD, lr=0.1)


def _compared(actual: _Trained, expected: _Trained) -> Iterator[str]:
    for step, (state, expected_state) in enumerate(
        zip(actual.states, expected.states, strict=True)
    ):
        for name, reference in expected_state.items():
            if apart(state[name], reference, 1e-4, 1e-6):
                a, b = float(state[name].norm()), float(reference.norm())
                yield f"step {step} leaves {name} with a norm of {a:.7g}, and {b:.7g} otherwise"
                return
    if not actual.graphs[-1]:
        yield "no graph is made of it"
    early, total = actual.graphs[WARMUP_STEPS - 1], actual.graphs[-1]
    if early != total:
        yield (
            f"{early} graphs are compiled for the first {WARMUP_STEPS} steps, and {total} for "
            f"{COMPILED_STEPS}: it is compiled again and again"
        )
