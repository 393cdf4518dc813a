"""Data of any shape: checked when it is made, and trained on as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gclip
from gclip.errors import UsageError
from gclip.training import Dataset, RunConfig, models
from gclip.training.data_split import held_out_mask, select
from gclip.training.fits import check_fits
from gclip.training.fleet.run import FleetRun
from gclip.training.models.registry import _MODELS
from gclip.training.run import Run

CPU = torch.device("cpu")
CHANCE = torch.Generator().manual_seed(0)


def sequences(count=40, shape=(7, 2)):
    return torch.randn(count, *shape, generator=CHANCE)


def made(train_inputs=None, train_targets=None, test_inputs=None, test_targets=None, **more):
    """Sequences with labels of three classes, but for what is given."""
    given = (train_inputs, train_targets, test_inputs, test_targets)
    usual = (sequences(), torch.arange(40) % 3, sequences(10), torch.arange(10) % 3)
    parts = [each if mine is None else mine for mine, each in zip(given, usual, strict=True)]
    return Dataset.from_tensors(*parts, **{"name": "cifar10", **more})


def test_what_it_says_of_itself():
    data = made()
    assert (data.inputs, data.outputs, data.classes) == ((7, 2), 3, ("0", "1", "2"))
    assert (data.is_images, data.is_classification) == (False, True)
    assert (data.mean, data.std) == ((), ())
    for targets, outputs in ((torch.zeros(40), 1), (torch.zeros(40, 1), 1), (torch.ones(40, 5), 5)):
        data = made(None, targets, None, targets[:10])
        assert (data.outputs, data.classes, data.is_classification) == (outputs, (), False)
        assert data.train_labels.shape == targets.shape
    images = torch.randint(256, (40, 1, 28, 28), dtype=torch.uint8, generator=CHANCE)
    data = made(images, None, images[:10], classes=["a", "b", "c", "d"])
    assert (data.inputs, data.outputs, data.is_images) == ((1, 28, 28), 4, True)


def test_kinds_are_made_torchs_usual_ones_and_nothing_is_shared():
    inputs, labels = np.random.RandomState(0).rand(40, 3), np.arange(40, dtype=np.int32) % 2
    data = made(inputs, labels, inputs[:10], labels[:10])
    assert data.train_images.dtype == torch.float32
    assert data.train_labels.dtype == torch.int64
    assert torch.equal(data.train_images, torch.from_numpy(inputs).float())
    same = made(data.train_images, data.train_labels, data.test_images, data.test_labels)
    assert same.digest == data.digest
    data.train_images.zero_()
    assert same.train_images.any()
    targets = torch.rand(40, 2, dtype=torch.float64)
    data = made(None, targets, None, targets[:10])
    assert torch.equal(data.train_labels, targets.float())


IMAGES = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
NUMBERS = torch.zeros(40, 2)
HUGE = torch.full((40, 2), 1e300, dtype=torch.float64)
ENDLESS = NUMBERS.clone().index_put_(
    (torch.tensor([3]), torch.tensor([1])), torch.tensor(torch.inf)
)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"train_inputs": [1.0]}, "train_inputs must be a tensor: .* but got list"),
        ({"train_inputs": np.array(["a"])}, "train_inputs must be .* but got an array of <U1"),
        ({"test_inputs": NUMBERS.half()}, r"test_inputs must be .* float16 of shape \(40, 2\)"),
        ({"train_inputs": IMAGES[0]}, r"train_inputs must be .* uint8 of shape \(3, 8, 8\)"),
        ({"train_inputs": NUMBERS[:, 0]}, r"train_inputs must be .* float32 of shape \(40,\)"),
        ({"train_inputs": NUMBERS[:0], "train_targets": NUMBERS[:0, 0]}, "at least one example"),
        ({"train_targets": NUMBERS.bool()}, "train_targets must be labels .* bool"),
        ({"train_targets": torch.zeros(40, 2).long()}, r"train_targets must be .* int64 of .*\b2"),
        ({"train_targets": torch.arange(39) % 3}, "of as many examples, but got 40 and 39"),
        ({"test_inputs": sequences(10, (8, 2))}, r"alike but .* \(40, 7, 2\) and .* \(10, 8, 2\)"),
        ({"test_inputs": torch.zeros(10, 1, 7, 2).byte()}, "alike .* float32 .* and uint8"),
        ({"test_targets": torch.zeros(10)}, "alike .* int64 .* and float32"),
        ({"train_inputs": ENDLESS, "test_inputs": NUMBERS[:10]}, r"train_inputs\[3, 1\] is inf"),
        ({"train_inputs": HUGE, "test_inputs": NUMBERS[:10]}, r"train_inputs\[0, 0\] is inf"),
        ({"test_targets": torch.arange(10)}, r"labels from 0 to 2, .* test_targets\[3\] is 3"),
        ({"train_targets": torch.arange(40) - 1}, r"train_targets\[0\] is -1"),
        ({"train_targets": torch.arange(40) + 1}, "has labels up to 40, but no 0; count classes"),
        ({"classes": ("a", "b")}, r"labels from 0 to 1, .* train_targets\[2\] is 2"),
        ({"classes": ("a", "b", "a")}, "'a' is there twice"),
        ({"classes": "abc"}, "classes must be the classes' names, but got 'abc'"),
        ({"classes": ()}, "train_targets are labels, but there are no classes"),
        ({"name": ""}, "name of a data set must be text"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(arguments, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        made(**arguments)
    assert "\n" not in str(caught.value)


def test_a_regression_has_no_classes():
    with pytest.raises(UsageError, match="which has no classes, but got 2 of them"):
        made(None, torch.zeros(40), None, torch.zeros(10), classes=("a", "b"))


def test_the_digest_covers_kinds_and_shapes():
    same = torch.zeros(40, 12)
    images = same.byte()
    every = [
        made(inputs, targets, inputs[:10], targets[:10])
        for inputs in (
            same, same.view(40, 3, 4), images.view(40, 3, 2, 2), images.view(40, 1, 3, 4),
            images.view(40, 1, 4, 3),
        )
        for targets in (torch.zeros(40), torch.zeros(40, 1), torch.zeros(40).long())
    ]  # fmt: skip
    assert len({each.digest for each in every}) == len(every)
    assert made(classes=("a", "b", "c")).digest != made(classes=("a", "b", "d")).digest


def test_the_digest_is_the_same_for_ever():
    numbers = torch.arange(12.0).view(4, 3) / 8
    data = made(numbers, numbers[:, :2], numbers[:1], numbers[:1, :2])
    assert data.digest == "c8681badcd08bad842fb239136d0372d9e66e5f3f196d432d2ef2ca4fc24e348"
    pixels = torch.arange(48, dtype=torch.uint8).view(4, 1, 3, 4)
    labels = torch.tensor([0, 1, 1, 0])
    assert (
        made(pixels, labels, pixels[:1], labels[:1]).digest
        == "cc3e9c2c9fd982c6f5143483542a22ec0c6656a9574413e86b1ca364b16e2c97"
    )


def test_a_regressions_examples_are_chosen_by_the_frozen_rule():
    inputs = torch.arange(50.0).view(50, 1)
    data = made(inputs, inputs[:, 0], inputs[:10], inputs[:10, 0])
    order = np.random.RandomState(1).permutation(50)
    assert select(data, fraction=0.3).train_images[:, 0].tolist() == sorted(order[:15].tolist())
    found = select(data, fraction=0.5, split="validation")
    out = held_out_mask(25)
    assert found.test_labels.tolist() == sorted(order[:25][out].tolist())
    assert found.train_labels.tolist() == sorted(order[:25][~out].tolist())
    assert torch.equal(found.train_images[:, 0], found.train_labels)
    assert (found.mean, found.std) == ((), ())
    with pytest.raises(UsageError, match="at fraction 0.01 there is a single one"):
        select(data, fraction=0.01, split="validation")


def test_every_class_of_sequences_keeps_its_share():
    found = select(made(), fraction=0.5, split="validation")
    assert torch.bincount(found.train_labels).tolist() == [6, 5, 5]
    assert torch.bincount(found.test_labels).tolist() == [1, 1, 1]


def test_what_the_data_cannot_give_is_refused():
    numbers = made(None, torch.zeros(40), None, torch.zeros(10))
    one = made(None, torch.zeros(40).long(), None, torch.zeros(10).long(), classes=("all",))
    for data, settings, sentence in (
        (made(), {"augment": True}, r"augment .* cifar10 are float32 of shape \(N, 7, 2\)"),
        (made(), {"normalize": "half"}, "normalize half is for images of bytes"),
        (numbers, {"label_noise": 0.2}, "label_noise 0.2 .* are a regression's"),
        (one, {"label_noise": 0.2}, "label_noise 0.2 .* has only 'all'"),
    ):
        config = RunConfig(task="cifar10", **settings)
        with pytest.raises(UsageError, match=sentence):
            check_fits(config, data)
        for make in (Run, lambda config, *more: FleetRun([config], *more)):
            with pytest.raises(UsageError, match=sentence):
                make(config, data, CPU)


MLP = "mlp(width=8, depth=1)"


@pytest.fixture
def small_model():
    """A net of a convolution, for images of any shape."""

    @gclip.register_model("small_convolution")
    def small_convolution(inputs, outputs):
        channels, height, width = inputs
        linear = nn.Linear(4 * height * width, outputs)
        return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), linear)

    yield "small_convolution"
    del _MODELS._entries["small_convolution"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sequences_are_gathered_as_they_are(accumulate):
    data = made()
    config = RunConfig(
        task="cifar10", model=MLP, batch_size=6, accumulate=accumulate, lr=0.1, momentum=0.0
    )
    run = Run(config, data, CPU)
    order = torch.randperm(40, generator=_state(run._order))
    model = models.build(MLP, data.inputs, 3, config.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    size = 6 * accumulate
    for step in order.split(size):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(data.train_images[step]), data.train_labels[step])
        loss.backward()
        optimizer.step()
    assert run.train_epoch(lambda: True)
    for ours, expected in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)
    run.measure(0.0)
    answers = model(data.test_images).argmax(1)
    assert run.history.accuracy == (answers == data.test_labels).double().mean().item()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 12, 10)])
@pytest.mark.parametrize("other", [{"seed": 1}, {"lr": 0.02}])
def test_runs_and_fleets_take_images_of_any_shape(small_model, shape, other):
    pixels = torch.randint(256, (60, *shape), dtype=torch.uint8, generator=CHANCE)
    data = made(pixels[:40], None, pixels[40:], torch.arange(20) % 3)
    config = RunConfig(model=small_model, augment=True, batch_size=8, lr=0.05, label_noise=0.1)
    configs = [config, config.replace(**other)]
    fleet = FleetRun(configs, data, CPU)
    assert fleet.train_epoch()
    together = fleet.measure()
    for each, (accuracy, loss), index in zip(configs, together, (0, 1), strict=True):
        run = Run(each, data, CPU)
        assert run.train_epoch(lambda: True)
        run.measure(0.0)
        assert run.history.curve[-1]["loss"] == pytest.approx(loss, rel=1e-4)
        assert run.history.accuracy == pytest.approx(accuracy)
        for alone, stacked in zip(run.model.parameters(), fleet.model.parameters(), strict=True):
            torch.testing.assert_close(alone, stacked[index], rtol=1e-4, atol=1e-5)


def test_large_images_are_measured_in_smaller_batches():
    """Of 500 images of 3×32×32 as many numbers as ever, and never fewer than 16 images."""
    for shape, most in (
        ((3, 32, 32), 500),
        ((1, 28, 28), 500),
        ((3, 64, 64), 125),
        ((3, 320, 320), 16),
    ):
        pixels = torch.zeros(130 if most < 500 else 510, *shape, dtype=torch.uint8)
        labels = torch.arange(len(pixels)) % 2
        run = Run(RunConfig(model=MLP), made(pixels[:2], labels[:2], pixels, labels), CPU)
        sizes: list[int] = []
        run.model.register_forward_hook(lambda _, x, __, sizes=sizes: sizes.append(len(x[0])))
        run.measure(0.0)
        assert max(sizes) == most
        assert sum(sizes) == len(pixels)


def _state(generator):
    return torch.Generator().set_state(generator.get_state())


@pytest.mark.parametrize("shape", [(14,), (7, 2), (2, 7, 1)])
def test_a_fleet_of_one_seed_shares_inputs_and_others_lie_side_by_side(shape):
    data = made(sequences(40, shape), None, sequences(10, shape))
    config = RunConfig(model=MLP, batch_size=16)
    alike = FleetRun([config, config.replace(lr=0.3)], data, CPU)
    order = torch.randperm(40, generator=_state(alike._streams._order[0]))
    inputs, labels = next(alike._batches(alike._streams.draw(40, False, CPU)))
    assert torch.equal(inputs, data.train_images[order[:16]])
    assert torch.equal(labels, data.train_labels[order[:16]])
    apart = FleetRun([config, config.replace(seed=1)], data, CPU)
    orders = [torch.randperm(40, generator=_state(apart._streams._order[s])) for s in (0, 1)]
    inputs, labels = next(apart._batches(apart._streams.draw(40, False, CPU)))
    assert inputs.shape == (16, 2 * shape[0], *shape[1:])
    for run, order in enumerate(orders):
        own = inputs[:, run * shape[0] : (run + 1) * shape[0]]
        assert torch.equal(own, data.train_images[order[:16]])
        assert torch.equal(labels[run], data.train_labels[order[:16]])
