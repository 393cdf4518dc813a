"""Gradients spread over two processes are clipped as one process clips them whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gclip
from tests import processes
from tests.clipping import mesh_child
from tests.clipping import sharded_child as child

pytestmark = processes.NEEDED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes have put what they came to."""
    made = tmp_path_factory.mktemp("sharded")
    processes.run_script(str(Path(child.__file__)), made)
    return made


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of the two processes came to."""
    return processes.found(folder / "two", 2)


@pytest.fixture(scope="module")
def four(folder: Path) -> list[dict[str, Any]]:
    """What each of the four processes came to."""
    return processes.found(folder / "four", mesh_child.SIZE)


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


def test_the_first_fsdp_is_refused(four):
    # Its parameters are shards that look like whole ones: a local norm would pass for the global.
    for each in four:
        assert len(each["refused"]) == 6  # clipper, attach, layer norms; with either parameters
        assert all("use torch.distributed.fsdp.fully_shard" in said for said in each["refused"])


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


# -- four processes ------------------------------------------------------------------------------


def near(got: Any, want: Any) -> None:
    """Equal to 1e-6 of the norm of each tensor."""
    assert (got - want).norm() <= 1e-6 * want.norm()


@pytest.mark.parametrize("how", ["ddp", "hybrid", "tensor"])
def test_models_of_four_processes(how, four):
    """DDP; FSDP2 on 2 × 2 (HSDP); FSDP2 beside tensor parallel."""
    for spec in mesh_child.ON_MODELS[: 1 if how == "tensor" else None]:
        first, *others = (each[how][spec] for each in four)
        assert all(same(first, other) for other in others)
        want = mesh_child.trained(spec, mesh_child.model(), 0, 1)
        near(first["norm"], want["norm"])
        for name, weight in want["weights"].items():
            near(first["weights"][name], weight)


def test_plain_parameters_and_two_meshes_in_one_clip(four):
    params = mesh_child.parameters(None)
    for index, scope in enumerate(("global", "layer", "tensor", "unit")):
        for name, value in mesh_child.values(1).items():
            params[name].grad = value
        report = gclip.Clipper(params.items(), f"norm(max_norm=0.5, scope={scope})").step()
        for each in four:
            norm, grads, counts = each["together"][index]
            near(norm, report.norm)
            for grad, param in zip(grads, params.values(), strict=True):
                near(grad, param.grad)
            # One on the line; on the square one for what is split over one dimension of it, two
            # for what is over both, where the first process's sums are given to the others.
            assert counts == {"c10d_functional.all_reduce": 4, "c10d.broadcast_": 2}


def test_collectives_of_a_step_are_counted(four):
    for each in four:
        counts = dict(each["counted"])
        gathered = counts.pop("spam(threshold=10, warmup=1)")  # it looks at every element
        assert gathered == {"c10d_functional.all_gather_into_tensor": len(mesh_child.SHAPES) - 1}
        assert counts == {
            spec: {"c10d_functional.all_reduce": count}
            for spec, count in mesh_child.COUNTED.items()
        }


def test_states_saved_on_two_processes_go_on_on_three_on_two_and_on_one(four):
    params = mesh_child.parameters(None)
    alone, first = mesh_child.made(params), 0
    for turn, count in enumerate(mesh_child.MOVES):
        steps = range(first, first + count)
        want, first = mesh_child.clip(alone, params, None, steps), first + count
        memory = mesh_child.memories(alone)
        where = [each["moved"] for each in four[: (2, 3, 2, 1)[turn]]]
        for rank, each in enumerate(where):
            index = turn if rank < 2 else turn - 1  # the third has been there in one turn only
            for spec, grads in want.items():
                for ours, theirs in zip(each["left"][index][spec], grads, strict=True):
                    for one, other in zip(ours, theirs, strict=True):
                        near(one, other)
                close(each["memory"][index][spec], memory[spec])
    clipped = [spec for spec, clipper in alone.items() if clipper.record.summary().clip_rate > 0]
    assert len(clipped) >= 9
    assert set(clipped) <= set(mesh_child.remembering())


@pytest.mark.parametrize("spec", mesh_child.WITH_OPTIMIZER)
def test_a_model_its_optimizer_and_its_clipping_are_resharded(spec, four):
    net = mesh_child.model()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    handle, first = gclip.attach(optimizer, spec, model=net), 0
    for turn, count in enumerate(mesh_child.MOVES):
        mesh_child.train(net, optimizer, 0, 1, range(first, first + count))
        first += count
        got = four[0]["resharded"][spec][turn]
        near(got["norm"], torch.from_numpy(handle.record.arrays()["norm"]))
        for name, weight in net.named_parameters():
            near(got[name], weight.detach())
    assert handle.record.summary().clip_rate > 0
    assert len(handle.record) == sum(mesh_child.MOVES)
