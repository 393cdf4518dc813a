"""What a loop clips: each fault, and the loop without it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

import gclip
from tests.doctor.loops import Training, line_of

FAULTS = ("duplicates", "unclipped", "unstepped", "shards")


def faults(found: gclip.Findings) -> set[str]:
    return set(found.codes).intersection(FAULTS)


def test_all_parameters_once() -> None:
    t = Training()
    assert not faults(t.loop(lambda: clip_grad_norm_(t.params, 1.0)))


def test_parameters_listed_twice() -> None:
    t = Training()

    def clip() -> None:
        clip_grad_norm_([*t.params, *t.params[:2]], 1.0)

    found = t.loop(clip)
    assert faults(found) == {"duplicates"}
    assert found.of("duplicates").severity == "wrong"
    assert found.of("duplicates").numbers == {"listed again": 2, "calls": 10}
    assert found.of("duplicates").where == line_of(clip, "clip_grad_norm_")


def test_parameters_that_nothing_clips() -> None:
    t = Training()
    found = t.loop(lambda: clip_grad_norm_(t.params[:2], 1.0))
    assert faults(found) == {"unclipped"}
    finding = found.of("unclipped")
    assert "2 parameters of SGD are never clipped" in finding.sentence
    assert "2.weight and 2.bias" in finding.sentence
    assert 0 < finding.numbers["share of the squared norm"] < 1  # type: ignore[operator]


def test_parameters_without_gradients_need_no_clip() -> None:
    t = Training()
    t.model[2].requires_grad_(False)
    assert not faults(t.loop(lambda: clip_grad_norm_(t.params[:2], 1.0)))


def test_gclip_clips_what_it_is_given() -> None:
    t = Training()
    clipper = gclip.Clipper(t.model, "norm(max_norm=1)", exclude=["2.bias"])
    found = t.loop(clipper.step)
    # a clipper's parameters are all that it was given; those excluded are meant to be
    assert faults(found) <= {"unclipped"}


def test_parameters_that_no_optimizer_steps() -> None:
    t = Training()
    t.optimizer = torch.optim.SGD(t.model[0].parameters(), lr=0.01)

    def clip() -> None:
        clip_grad_norm_(t.params, 1.0)

    def step() -> None:
        t.model.zero_grad()
        t.loss().backward()
        clip()
        t.optimizer.step()

    found = t.examine(step)
    assert faults(found) == {"unstepped"}
    finding = found.of("unstepped")
    assert finding.severity == "wrong"
    assert "2 parameters that no optimizer steps: 2.weight and 2.bias" in finding.sentence
    assert finding.where == line_of(clip, "clip_grad_norm_")


def test_an_optimizer_that_was_not_named_steps_too() -> None:
    t = Training()
    t.optimizer = torch.optim.SGD(t.model[0].parameters(), lr=0.01)
    other = torch.optim.SGD(t.model[2].parameters(), lr=0.01)

    def step() -> None:
        t.model.zero_grad()
        t.loss().backward()
        clip_grad_norm_(t.params, 1.0)
        t.optimizer.step()
        other.step()

    assert not faults(t.examine(step))


def test_another_model_is_none_of_the_doctors_business() -> None:
    t, other = Training(), Training()

    def step() -> None:
        t.optimizer.zero_grad()
        t.loss().backward()
        clip_grad_norm_(t.params, 1.0)
        t.optimizer.step()
        other.optimizer.zero_grad()
        other.loss().backward()
        other.optimizer.step()

    found = t.examine(step)
    assert not faults(found)
    assert found.setting == "10 steps of SGD watched"


class FlatParameter(nn.Parameter):
    """Named as FSDP's, by which it is known."""


@pytest.mark.parametrize("kind", [FlatParameter, nn.Parameter])
def test_flat_parameters_of_fsdp(kind: type[nn.Parameter]) -> None:
    t = Training()
    for module in (t.model[0], t.model[2]):
        module.weight = kind(module.weight.detach())  # type: ignore[assignment]
    t.optimizer = torch.optim.SGD(t.model.parameters(), lr=0.01)
    found = t.loop(lambda: clip_grad_norm_(t.model.parameters(), 1.0))
    assert faults(found) == ({"shards"} if kind is FlatParameter else set())


def test_a_view_of_a_flat_parameter() -> None:
    t = Training()
    t.params[0]._fsdp_flattened = True  # type: ignore[attr-defined]
    assert faults(t.loop(lambda: clip_grad_norm_(t.params, 1.0))) == {"shards"}
