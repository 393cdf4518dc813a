"""Gradients spread over two processes are clipped as one process clips them whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gclip

from . import sharded_child as child

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no torch.distributed"
)
CHILD = Path(child.__file__)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes came to."""
    folder = tmp_path_factory.mktemp("sharded")
    files = [folder / f"{rank}.pt" for rank in (0, 1)]
    running = []
    for rank, file in enumerate(files):
        with open(folder / f"{rank}.log", "w") as log:
            command = [sys.executable, str(CHILD), str(rank), str(folder / "store"), str(file)]
            running.append(
                subprocess.Popen(
                    command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
                )
            )
    try:
        for each in running:
            each.wait(timeout=180)
    finally:
        for each in running:
            each.kill()
            each.wait()
    logs = [(folder / f"{rank}.log").read_text()[-3000:] for rank in (0, 1)]
    assert all(file.exists() for file in files), "\n\n".join(logs)
    return [torch.load(file, weights_only=True) for file in files]


def close(got: Any, want: Any) -> None:
    if isinstance(want, dict):
        assert got.keys() == want.keys()
        for key in want:
            close(got[key], want[key])
    elif isinstance(want, list):
        for mine, theirs in zip(got, want, strict=True):
            close(mine, theirs)
    elif isinstance(want, torch.Tensor):
        assert type(got) is torch.Tensor
        torch.testing.assert_close(got, want, rtol=2e-5, atol=1e-6, equal_nan=True)
    else:
        assert got == want


def same(a: Any, b: Any) -> bool:
    """Whether two processes have the very same bits."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return bool(torch.equal(torch.nan_to_num(a, nan=-1.0), torch.nan_to_num(b, nan=-1.0)))
    return bool(a == b)


@pytest.mark.parametrize("spec", child.ON_GRADIENTS)
def test_gradients(spec, found):
    first, second = (each["gradients"][spec] for each in found)
    assert same(first, second)
    want = child.clip(spec, child.plain(), child.give_plain)
    assert any(
        not torch.equal(grads[n], child.values(5 + step)[n])
        for step, grads in enumerate(want["grads"])
        for n in grads
    )
    close(first, want)


@pytest.mark.parametrize("spec", child.ON_UPDATES)
def test_updates(spec, found):
    first, second = (each["updates"][spec] for each in found)
    assert same(first, second)
    close(first, child.update(spec, child.plain(), child.give_plain))


@pytest.mark.parametrize("spec", child.ON_MODELS)
def test_fully_sharded_models(spec, found):
    first, second = (each["fsdp"][spec] for each in found)
    assert same(first, second)
    close(first, child.train(spec, child.model(), slice(None)))


@pytest.mark.parametrize("spec", child.ON_MODELS[:2])
def test_fully_sharded_and_tensor_parallel(spec, found):
    first, second = (each["both"][spec] for each in found)
    assert same(first, second)
    close(first, child.train(spec, child.model(), slice(None)))


def test_the_local_norm_is_not_taken_for_the_global(found):
    """FSDP users: every process clips by the norm of its own shards, so that they drift apart."""
    grads = child.values(1)
    want = torch.cat([grads[n].flatten() for n in ("a.weight", "b.weight")]).norm().item()
    for each in found:
        reported, own = each["norms"]
        assert reported == pytest.approx(want, rel=1e-6)
        assert own < 0.95 * want


def test_within_the_limit_every_bit_stays(found):
    assert [each["within"] for each in found] == [True, True]


def test_memory_is_resumed(found):
    assert [each["resumed"] for each in found] == [True, True]


def test_a_nan_in_one_shard_is_everybodys(found):
    for each in found:
        nan = each["nan"]
        assert not nan["skip report"]
        assert not nan["keep report"]
        assert all(not grad.any() for grad in nan["skip"].values())
        assert nan["error"] == "gradients are not finite at step 0: a.weight"
        grads = child.values(1)
        assert all(torch.equal(nan["raise"][n], grads[n]) for n in grads if n != "a.weight")


def test_what_cannot_be_is_refused(found):
    for each in found:
        examples, grouped, mixed = each["refused"]
        assert "per_sample clips single examples" in examples
        assert "weight is of a transposed convolution with groups and spread" in grouped
        assert mixed.startswith("a parameter is a DTensor and its gradient a Tensor")


def test_a_clipper_follows_a_model_that_is_sharded_or_whole_for_now(found):
    net = child.model()
    clipper = gclip.Clipper(net, "norm(max_norm=0.05)")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        net(torch.randn(8, 6, generator=generator)).square().mean().backward()
        clipper.step()
        optimizer.step()
    left = [float(p.grad.norm()) for p in net.parameters()]
    wanted = {"reported": clipper.report.norm.item(), "left": left}
    for each in found:
        for got in each["made"]:
            assert got["reported"] == pytest.approx(wanted["reported"], rel=1e-5)
            assert got["left"] == pytest.approx(wanted["left"], rel=1e-5)


def test_the_first_fsdp_is_refused():
    # Its parameters are shards that look like whole ones: a local norm would pass for the global.
    param = torch.nn.Parameter(torch.ones(3))
    param._fsdp_flattened = True
    with pytest.raises(gclip.UsageError, match="use torch.distributed.fsdp.fully_shard"):
        gclip.Clipper([param], "norm")


def test_a_survey_sees_full_norms_and_suggests_the_same(found) -> None:
    wanted = child.survey(child.plain(), child.give_plain)
    for mine in found:
        suggested, wished = mine["survey"].pop("suggested"), dict(wanted["suggested"])
        assert suggested.keys() == wished.keys()
        for spelling, value in wished.items():
            # None where no threshold clips so often.
            wanted_value = None if value is None else pytest.approx(value, rel=1e-3)
            assert suggested[spelling] == wanted_value
        close(mine["survey"], {k: v for k, v in wanted.items() if k != "suggested"})
