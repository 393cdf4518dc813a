"""Every registered strategy against every promise, and the promises against broken strategies."""

from __future__ import annotations

import pytest
import torch

import gclip
from gclip.clipping import parameter_sources
from gclip.clipping.parameters import Named
from gclip.testing import ContractBroken, check_strategy, examine, promises
from gclip.testing.promises import Result
from tests.testing import broken_strategies as broken

PROMISES = tuple(promise.name for promise in promises())

# The C++ that torch writes for a step depends on the scope, the rule and the side, and on whether
# elements are changed. These are compiled by it here, all of them by `make drills`.
BY_INDUCTOR = ("norm", "agc", "spam", "update_rms")


def way(name: str) -> tuple[object, ...]:
    """What decides which way a whole step goes through gclip's own code, scopes apart."""
    cls = gclip.get(name)
    transforms, remembers = issubclass(cls, gclip.Transform), cls.learn is not gclip.Strategy.learn
    return transforms, remembers, cls().side, cls().rule


# Each strategy's own code is compiled by the promise `compiled`. Whole steps are compiled here for
# one strategy of each way, and by `make drills` for all.
WAYS = {way(name): name for name in (*reversed(gclip.names()), *BY_INDUCTOR)}
PAIRS = [
    (name, promise)
    for name in gclip.names()
    for promise in PROMISES
    if promise != "compiled_steps" or (name in WAYS.values() and name not in BY_INDUCTOR)
]


def breaks(results: list[Result]) -> dict[str, str]:
    return {r.promise: " | ".join(r.said) for r in results if r.state == "broken"}


@pytest.mark.parametrize(("name", "promise"), PAIRS)
def test_every_strategy_keeps_every_promise(name: str, promise: str) -> None:
    check_strategy(gclip.get(name), only=[promise], compiler="eager")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in BY_INDUCTOR else pytest.mark.drill) for n in gclip.names()],
)
def test_a_step_compiled_to_c_gives_the_plain_ones_values(name: str) -> None:
    (result,) = check_strategy(gclip.get(name), only=["compiled_steps"], compiler="inductor")
    assert result.state == "ok" or "finds no C++ compiler" in result.said[0]


def test_a_clipper_that_counts_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_them(parameters: object) -> Named:
        names, params = zip(*parameters, strict=True)  # type: ignore[call-overload]
        return Named(names, names, params, True)

    monkeypatch.setattr(parameter_sources, "collect", all_of_them)
    found = breaks(examine(broken.Sound, only=["listed_twice"]))
    assert "listed once" in found["listed_twice"]


def test_a_compiled_step_that_is_another_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gclip.Clipper.step

    def step(self: gclip.Clipper) -> gclip.ClipReport:
        report = plain(self)
        if torch.compiler.is_compiling():
            for param in self.params:
                param.grad.mul_(2)  # type: ignore[union-attr]
        return report

    monkeypatch.setattr(gclip.Clipper, "step", step)
    found = breaks(examine(broken.Sound, only=["compiled_steps"], compiler="eager"))
    assert "optimizer.step() compiled: step 0 leaves stem.scale with" in found["compiled_steps"]
    assert "clipper.step() compiled: step 0 leaves " in found["compiled_steps"]


def test_a_step_that_is_compiled_anew_each_time_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gclip.Clipper.step
    steps = {"made": 0}

    def step(self: gclip.Clipper) -> gclip.ClipReport:
        steps["made"] += 1
        self.names = [f"{steps['made']}"]
        return plain(self)

    monkeypatch.setattr(gclip.Clipper, "step", step)
    found = breaks(examine(broken.Sound, only=["compiled_steps"], compiler="eager"))
    assert "it is compiled again and again" in found["compiled_steps"]


def test_a_promise_is_not_kept_by_what_never_comes_to_it() -> None:
    (result,) = check_strategy(broken.HalvesEverything, only=["within_limit"])
    assert result.state == "does not apply"
    assert result.said[0].startswith("it changes every element of gradients of every size")


class TestSentences:
    """A breach is told with its numbers, where it is, and all breaches together."""

    def test_a_hidden_state(self) -> None:
        found = breaks(examine(broken.KeepsItself, compiler="eager"))
        assert "after saving and loading, step 26's clipped norm is " in found["saved"]
        assert ", not " in found["saved"]
        assert "reads_only" in found

    def test_clipping_twice(self) -> None:
        found = breaks(examine(broken.HiddenState, only=["limit", "another_process"]))
        assert "clipped again, the norm of " in found["limit"]
        assert "step 1 differs: a norm of " in found["another_process"]

    def test_a_branch_on_a_value(self) -> None:
        found = breaks(examine(broken.WaitsForTheGpu, compiler="eager"))
        assert set(found) == {"batched", "no_waiting", "compiled"}
        assert found["no_waiting"].startswith(
            "raised RuntimeError: the host reads a tensor's value"
        )
        assert "of broken_strategies.py)" in found["no_waiting"]

    def test_a_negative_limit(self) -> None:
        found = breaks(examine(broken.NegativeLimit, only="limit"))
        said = "NegativeLimit: limit() must return numbers of at least 0, but returned -61.5055"
        assert said in found["limit"]

    def test_all_of_them_in_one_error(self) -> None:
        with pytest.raises(ContractBroken) as raised:
            check_strategy(broken.WaitsForTheGpu, compiler="eager")
        message = str(raised.value)
        assert message.startswith(f"WaitsForTheGpu breaks 3 promises of {len(PROMISES)}\n")
        assert "\n  batched: step 4: run " in message
        assert "\n  no_waiting: raised " in message
        assert "\n  compiled: raised " in message
        assert isinstance(raised.value, AssertionError)
        assert [r.promise for r in raised.value.results] == list(PROMISES)


def test_results_of_one_that_keeps_its_promises() -> None:
    results = check_strategy(gclip.get("norm"), compiler="eager")
    assert [r.promise for r in results] == list(PROMISES)
    assert all(r.said for r in results if r.state == "does not apply")
    assert not any(r.said for r in results if r.state == "ok")


def test_the_seed_draws_other_gradients() -> None:
    assert not breaks(examine(gclip.get("zclip"), seed=7, only=["saved", "batched", "late"]))


def test_an_excuse_is_shown() -> None:
    (result,) = check_strategy(broken.Excused, only=["no_waiting"])
    assert result.state == "does not apply"
    assert result.said == ("the largest norm is found on the host",)


def test_wrong_input() -> None:
    with pytest.raises(gclip.UsageError, match="unknown promise 'limits'; did you mean 'limit'"):
        check_strategy(gclip.get("norm"), only=["limits"])
    with pytest.raises(gclip.UsageError, match="takes a dataclass derived from Strategy"):
        check_strategy(gclip.create("norm"))  # type: ignore[arg-type]
    with pytest.raises(gclip.UsageError, match="takes a dataclass derived from Strategy"):
        check_strategy(gclip.Strategy)


def test_a_class_that_no_other_process_finds() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Local(broken.Sound):
        """Inside a function."""

    (result,) = check_strategy(Local, only=["another_process"])
    assert result.state == "does not apply"
    assert "inside a function" in result.said[0]
