"""The promises against broken strategies: one that cannot be broken would be worth nothing."""

from __future__ import annotations

import pytest
import torch

import gclip
from gclip.testing import examine, promises
from gclip.testing.promises import Result
from tests.testing import broken_strategies as broken

PROMISES = tuple(promise.name for promise in promises())
MODULES = {promise.name: promise.check.__module__ for promise in promises()}

# Each breaks exactly this promise.
BREAKS = {
    broken.Undocumented: "documented",
    broken.OutsideItsRange: "documented",
    broken.Unchecked: "checked",
    broken.RefusesItsRange: "checked",
    broken.RoundsItsSpelling: "spelled",
    broken.IgnoresSchedules: "scheduled",
    broken.NegativeLimit: "limit",
    broken.Rounds: "within_limit",
    broken.FailsWhenSoft: "combinations",
    broken.FailsOnUpdates: "combinations",
    broken.WritesToNorms: "reads_only",
    broken.AddsToZero: "zero",
    broken.CountsMissing: "missing",
    broken.LearnsFromMissing: "late",
    broken.LearnsFromInf: "not_finite",
    broken.SpreadsSquares: "large",
    broken.ViewsMatrices: "layout",
    broken.DividesByWeights: "tiny",
    broken.ComputesInHalf: "half",
    broken.RemembersATuple: "saved",
    broken.MixesRuns: "batched",
    broken.LooksAtDtype: "precision",
    broken.KeepsItsDtype: "mid_training",
    broken.LooksAtDevice: "cuda",
    broken.GoesThroughTheHost: "no_waiting",
    broken.LeavesTheGraph: "compiled",
    broken.HashesText: "another_process",
    broken.RepairsWeights: "skipped",
    broken.LearnsFromZeros: "zero_step",
    broken.SilencesNewcomers: "late",
    broken.StacksItsMemory: "by_name",
    broken.StartsAtTheStorage: "shared_memory",
    broken.ComputesInSingle: "float64",
}
# And these only the library itself can break.
LIBRARY = ("listed_twice", "compiled_steps")

# These take seconds, in processes and compilers of their own: of those that break another promise
# only the sound ones that they derive from are held to them.
SLOW = ("another_process", "compiled_steps")


def alike(promise: str, other: str) -> bool:
    """Whether two promises are about the same theme."""
    return MODULES[promise] == MODULES[other]


def breaks(results: list[Result]) -> dict[str, str]:
    return {r.promise: " | ".join(r.said) for r in results if r.state == "broken"}


@pytest.mark.parametrize("cls", [broken.Sound, broken.SoundTransform, broken.SoundMemory])
def test_what_the_broken_ones_derive_from_is_sound(cls: type[gclip.Strategy]) -> None:
    assert not breaks(examine(cls, compiler="eager"))


@pytest.mark.parametrize("others", ["alike", pytest.param("all", marks=pytest.mark.drill)])
@pytest.mark.parametrize("cls", BREAKS, ids=lambda cls: cls.__name__)
def test_a_broken_strategy_breaks_this_promise_and_no_other(
    cls: type[gclip.Strategy], others: str
) -> None:
    promise = BREAKS[cls]
    if promise == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    if promise == "spelled":
        gclip.register("rounds_its_spelling")(cls)
    held = [
        name
        for name in PROMISES
        if name == promise or (name not in SLOW and (others == "all" or alike(name, promise)))
    ]
    found = breaks(examine(cls, only=held, compiler="eager"))
    assert set(found) == {promise}, found


@pytest.mark.parametrize("attribute", ["equation", "paper"])
def test_a_strategy_that_ships_says_its_equation_and_paper(
    attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of somebody else may leave them out, but what it says is text."""
    for cls, text, broken_by in (
        (gclip.get("agc"), " ", f"{attribute} must be a text such as"),
        (broken.Sound, "", None),
        (broken.Sound, 2.0, f"{attribute} must be a text such as"),
    ):
        monkeypatch.setattr(cls, attribute, text)
        found = breaks(examine(cls, only=["documented"])).get("documented")
        assert found is None if broken_by is None else found and broken_by in found


def test_every_promise_can_be_broken() -> None:
    assert {*BREAKS.values(), *LIBRARY} == set(PROMISES)
