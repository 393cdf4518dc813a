"""Watching changes nothing: the same bits, and nothing left behind."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad, clip_grad_norm_, clip_grad_value_
from torch.optim import optimizer as optimizers

import gclip
from gclip.doctor.measure import largest_element, norms_of
from tests.doctor.loops import Training, line_of


def state_of_the_world() -> list[Any]:
    """All that a doctor puts itself between."""
    names = ("clip_grad_norm_", "clip_grad_value_", "_clip_grads_with_norm_", "_get_total_norm")
    functions = [vars(clip_grad)[name] for name in names]
    wrapped = [f for f in [*functions, gclip.Clipper.step] if f.__closure__]
    assert len(wrapped) == 5
    inner = [cell.cell_contents for f in wrapped for cell in f.__closure__]
    before, after = optimizers._global_optimizer_pre_hooks, optimizers._global_optimizer_post_hooks
    methods = [gclip.Clipper.step, GradScaler.scale, GradScaler.unscale_, GradScaler.step]
    return [torch.autograd.backward, *functions, *inner, *methods, dict(before), dict(after)]


LOOPS = ("plain", "accumulated", "scaled", "closure", "attached", "by hand", "sparse")


def train(kind: str, steps: int, watched: bool) -> Iterator[Tensor]:
    """Every parameter and gradient after some steps, and what the clips returned."""
    make = {"closure": torch.optim.LBFGS, "scaled": torch.optim.Adam}.get(kind, torch.optim.SGD)
    t = Training(make=make)
    if kind == "sparse":
        t.model.append(nn.Embedding(7, 1, sparse=True))
        t.optimizer = torch.optim.SGD(t.model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    returned: list[Tensor] = []

    def step() -> None:
        t.optimizer.zero_grad()
        if kind == "sparse":
            (
                t.model[:3](torch.ones(2, 4)).sum() * t.model[3](torch.tensor([1, 1, 2])).sum()
            ).backward()
            for p in t.params:
                assert p.grad is not None
                p.grad = p.grad * 0.5
        elif kind == "scaled":
            scaler.scale(t.loss()).backward()
            scaler.unscale_(t.optimizer)
            returned.append(clip_grad_norm_(t.model.parameters(), 0.1))
            scaler.step(t.optimizer)
            scaler.update()
            return
        else:
            for _ in range(3 if kind == "accumulated" else 1):
                t.loss().backward()
                clip_grad_value_(t.params, 0.2)
        if kind == "by hand":
            for p in t.params:
                assert p.grad is not None
                p.grad.data.clamp_(-0.02, 0.02)
        elif kind != "sparse":
            returned.append(clip_grad_norm_(t.params, max_norm=0.1, norm_type=1.0))
        t.optimizer.step()

    def with_closure() -> None:
        def closure() -> Tensor:
            t.optimizer.zero_grad()
            loss = t.loss()
            loss.backward()
            returned.append(clip_grad_norm_(t.params, 0.1))
            return loss

        t.optimizer.step(closure)

    if kind == "attached":
        gclip.attach(t.optimizer, "percentile(p=10)")
    one = with_closure if kind == "closure" else step
    if watched:
        t.examine(one, steps)
    else:
        for _ in range(steps):
            one()
    yield from (p.detach().clone() for p in t.params)
    yield from (p.grad.to_dense() for p in t.params if p.grad is not None)
    yield from returned


@pytest.mark.parametrize("kind", LOOPS)
def test_the_same_bits(kind: str) -> None:
    torch.manual_seed(0)
    alone = list(train(kind, 6, watched=False))
    random = torch.rand(3)
    torch.manual_seed(0)
    seen = list(train(kind, 6, watched=True))
    assert len(alone) == len(seen)
    assert all(torch.equal(one, other) for one, other in zip(alone, seen, strict=True))
    assert torch.equal(random, torch.rand(3))  # nor was a random number drawn


def test_nothing_is_left_behind() -> None:
    before = state_of_the_world()
    t = Training()
    with gclip.doctor(t.model, t.optimizer):
        assert state_of_the_world() != before
    assert state_of_the_world() == before
    with pytest.raises(KeyError), gclip.doctor(t.model, t.optimizer):
        raise KeyError
    assert state_of_the_world() == before


def test_an_exception_within_a_clip_or_a_pass_does_not_blind_it() -> None:
    t = Training()

    def step() -> None:
        t.optimizer.zero_grad()
        with pytest.raises(RuntimeError):
            torch.zeros(2, requires_grad=True).backward()  # no scalar
        with pytest.raises(TypeError):
            clip_grad_norm_(t.params)  # type: ignore[call-arg]
        t.loss().backward()
        clip_grad_norm_(t.params, 100.0)
        t.optimizer.step()

    assert t.examine(step).codes == ("never",)


def test_a_closure_that_is_evaluated_often() -> None:
    t = Training(make=torch.optim.LBFGS)

    def step() -> None:
        def closure() -> Tensor:
            t.optimizer.zero_grad()
            loss = t.loss()
            loss.backward()
            clip_grad_norm_(t.params, 0.01)
            return loss

        t.optimizer.step(closure)

    found = t.examine(step)
    assert not found.wrong
    assert found.codes == ("always",)


def test_findings_within_the_block_are_those_so_far() -> None:
    t = Training()
    with gclip.doctor(t.model, t.optimizer) as examined:
        assert examined.findings.codes == ("no-steps",)
        t.loss().backward()
        t.optimizer.step()
        assert examined.findings.codes == ("none",)


def test_the_line_through_a_library_is_the_users(tmp_path: Any, monkeypatch: Any) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "frame.py").write_text(
        "from torch.nn.utils import clip_grad_norm_\n"
        "def clip(params, limit):\n    clip_grad_norm_(params, limit)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    import frame  # type: ignore[import-not-found]

    t = Training()

    def clip() -> None:
        frame.clip(t.params, 100.0)
        clip_grad_norm_(t.params, 100.0)

    found = t.loop(clip)
    assert found.of("never").where == line_of(clip, "frame.clip") + ", through frame"
    assert "once by frame: by clip_grad_norm_" in found.of("twice").sentence


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda t: gclip.doctor(t.model, 3), "but got int"),
        (lambda t: gclip.doctor(t.model, []), "but got none"),
        (lambda t: gclip.doctor(3, t.optimizer), "torch Module, or several"),
        (lambda t: gclip.doctor(nn.ReLU(), t.optimizer), "no parameters"),
        (lambda t: gclip.doctor(3, t.optimizer, model=t.model), "makes one step, but got int"),
        (lambda t: t.examine(lambda: None, 0), "at least 1, but got 0"),
        (lambda t: gclip.doctor(t.model, t.optimizer).findings, "nothing was watched yet"),
        (lambda t: t.examine(lambda: t.examine(lambda: None)), "watching already"),
        (lambda t: t.examine(t.optimizer.step).of("twise"), "no finding 'twise'"),
    ],
)
def test_misuse(call: Any, said: str) -> None:
    with pytest.raises(gclip.UsageError, match=said):
        call(Training())


def test_a_doctor_watches_once() -> None:
    t = Training()
    examined = gclip.doctor(t.model, t.optimizer)
    with examined:
        pass
    with pytest.raises(gclip.UsageError, match="watches once"), examined:
        pass


@pytest.mark.parametrize("hooks", [True, False], ids=["with hooks of its own", "without"])
@pytest.mark.parametrize("given", [True, False])
def test_wrapped_optimizers_are_the_innermost(hooks: bool, given: bool) -> None:
    """As Accelerate wraps them."""

    class Wrapper(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            if hooks:
                type(self).step = torch.optim.Optimizer.profile_hook_step(type(self).step)
                self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = {}, {}
            self.optimizer = inner

        def _optimizer_step_code(self) -> None:
            pass

        @property
        def param_groups(self) -> Any:  # type: ignore[override]
            return self.optimizer.param_groups

        def zero_grad(self, set_to_none: bool = True) -> None:
            self.optimizer.zero_grad(set_to_none)

        def step(self, closure: Any = None) -> Any:
            return self.optimizer.step(closure)

    t = Training()
    inner = t.optimizer
    t.optimizer = Wrapper(inner)

    def step() -> None:
        t.optimizer.zero_grad()
        t.loss().backward()
        clip_grad_norm_(t.params, 100.0)
        t.optimizer.step()

    found = t.examine(step, optimizer=t.optimizer if given else inner)
    assert found.codes == ("never",)
    assert found.setting == "10 steps of SGD watched"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.complex64])
@pytest.mark.parametrize("size", [1e-25, 1e-4, 3e4, 1e25])
def test_norms_of_any_size(dtype: torch.dtype, size: float) -> None:
    if dtype == torch.float16 and not 1e-5 < size < 6e4:
        return
    p = nn.Parameter(torch.zeros(4, dtype=dtype))
    p.grad = torch.full((4,), size, dtype=dtype)
    q = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    q.grad = torch.tensor([math.nan, 1.0], dtype=torch.float64)
    found = norms_of({3: p, 5: q, 7: nn.Parameter(torch.zeros(1))})
    assert set(found) == {3, 5}
    assert found[3] == pytest.approx(2 * size, rel=1e-3)
    assert math.isnan(found[5])
    assert largest_element([p.grad]) == pytest.approx(size, rel=1e-3)


def test_several_scaled_losses_at_once() -> None:
    one, other = Training(), Training()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def step() -> None:
        losses = []
        for t in (one, other):
            t.optimizer.zero_grad()
            losses.append(scaler.scale(t.loss()))
        for loss in losses:
            loss.backward()
        for t in (one, other):
            clip_grad_norm_(t.params, 100.0)
            scaler.step(t.optimizer)
        scaler.update()

    found = gclip.doctor(
        step, model=[one.model, other.model], optimizer=[one.optimizer, other.optimizer]
    )
    assert found.codes == ("scaled", "never")


def test_it_keeps_nothing_alive() -> None:
    t = Training()
    with gclip.doctor(t.model, t.optimizer) as examined:
        t.loss().backward()
        t.optimizer.step()
    model = weakref.ref(t.params[0])
    del t
    gc.collect()
    assert model() is None
    assert examined.findings.codes == ("none",)
