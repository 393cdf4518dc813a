"""Every strategy of gclip in a good loop: nothing is wrong with any."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

import gclip
from tests.doctor.loops import Training


@pytest.mark.parametrize("name", [name for name in gclip.names() if name != "none"])
def test_every_strategy_attached(name: str) -> None:
    t = Training()
    with gclip.attach(t.optimizer, name, model=t.model) as handle:
        if handle.clipper.per_sample:

            def step() -> None:
                t.optimizer.zero_grad()
                handle.clipper.backward(torch.ones(2, 4), torch.ones(2, 1), mse_loss)
                t.optimizer.step()

            found = t.examine(step)
        else:
            found = t.loop(lambda: None)
    side = gclip.create(name).side  # type: ignore[attr-defined]
    assert set(found.codes) <= {"always", "never"}
    assert not (side == "update" and found), "its limit is not the gradients'"
    if name == "norm":
        assert found.setting == "10 steps of SGD watched"
    if found:
        assert f"gclip's {name} " in found[0].sentence


def test_no_clipping_by_name_is_no_clipping() -> None:
    t = Training()
    assert t.loop(gclip.Clipper(t.model, "none").step).codes == ("none",)


def test_gradients_and_the_update_are_not_the_same_thing() -> None:
    t = Training()
    with gclip.attach(t.optimizer, "norm(max_norm=1, side=update)"):
        assert t.loop(lambda: clip_grad_norm_(t.params, 100.0)).codes == ("never",)


def test_folded_into_the_optimizer() -> None:
    """The gradients stay as they are until the optimizer reads them."""
    t = Training(make=lambda params, lr: torch.optim.SGD(params, lr=lr, fused=True))
    with gclip.attach(t.optimizer, "norm(max_norm=0.01)", fold=True):
        found = t.loop(lambda: None)
    assert found.codes == ("always",)
    assert found.of("always").numbers["share"] == 1


def test_steps_left_out_are_not_limited_ones() -> None:
    t = Training()
    with gclip.attach(t.optimizer, "norm(max_norm=0.001, rule=skip)"):
        found = t.loop(lambda: None)
    assert found.codes == ("no-steps",)
    assert "gclip left out 10 steps" in found.of("no-steps").why
