"""Promises about saved states: the parameters are found by name, and no others are taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gclip.errors import UsageError
from gclip.testing.comparing import differ
from gclip.testing.gradients import SHAPES, Shapes, gradients
from gclip.testing.promises import promise
from gclip.testing.rigs import Rig
from gclip.testing.subject import Subject

BEFORE, AFTER = 25, 6
BACKWARDS: Shapes = {name: SHAPES[name] for name in reversed(list(SHAPES))}


@promise("a state finds its parameters by name, in any order, and is refused by others")
def by_name(subject: Subject) -> Iterator[str]:
    for settings in [{}, *subject.apart_if_any()]:
        yield from _in_another_order(subject, settings)
    rig = subject.rig()
    rig.run(0, 3)
    for shapes, name, how in _other_parameters():
        try:
            subject.rig(shapes=shapes).load(rig.saved())
        except UsageError as error:
            if name not in str(error):
                yield f"a state is refused {how}, without naming {name}: {error}"
        else:
            yield f"a state is loaded {how}"


def _in_another_order(subject: Subject, settings: dict[str, Any]) -> Iterator[str]:
    strategy = subject.create(**settings)
    fresh, backwards = subject.rig(strategy), _backwards(subject, settings)
    for step in range(AFTER):  # some tell groups by their place, to draw a number for each, say
        if list(_apart(backwards, fresh, step)):
            return
    source, same, other = (
        subject.rig(strategy),
        subject.rig(strategy),
        _backwards(subject, settings),
    )
    source.run(0, BEFORE)
    for rig in (same, other):
        rig.load(source.saved())
    for step in range(BEFORE, BEFORE + AFTER):
        messages = list(_apart(other, same, step))
        if messages:
            yield f"loaded by parameters in another order, {messages[0]}"
            return


def _backwards(subject: Subject, settings: dict[str, Any]) -> Rig:
    rig = subject.rig(subject.create(**settings), shapes=BACKWARDS)
    rig.copy_parameters(subject.rig())
    return rig


def _apart(rig: Rig, other: Rig, step: int) -> Iterator[str]:
    grads = gradients(SHAPES, step, rig.seed)
    actual, expected = rig.step(grads).grads, other.step(grads).grads
    return differ(step, actual, expected, rig, "in the order of the state")


def _other_parameters() -> Iterator[tuple[Shapes, str, str]]:
    name, shape = "head.weight", SHAPES["head.weight"]
    without = {each: size for each, size in SHAPES.items() if each != name}
    yield without, name, f"where {name} is missing"
    yield {**without, "tail.weight": shape}, name, f"where {name} has another name"
    yield {**SHAPES, name: shape[::-1]}, name, f"where {name} has another shape"
    yield {**SHAPES, "tail.bias": (2,)}, "tail.bias", "where there is tail.bias as well"
