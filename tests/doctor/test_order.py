"""When a loop clips: each fault, and the loop without it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import gclip
from tests.doctor.loops import Training, line_of

SMALL = 1e-3  # of the order of nothing: always reached
FAULTS = ("after-step", "before-backward", "empty-list", "scaled", "micro-batches", "subsets",
          "twice")  # fmt: skip


def faults(found: gclip.Findings) -> set[str]:
    return set(found.codes).intersection(FAULTS)


def test_a_good_loop_has_no_fault() -> None:
    t = Training()
    assert not faults(t.loop(lambda: clip_grad_norm_(t.params, 1.0)))
    assert not faults(t.loop(lambda: clip_grad_norm_(t.model.parameters(), 1.0)))


@pytest.mark.parametrize("zero", [True, False], ids=["zero_grad first", "zero_grad last"])
@pytest.mark.parametrize("to_none", [True, False])
def test_after_the_step(zero: bool, to_none: bool) -> None:
    t = Training()

    def step() -> None:
        if zero:
            t.optimizer.zero_grad(set_to_none=to_none)
        t.loss().backward()
        t.optimizer.step()
        clip_grad_norm_(t.params, 1.0)
        if not zero:
            t.optimizer.zero_grad(set_to_none=to_none)

    found = t.examine(step)
    assert faults(found) == {"after-step"}
    assert found.of("after-step").severity == "wrong"
    assert found.of("after-step").where == line_of(step, "clip_grad_norm_")
    assert found.of("after-step").numbers == {"calls": 10, "late": 10}


def test_at_the_start_of_the_loop_is_after_the_step() -> None:
    t = Training()

    def step() -> None:
        clip_grad_norm_(t.params, 1.0)
        t.optimizer.zero_grad()
        t.loss().backward()
        t.optimizer.step()

    assert faults(t.examine(step)) == {"after-step"}


def test_before_the_backward_pass() -> None:
    t = Training()

    def step() -> None:
        t.optimizer.zero_grad()
        clip_grad_norm_(t.params, 1.0)
        t.loss().backward()
        t.optimizer.step()

    found = t.examine(step)
    assert faults(found) == {"before-backward"}
    assert "finds no gradients" in found.of("before-backward").sentence
    assert found.of("before-backward").where == line_of(step, "clip_grad_norm_")


def test_before_the_backward_pass_on_gradients_never_cleared() -> None:
    t = Training()

    def step() -> None:
        clip_grad_norm_(t.params, 1.0)
        t.loss().backward()
        t.optimizer.step()

    found = t.examine(step)
    assert faults(found) == {"before-backward"}
    assert "of the step before" in found.of("before-backward").sentence
    assert found.of("before-backward").numbers["stale"] == 9


def test_a_generator_that_is_used_up() -> None:
    t = Training()
    kept = t.model.parameters()
    with pytest.warns(UserWarning, match="empty generator"):  # torch's own still comes
        found = t.loop(lambda: clip_grad_norm_(kept, 1.0))
    assert "empty-list" in faults(found)
    assert found.of("empty-list").numbers == {"calls": 10, "without parameters": 9}


@pytest.mark.parametrize("unscale", [False, True])
def test_scaled_gradients(unscale: bool) -> None:
    t = Training()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step() -> None:
        t.optimizer.zero_grad()
        scaler.scale(t.loss()).backward()
        if unscale:
            scaler.unscale_(t.optimizer)
        clip_grad_norm_(t.params, 1.0)
        scaler.step(t.optimizer)
        scaler.update()

    found = t.examine(step)
    assert faults(found) == (set() if unscale else {"scaled"})
    if not unscale:
        assert found.of("scaled").numbers["scale"] == 1024
        assert found.of("scaled").numbers["true limit"] == 1 / 1024
        assert found.of("scaled").where == line_of(step, "clip_grad_norm_")


def test_a_scaler_that_is_switched_off_scales_nothing() -> None:
    t = Training()
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def step() -> None:
        t.optimizer.zero_grad()
        scaler.scale(t.loss()).backward()
        clip_grad_norm_(t.params, 1.0)
        scaler.step(t.optimizer)
        scaler.update()

    assert not faults(t.examine(step))


@pytest.mark.parametrize("where", ["each", "last but one", "once"])
def test_micro_batches(where: str) -> None:
    t = Training()

    def step() -> None:
        t.optimizer.zero_grad()
        for micro in range(3):
            (t.loss() / 3).backward()
            if where == "each" or (where == "last but one" and micro == 1):
                clip_grad_norm_(t.params, SMALL)
        if where == "once":
            clip_grad_norm_(t.params, SMALL)
        t.optimizer.step()

    found = t.examine(step)
    assert faults(found) == (set() if where == "once" else {"micro-batches"})
    if where == "once":
        return
    finding = found.of("micro-batches")
    clips = 3 if where == "each" else 1
    assert finding.numbers == {"backward passes a step": 3, "clips a step": clips}
    assert ("after each" if where == "each" else "before the last") in finding.sentence


@pytest.mark.parametrize("each", [True, False])
def test_micro_batches_by_hand(each: bool) -> None:
    t = Training()

    def clip() -> None:
        for p in t.params:
            assert p.grad is not None
            p.grad.clamp_(-0.01, 0.01)

    def step() -> None:
        t.optimizer.zero_grad()
        for _ in range(3):
            t.loss().backward()
            if each:
                clip()
        clip()
        t.optimizer.step()

    found = t.examine(step)
    assert faults(found) == ({"micro-batches"} if each else set())
    if each:
        assert "after each of the 3" in found.of("micro-batches").sentence


def test_two_networks_that_are_stepped_apart_do_not_accumulate() -> None:
    """A GAN: the generator's loss leaves gradients at the discriminator, which are cleared."""
    one, other = Training(), Training()
    joint = torch.nn.ModuleList([one.model, other.model])

    def step() -> None:
        for mine, rest in ((one, other), (other, one)):
            mine.optimizer.zero_grad()
            (mine.loss() + 0.1 * rest.loss()).backward()
            clip_grad_norm_(mine.params, 1.0)
            mine.optimizer.step()

    found = one.examine(
        step, model=joint, optimizer={"one": one.optimizer, "other": other.optimizer}
    )
    assert not faults(found)
    assert found.setting == "10 steps of one (SGD), 10 steps of other (SGD) watched"


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_the_parameters(parts: int) -> None:
    t = Training()
    size = 4 // parts

    def clip() -> None:
        for part in range(parts):
            clip_grad_norm_(t.params[part * size : (part + 1) * size], 0.5)

    found = t.loop(clip)
    assert faults(found) == (set() if parts == 1 else {"subsets"})
    if parts > 1:
        finding = found.of("subsets")
        assert finding.severity == "doubtful"
        assert finding.numbers == {
            "parts": parts,
            "largest norm together": pytest.approx(0.5 * parts**0.5),
        }
        assert ("one parameter at a time" in finding.sentence) == (parts == 4)
        assert finding.where == line_of(clip, "clip_grad_norm_")


def test_parts_by_the_norm_of_all_are_one_clip() -> None:
    t = Training()

    def clip() -> None:
        total = torch.nn.utils.get_total_norm([p.grad for p in t.params if p.grad is not None])
        for part in (t.params[:2], t.params[2:]):
            torch.nn.utils.clip_grads_with_norm_(part, 0.01, total)

    assert not faults(t.loop(clip))


def test_parts_by_value_are_one_clip() -> None:
    t = Training()
    assert not faults(t.loop(lambda: [clip_grad_value_(p, 0.01) for p in t.params]))


def test_twice() -> None:
    t = Training()

    def clip() -> None:
        clip_grad_norm_(t.params, 1.0)
        clip_grad_value_(t.params, 0.1)

    found = t.loop(clip)
    assert faults(found) == {"twice"}
    first, second = line_of(clip, "norm_"), line_of(clip, "value_")
    assert found.of("twice").where == f"{first} and {second}"
    assert found.of("twice").numbers == {"steps": 10}
    assert "clip_grad_norm_ (limit 1), then by clip_grad_value_ (limit 0.1)" in (
        found.of("twice").sentence
    )


def test_twice_by_gclip_and_by_the_loop() -> None:
    t = Training()
    with gclip.attach(t.optimizer, "norm(max_norm=0.01)"):
        found = t.loop(lambda: clip_grad_norm_(t.params, 0.1))
    assert faults(found) == {"twice"}
    assert "gclip's norm(max_norm=0.01)" in found.of("twice").sentence


def test_twice_by_hand_and_by_a_call() -> None:
    t = Training()

    def clip() -> None:
        for p in t.params:
            assert p.grad is not None
            p.grad.data.clamp_(-0.02, 0.02)  # data: versions do not tell
        clip_grad_norm_(t.params, SMALL)

    found = t.loop(clip)
    assert faults(found) == {"twice"}
    assert "lines of the loop that make gradients smaller" in found.of("twice").sentence


def test_a_mean_over_micro_batches_is_no_clip() -> None:
    t = Training()

    def clip() -> None:
        for p in t.params:
            assert p.grad is not None
            p.grad /= 4
        clip_grad_norm_(t.params, 1.0)

    assert not faults(t.loop(clip))
