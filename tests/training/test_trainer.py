"""A run is its config's, to the last bit: twice, resumed, and paired with other strategies."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gclip
from gclip.errors import UsageError
from gclip.training import Progress, RunConfig, models, resolve_device, seeds, train
from gclip.training.batches import Epoch
from gclip.training.dataset import Dataset
from gclip.training.device import environment, memory_format, reproducible
from gclip.training.run import Run

# Small enough for the tests: 144 images, 5 steps an epoch.
SMALL = RunConfig(fraction=0.1, epochs=3, lr=0.05)
CPU = torch.device("cpu")


def same(first, second):
    """The same outcome, bit for bit."""
    assert (first.status, first.accuracy, first.loss) == (
        second.status, second.accuracy, second.loss
    )  # fmt: skip
    assert first.steps.keys() == second.steps.keys()
    for name, values in first.steps.items():
        np.testing.assert_array_equal(values, second.steps[name], err_msg=name)
    for a, b in zip(first.curve, second.curve, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert first.clipping == second.clipping


def small(dataset: Dataset, train_count: int, test_count: int = 50) -> Dataset:
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:train_count],
        train_labels=dataset.train_labels[:train_count],
        test_images=dataset.test_images[:test_count],
        test_labels=dataset.test_labels[:test_count],
    )


def loop_by_hand(config, dataset, steps):
    """The run as a plain loop of torch's own parts, one image at a time out of the tensor."""
    model = models.build(config.model, seed=config.seed)
    optimizer = torch.optim.SGD(model.parameters(), config.lr, momentum=config.momentum)
    clipper = gclip.Clipper(model, config.strategy)
    order = seeds.generator(config.seed, "order")
    mean = torch.tensor(dataset.mean).view(1, 3, 1, 1)
    std = torch.tensor(dataset.std).view(1, 3, 1, 1)
    losses = []
    while len(losses) < steps:
        for places in torch.randperm(len(dataset.train_labels), generator=order).split(
            config.batch_size
        ):
            images = (dataset.train_images[places] / 255 - mean) / std
            loss = F.cross_entropy(model(images), dataset.train_labels[places])
            optimizer.zero_grad()
            loss.backward()
            clipper.step()
            optimizer.step()
            losses.append(loss.item())
    return losses


def test_it_is_the_loop_one_would_write_by_hand(digits):
    data = small(digits, 100)
    config = RunConfig(lr=0.02, epochs=2, strategy="norm(max_norm=0.5)", seed=3)
    result = train(config, dataset=data)
    assert result.steps["loss"] == pytest.approx(loop_by_hand(config, data, 8), rel=1e-3)
    assert result.status == "finished"
    assert result.stopped_at is None


@pytest.mark.parametrize(
    "config",
    [
        SMALL.replace(strategy="percentile", optimizer="adam", augment=True),
        SMALL.replace(precision="bf16", schedule="onecycle"),
    ],
    ids=["augmented", "bf16"],
)
def test_twice_the_same_bits(digits, config):
    first = train(config, dataset=digits)
    torch.manual_seed(99)  # the caller's chance has no part in it
    same(first, train(config, dataset=digits))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_resumed_runs_end_in_the_same_bits(digits, tmp_path, optimizer):
    config = SMALL.replace(
        optimizer=optimizer, augment=True, strategy="percentile(window=4)", schedule="cosine"
    )
    whole = train(config, dataset=digits)
    path = tmp_path / "run.ckpt"

    def stop(progress: Progress) -> bool:
        return progress.epoch < 1

    cut = train(config, dataset=digits, checkpoint=path, on_progress=stop)
    assert (cut.status, cut.stopped_at) == ("pruned", 5)
    resumed = train(config, dataset=digits, checkpoint=path)
    same(whole, resumed)
    same(whole, train(config, dataset=digits, checkpoint=path))  # nothing is left to do


def test_a_resumed_batch_norm_net_ends_in_the_same_bits(digits, tmp_path):
    data = small(digits, 16, 8)
    config = RunConfig(model="resnet9", batch_size=8, epochs=2, lr=0.01)
    whole = train(config, dataset=data)
    path = tmp_path / "run.ckpt"
    train(config, dataset=data, checkpoint=path, on_progress=lambda p: p.epoch < 1)
    same(whole, train(config, dataset=data, checkpoint=path))


def test_a_checkpoint_pins_the_threads_and_the_config(digits, tmp_path):
    path = tmp_path / "run.ckpt"
    train(SMALL, dataset=digits, checkpoint=path, threads=2, on_progress=lambda p: p.epoch < 1)
    assert train(SMALL, dataset=digits, checkpoint=path).environment["threads"] == 2
    with pytest.raises(UsageError, match="belongs to another config"):
        train(SMALL.replace(seed=1), dataset=digits, checkpoint=path)


def test_strategies_with_the_same_seed_are_paired(digits, monkeypatch):
    seen: dict[str, list[torch.Tensor]] = {}

    def batches_of(strategy):
        config = SMALL.replace(strategy=strategy, augment=True, seed=4)
        run = Run(config, digits, CPU)
        kept = seen[strategy] = [p.detach().clone() for p in run.model.parameters()]
        run.model.register_forward_pre_hook(lambda _, args: kept.append(args[0].clone()))
        run.train_epoch(lambda: True)
        run.train_epoch(lambda: True)

    for strategy in ("none", "agc", "value(clip_value=0.001)"):
        batches_of(strategy)
    first, *others = seen.values()
    assert len(first) == 10 + 10  # weights, and two epochs of five batches
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_other_seeds_see_other_batches_and_weights(digits):
    assert seeds.derive(0, "order") == 209698428149803639
    roles = ("weights", "order", "augmentation", "strategy")
    assert len({seeds.derive(seed, role) for seed in range(20) for role in roles}) == 80
    first, second = (train(SMALL.replace(seed=s, epochs=1), dataset=digits) for s in (0, 1))
    assert (first.steps["loss"] != second.steps["loss"]).all()


def gradients(config, dataset):
    """What the clipper sees at each step of one epoch."""
    run = Run(config, dataset, CPU)
    seen, step = [], run.clipper.step

    def watched():
        seen.append([p.grad.clone() for p in run.model.parameters()])
        return step()

    run.clipper.step = watched
    run.train_epoch(lambda: True)
    return seen, run


@pytest.mark.parametrize(("count", "steps"), [(96, 3), (100, 4), (70, 3)])
def test_accumulated_gradients_are_those_of_the_big_batch(digits, count, steps):
    """Also where the last group lacks batches, and where its last batch lacks images."""
    data = small(digits, count)
    config = RunConfig(lr=0.05, strategy="norm(max_norm=0.5)")
    one, big = gradients(config.replace(batch_size=32), data)
    many, accumulated = gradients(config.replace(batch_size=8, accumulate=4), data)
    assert len(one) == len(many) == steps == accumulated.step
    assert accumulated.steps == 5 * steps
    for a, b in zip(one, many, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x, y, rtol=2e-4, atol=2e-6)
    assert accumulated.history.monitor.losses == pytest.approx(big.history.monitor.losses, rel=1e-4)
    assert len(accumulated.clipper.record.arrays()["norm"]) == steps  # clipped once a step


def test_a_loss_that_is_not_finite_is_a_result(digits):
    config = SMALL.replace(lr=1e30)
    result = train(config, dataset=digits)
    assert result.status == "diverged"
    assert result.message.startswith(
        f"the training loss was not finite at step {result.stopped_at}"
    )
    assert (result.accuracy, result.loss) == (0.1, math.inf)
    assert 0 < result.stopped_at < 5
    assert {len(values) for values in result.steps.values()} == {result.stopped_at}
    assert np.isfinite(result.steps["loss"]).all()
    assert (result.curve[-1]["step"], result.curve[-1]["accuracy"]) == (result.stopped_at, 0.1)
    same(result, train(config, dataset=digits))


def test_a_gpus_late_look_ends_at_the_same_step(digits, monkeypatch):
    config = SMALL.replace(lr=1e30)
    now, fine = train(config, dataset=digits), train(SMALL, dataset=digits)
    from gclip.training import divergence

    init = divergence.DivergenceMonitor.__init__

    def late(self, device):
        init(self, device)
        self._every = 64

    monkeypatch.setattr(divergence.DivergenceMonitor, "__init__", late)
    same(now, train(config, dataset=digits))
    same(fine, train(SMALL, dataset=digits))


def test_gradients_that_are_never_finite_are_divergence(digits, monkeypatch):
    """A loss that stays finite while every gradient is inf: nothing is learnt any more."""
    build = models.build

    def poisoned(*args, **more):
        model = build(*args, **more)
        model.fc3.weight.register_hook(lambda grad: torch.full_like(grad, math.inf))
        return model

    monkeypatch.setattr(models, "build", poisoned)
    result = train(SMALL.replace(epochs=6), dataset=digits)
    assert (result.status, result.stopped_at) == ("diverged", 20)
    assert "not finite in 20 steps" in result.message
    assert result.accuracy == 0.1
    assert [point["step"] for point in result.curve] == [5, 10, 15, 20]
    with pytest.raises(FloatingPointError, match=r"fc3\.weight"):
        train(SMALL.replace(nonfinite="raise"), dataset=digits)


def test_a_finite_run_at_chance_is_finished(digits):
    result = train(SMALL.replace(lr=1e-12, epochs=1), dataset=digits)
    assert result.status == "finished"
    assert result.accuracy < 0.3


def test_progress_and_pruning(digits):
    told: list[Progress] = []
    result = train(SMALL, dataset=digits, on_progress=told.append)
    ends = [p for p in told if p.accuracy is not None]
    assert [(p.epoch, p.step, p.status) for p in ends if p.step % 5 == 0] == [
        (1, 5, "running"), (2, 10, "running"), (3, 15, "finished")
    ]  # fmt: skip
    assert all((p.epochs, p.steps) == (3, 15) for p in told)
    assert ends[-1].accuracy == result.accuracy == result.curve[-1]["accuracy"]
    assert ends[-1].loss == result.steps["loss"][-1]
    pruned = train(SMALL, dataset=digits, on_progress=lambda p: p.epoch < 2)
    assert (pruned.status, pruned.stopped_at, len(pruned.curve)) == ("pruned", 10, 2)
    assert pruned.accuracy == result.curve[1]["accuracy"]
    assert len(pruned.steps["loss"]) == len(pruned.steps["norm"]) == 10


def test_pruning_within_the_first_epoch_still_has_an_accuracy(digits, monkeypatch):
    monkeypatch.setattr("gclip.training.trainer._EVERY", 0.0)
    result = train(SMALL, dataset=digits, on_progress=lambda p: p.step < 3)
    assert (result.status, result.stopped_at) == ("pruned", 3)
    assert result.curve[-1]["step"] == 3
    assert 0 <= result.accuracy <= 1
    assert len(result.steps["loss"]) == 3


def test_what_is_recorded(digits):
    config = SMALL.replace(strategy="norm(max_norm=0.1)", schedule="cosine")
    result = train(config, dataset=digits)
    steps = result.steps
    assert set(steps) == {
        "loss", "lr", "norm", "clipped_norm", "limit", "clipped", "finite", "skipped"
    }  # fmt: skip
    assert {len(values) for values in steps.values()} == {15}
    assert (steps["limit"] == np.float32(0.1)).all()
    assert steps["clipped_norm"].max() <= 0.1 * (1 + 1e-5)
    assert steps["lr"][0] == np.float32(0.05)
    assert (np.diff(steps["lr"]) < 0).all()
    assert result.clipping["verdict"] == "always on"
    assert result.clipping["steps"] == 15
    last = result.curve[-1]
    assert result.train_loss == last["train_loss"] == pytest.approx(steps["loss"][-5:].mean())
    assert (result.accuracy, result.loss) == (last["accuracy"], last["loss"])
    assert {"torch", "python", "device", "threads", "date"} <= result.environment.keys()


def test_accuracy_is_that_of_the_split(digits):
    run = Run(SMALL.replace(split="validation"), digits, CPU)
    run.measure(0.0)
    assert len(run._data.test_labels) == 13
    (point,) = run.history.curve
    mean = torch.tensor(run._data.mean).view(1, 3, 1, 1)
    std = torch.tensor(run._data.std).view(1, 3, 1, 1)
    logits = run.model((run._data.test_images / 255 - mean) / std)
    assert point["accuracy"] == (logits.argmax(1) == run._data.test_labels).double().mean()
    assert point["loss"] == pytest.approx(
        F.cross_entropy(logits, run._data.test_labels).item(), rel=1e-5
    )


def test_the_callers_settings_are_left_alone(digits):
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.backends.cudnn.deterministic = False
    result = train(SMALL.replace(epochs=1), dataset=digits, threads=2)
    assert result.environment["threads"] == 2
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.backends.cudnn.deterministic
    with pytest.raises(UsageError, match="threads must be a whole number from 1 to 1,024"):
        train(SMALL, dataset=digits, threads=0)


def test_other_data_or_code_than_the_configs_is_refused(digits):
    with pytest.raises(UsageError, match="task is cifar10, but the data is digits"):
        train(SMALL.replace(task="cifar10"), dataset=digits)
    images = dataclasses.replace(digits, name="cifar10", embedded=False)
    config = SMALL.replace(task="cifar10", data="0123456789abcdef", epochs=1)
    with pytest.raises(UsageError, match=r"made for the data 0123456789abcdef, but"):
        train(config, dataset=images)
    result = train(config.replace(data=""), dataset=images)
    assert result.config.data == images.digest[:16]
    with pytest.raises(UsageError, match=r"code of none is not what the config was made with"):
        train(SMALL.replace(code="0123456789ab"), dataset=digits)


def test_devices():
    assert resolve_device("cpu") == CPU
    assert resolve_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(
        UsageError, match=r"unknown device 'gpu'.* \(choices: auto, cpu, cuda, mps\)"
    ):
        resolve_device("gpu")
    for kind, there in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    ):
        if not there:
            with pytest.raises(UsageError, match=rf"device '{kind}' is not there .*auto, cpu"):
                resolve_device(kind)
            with pytest.raises(UsageError, match=f"device '{kind}:1' is not there"):
                resolve_device(f"{kind}:1")
    with pytest.raises(UsageError, match="it has 1 of cpu"):
        resolve_device("cpu:3")


def test_layouts():
    assert memory_format(CPU, "fp32") == torch.channels_last
    assert memory_format(torch.device("cuda"), "bf16") == torch.channels_last
    assert memory_format(torch.device("cuda"), "fp32") == torch.contiguous_format
    assert memory_format(torch.device("mps"), "bf16") == torch.contiguous_format


def test_reproducible_restores_even_after_an_error():
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), reproducible(CPU, 2):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == threads
    assert environment(CPU, 1)["device"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_gpu_sees_the_same_run(digits):
    config = SMALL.replace(optimizer="adam", strategy="norm(max_norm=0.5)", augment=True)
    first = train(config, dataset=digits, device="cuda")
    same(first, train(config, dataset=digits, device="cuda"))
    on_cpu = train(config, dataset=digits, device="cpu")
    assert first.steps["loss"] == pytest.approx(on_cpu.steps["loss"], rel=1e-2)


def test_epochs_are_drawn_alike_for_all_devices():
    fixed = Epoch.draw(10, seeds.generator(0, "order"), None)
    assert fixed.order.tolist() == [6, 0, 4, 7, 9, 1, 5, 3, 8, 2]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_torchs_default_dtype_changes_nothing_and_is_the_callers_again(digits, dtype):
    config = SMALL.replace(epochs=1, strategy="percentile(scope=unit)")
    want = train(config, dataset=digits)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        got = train(config, dataset=digits)
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)
    same(got, want)


def test_a_run_on_digits_comes_to_the_numbers_that_it_always_came_to(digits):
    """With all that chance decides; pinned when data was still 3×32×32 alone."""
    config = RunConfig(
        augment=True, split="validation", fraction=0.3, epochs=1, label_noise=0.2, strategy="norm",
        batch_size=64,
    )  # fmt: skip
    losses = [2.3081627, 2.2909844, 2.3068175, 2.3066540, 2.2983811, 2.2976296, 2.3225992]
    norms = [0.0972816, 0.1306881, 0.1403115, 0.1193878, 0.1732045, 0.1404805, 0.3827252]
    found = train(config, dataset=digits, device="cpu").steps
    assert found["loss"].tolist() == pytest.approx(losses, rel=1e-5)
    assert found["norm"].tolist() == pytest.approx(norms, rel=1e-3)
