"""Norms of layers: torch's own by hand, merged by a slow rule, in bounded memory."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import gclip
from gclip.clipping import thinned_rows
from gclip.clipping.layer_record import LayerRecord
from gclip.clipping.thinned_rows import NONE, POINTS, RECENT, ThinnedRows, width_for
from gclip.errors import UsageError

INF, NAN = math.inf, math.nan


def small_net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))


def by_hand(net: nn.Module) -> list[float]:
    """Each layer's norm, by torch alone."""
    return [
        float(torch.cat([p.grad.flatten() for p in layer.parameters()]).norm())
        for layer in net.children()
        if list(layer.parameters())
    ]


@pytest.mark.parametrize("strategy", ["none", "norm(max_norm=0.1)", "agc(clip_factor=0.01)"])
def test_norms_are_those_by_hand_before_and_after(strategy: str) -> None:
    net = small_net()
    clipper, layers = gclip.Clipper(net, strategy), gclip.LayerNorms(net)
    before, after = [], []
    for step in range(4):
        net.zero_grad()
        net(torch.full((5, 3), 1.0 + step)).square().sum().backward()
        before.append(by_hand(net))
        layers.before()
        report = clipper.step()
        layers.after(report.skipped)
        after.append(by_hand(net))
    record = layers.record()
    assert (record.names, record.layers, record.players) == (("0", "2"), ("0", "2"), ("", ""))
    assert record.step.tolist() == [0, 1, 2, 3]
    assert record.before.dtype == np.float32
    np.testing.assert_allclose(record.before, before, rtol=1e-6)
    np.testing.assert_allclose(record.after, after, rtol=1e-6)
    np.testing.assert_array_equal(record.before, record.before_max)
    if strategy == "none":
        np.testing.assert_array_equal(record.after, record.before)
    else:
        assert (record.after < record.before).all()
    assert (record.skipped == 0).all()


def slow(rows: np.ndarray) -> dict[str, np.ndarray]:
    """What is kept of rows ``(steps, columns)``, point by point and number by number."""
    width = 1
    while math.ceil(len(rows) / width) > POINTS:
        width *= 2
    found: dict[str, list[list[float]]] = {"mean": [], "largest": [], "count": []}
    for start in range(0, len(rows), width):
        kept = [[v for v in column if v != NONE] for column in rows[start : start + width].T]
        sizes = [[INF if math.isnan(v) else v for v in column] for column in kept]
        usable = [[v for v in column if 0 < v < INF] for column in sizes]
        largest = [max(column, default=NAN) for column in sizes]
        means = [
            math.exp(sum(map(math.log, column)) / len(column)) if column else top
            for column, top in zip(usable, largest, strict=True)
        ]
        for name, values in (("mean", means), ("largest", largest)):
            found[name].append(values)
        found["count"].append([len(column) for column in sizes])
    return {name: np.array(values).reshape(-1, rows.shape[1]) for name, values in found.items()}


@pytest.mark.parametrize("steps", [0, 1, 255, 256, 257, 384, 513, 1500, 2049])
def test_points_are_merged_as_by_the_slow_rule(steps: int) -> None:
    random = np.random.default_rng(steps)
    rows = random.lognormal(sigma=4, size=(steps, 4)).astype(np.float32)
    rows[::3, 1], rows[::2, 2], rows[1::5, 2] = 0, NONE, INF
    rows[:, 3] = np.where(np.arange(steps) < steps // 2, NONE, NAN)
    thinned = ThinnedRows(4)
    for row in torch.from_numpy(rows):
        thinned.add(row)
    for wanted in {steps, max(0, steps - 200)}:  # as far as recent steps go
        points, expected = thinned.points(wanted), slow(rows[:wanted])
        width = width_for(wanted)
        assert points["step"].tolist() == list(range(0, wanted, width))
        assert len(points["step"]) <= POINTS
        for name, values in expected.items():
            np.testing.assert_allclose(points[name].numpy(), values, rtol=1e-9, err_msg=name)


def test_a_cut_before_the_recent_steps_leaves_whole_points() -> None:
    thinned = ThinnedRows(1)
    for step in range(2000):
        thinned.add(torch.tensor([1.0 + step]))
    points = thinned.points(1003)
    assert points["step"].tolist() == list(range(0, 1000, 8))
    assert points["largest"][-1].item() == 1000.0


def test_memory_is_bounded_and_the_width_doubles() -> None:
    assert [width_for(n) for n in (0, 1, 256, 257, 512, 513, 10**6)] == [1, 1, 1, 2, 2, 4, 4096]
    thinned, sizes = ThinnedRows(2), []
    for step in range(20_000):
        thinned.add(torch.ones(2))
        if step % 2000 == 1999:
            state = thinned.state_dict()
            tree = state["tree"]
            sizes.append(sum(len(nodes) for nodes in tree["sums"]) + len(state["recent"]))
    assert max(sizes) <= POINTS + RECENT + 128 + 8


def test_looking_and_going_on_from_a_state_change_no_bit() -> None:
    rows = torch.rand(1300, 3, generator=torch.Generator().manual_seed(1))
    whole, looked = ThinnedRows(3), ThinnedRows(3)
    for place, row in enumerate(rows):
        whole.add(row)
        looked.add(row)
        if place % 97 == 0:
            looked.points()
            buffer = io.BytesIO()
            torch.save(looked.state_dict(), buffer)
            buffer.seek(0)
            looked = ThinnedRows(3)
            looked.load_state_dict(torch.load(buffer, weights_only=True))
    for name, values in whole.points().items():
        assert torch.equal(values, looked.points()[name]), name


def test_skipped_steps_have_no_norm_after_and_not_finite_ones_are_inf() -> None:
    net = small_net()
    clipper, layers = gclip.Clipper(net, "norm"), gclip.LayerNorms(net)
    for broken in (False, True, False):
        net.zero_grad()
        net(torch.ones(1, 3)).sum().backward()
        if broken:
            net[2].weight.grad[0, 0] = NAN
        layers.before()
        layers.after(clipper.step().skipped)
    record = layers.record()
    assert record.skipped.tolist() == [[0, 0], [1, 1], [0, 0]]
    assert np.isinf(record.before[:, 1]).tolist() == [False, True, False]
    assert np.isfinite(record.before[:, 0]).all()
    assert np.isnan(record.after[1]).all()
    assert np.isfinite(record.after[[0, 2]]).all()
    layers.before()
    layers.after()
    layers.skip(torch.tensor([True]))  # as after an update that was refused
    assert layers.record().skipped[-1].tolist() == [1, 1]


def test_a_layer_without_gradients_has_none_and_several_models_have_steps_of_their_own() -> None:
    nets = {"one": small_net(), "two": nn.Linear(2, 1)}
    nets["one"][0].requires_grad_(False)
    layers = gclip.LayerNorms(nets)
    for name, width in (("one", 3), ("two", 2), ("two", 2)):
        nets[name](torch.ones(1, width)).sum().backward()
        layers.before(name)
        layers.after()
    record = layers.record()
    assert record.names == ("one.0", "one.2", "two.weight", "two.bias")
    assert record.players == ("one", "one", "two", "two")
    assert np.isnan(record.before).tolist() == [
        [True, False, True, True], [True, True, False, False], [True, True, False, False]
    ]  # fmt: skip
    assert np.isnan(record.skipped[:, 0]).tolist() == [False, True, True]


def test_float64_and_sparse_gradients_keep_their_values() -> None:
    wide = nn.Linear(2, 1, bias=False).double()
    layers = gclip.LayerNorms(wide)
    wide.weight.grad = torch.tensor([[3e200, 4e200]], dtype=torch.float64)
    layers.before()
    layers.after()
    assert layers.record().before.tolist() == [[pytest.approx(5e200)]]
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 1, 3])).sum().backward()
    layers = gclip.LayerNorms(table)
    layers.before()
    layers.after()
    assert layers.record().before[0, 0] == pytest.approx(math.sqrt(10))


def test_what_is_wrong_is_one_sentence() -> None:
    net = small_net()
    layers = gclip.LayerNorms(net)
    with pytest.raises(UsageError, match=r"after\(\) needs before\(\)"):
        layers.after()
    layers.before()
    with pytest.raises(UsageError, match=r"before\(\) was called twice"):
        layers.before()
    layers.after()
    with pytest.raises(UsageError, match="saved norms are of 1 layers, from 'weight' on"):
        layers.load_state_dict({"names": ["weight"]})
    net.append(nn.Linear(2, 2))
    with pytest.raises(UsageError, match=r"other parameters than .*3\.weight"):
        layers.before()
    with pytest.raises(UsageError, match="or models by name, but got none"):
        gclip.LayerNorms({})
    pair = gclip.LayerNorms({"generator": small_net(), "critic": small_net()})
    with pytest.raises(UsageError, match=r"'generatr'; did you mean 'generator'"):
        pair.before("generatr")
    blank = np.zeros((1, 1))
    with pytest.raises(UsageError, match="a record of 2 layers at 1 points"):
        LayerRecord(
            names=("a", "b"), step=np.zeros(1), before=blank, after=blank, before_max=blank,
            after_max=blank, skipped=blank,
        )  # fmt: skip


def profile_of(before: list[float], after: list[float] | None = None) -> str:
    rows = np.array([before, before])
    clipped = rows if after is None else np.array([after, after])
    names = tuple(f"l{i}" for i in range(len(before)))
    record = LayerRecord(
        names=names, step=np.arange(2), before=rows, after=clipped, before_max=rows,
        after_max=clipped, skipped=np.zeros_like(rows),
    )  # fmt: skip
    [profile] = record.profiles()
    return str(profile)


def test_the_shape_in_words() -> None:
    assert profile_of([0.01, 1, 8.5], [0.01, 0.5, 0.5]) == (
        "layers: gradients vanish towards the first layer: the median norm in l0 is 1/850 of that "
        "in l2 before clipping, 1/50 after it; largest in l2 (8.5)"
    )
    assert "explode towards the first layer: the median norm in l0 is 400 times" in profile_of(
        [400, 900, 1]
    )
    assert "largest in l1 (900)" in profile_of([400, 900, 1])
    assert "stay of one size down to the first layer" in profile_of([2, 1])
    assert "in l1 is 2 times" in profile_of([NAN, 2, 1])
    assert profile_of([1.5]) == "layers: one, l0, with a median norm of 1.5"
    assert "no norms to compare" in profile_of([0, 0])


def test_no_step_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that pretend to be on a GPU have no values to look at."""
    for name in ("POINTS", "RECENT", "_BLOCK"):
        monkeypatch.setattr(thinned_rows, name, 4)
    with FakeTensorMode(), torch.device("cuda"):
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))
        net[0].bias.requires_grad_(False)
        layers = gclip.LayerNorms({"one": net, "two": nn.Linear(1, 1)})
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        for step in range(22):
            layers.before("one")
            layers.after(torch.ones(1, dtype=torch.bool))
            if step % 5 == 0:
                layers.skip(torch.zeros(1, dtype=torch.bool))
    assert len(layers) == 22
