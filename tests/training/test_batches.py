"""Batches are what a loop over single images would make."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F

from gclip.training import Epoch, Normalizer, batches
from gclip.training.batches import PAD

COUNT, SIDE = 300, 32  # more than is prepared at a time
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


@pytest.fixture
def images():
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (COUNT, SIDE, SIDE, 3), dtype=torch.uint8, generator=chance)
    return pixels.permute(0, 3, 1, 2)


@pytest.fixture
def labels():
    return torch.arange(COUNT)  # so that a label tells the image


def one(image, flip, row, column):
    """The reference: one image, step by step, in float64."""
    channels, height, width = image.shape
    if flip:
        image = image[:, :, torch.arange(width - 1, -1, -1)]
    padded = F.pad(image, (PAD, PAD, PAD, PAD))
    cut = padded[:, row : row + height, column : column + width].double() / 255
    mean = torch.tensor(MEAN[:channels], dtype=torch.float64).view(-1, 1, 1)
    std = torch.tensor(STD[:channels], dtype=torch.float64).view(-1, 1, 1)
    return (cut - mean) / std


def draw(seed=1, augment=True):
    return Epoch.draw(
        COUNT,
        torch.Generator().manual_seed(seed),
        torch.Generator().manual_seed(seed + 100) if augment else None,
    )


@pytest.mark.parametrize("batch_size", [1, 7, 32, 128, 1000])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_flip_crop_and_normalise_as_one_by_one(images, labels, batch_size, layout):
    epoch = draw()
    made = list(batches(images, labels, batch_size, epoch, Normalizer.of(MEAN, STD, SIDE), layout))
    assert [len(y) for _, y in made[:-1]] == [batch_size] * (len(made) - 1)
    place = 0
    for x, y in made:
        assert x.dtype == torch.float32
        assert x.is_contiguous(memory_format=layout)
        assert len(x) == len(y)
        for image, label in zip(x, y, strict=True):
            assert label == epoch.order[place]
            expected = one(
                images[label], epoch.flips[place], epoch.rows[place], epoch.columns[place]
            )
            torch.testing.assert_close(image.double(), expected, rtol=1e-5, atol=2e-6)
            place += 1
    assert place == COUNT


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 48), (3, 48, 64), (2, 5, 3)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_images_of_any_size_and_channels(labels, shape, layout):
    images = torch.randint(
        0, 256, (COUNT, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).contiguous(memory_format=torch.channels_last)
    epoch, size = draw(), shape[1:]
    normalizer = Normalizer.of(MEAN[: shape[0]], STD[: shape[0]], size)
    made = list(batches(images, labels, 7, epoch, normalizer, layout))
    assert torch.equal(torch.cat([y for _, y in made]), epoch.order)
    assert all(x.is_contiguous(memory_format=layout) for x, _ in made)
    chances = zip(epoch.order, epoch.flips, epoch.rows, epoch.columns, strict=True)
    expected = torch.stack([one(images[place], *more) for place, *more in chances])
    found = torch.cat([x for x, _ in made])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("shape", [(14,), (7, 2), (2, 7, 1), (1, 2, 3, 4)])
def test_other_inputs_are_gathered_only(shape):
    inputs = torch.randn(COUNT, *shape, generator=torch.Generator().manual_seed(0))
    targets = torch.randn(COUNT, 2)
    epoch = draw(augment=False)
    made = list(batches(inputs, targets, 32, epoch, None))
    assert [len(x) for x, _ in made] == [32] * 9 + [12]
    assert torch.equal(torch.cat([x for x, _ in made]), inputs[epoch.order])
    assert torch.equal(torch.cat([y for _, y in made]), targets[epoch.order])


def test_the_batches_of_digits_are_these_bits(digits):
    epoch = Epoch.draw(500, *(torch.Generator().manual_seed(seed) for seed in (1, 2)))
    normalizer = Normalizer.of(digits.mean, digits.std, SIDE)
    sha = hashlib.sha256()
    for x, _ in batches(digits.train_images, digits.train_labels, 33, epoch, normalizer):
        sha.update(x.contiguous().numpy().data)
    assert sha.hexdigest() == "714554eb283873df66c3b90cf305318fb5595aa4f6ebd7ca73007921b949ad32"


def test_without_augmentation_images_are_normalised_only(images, labels):
    for x, y in batches(images, labels, 64, draw(augment=False), Normalizer.of(MEAN, STD, SIDE)):
        expected = torch.stack([one(images[i], False, PAD, PAD) for i in y])
        torch.testing.assert_close(x.double(), expected, rtol=1e-5, atol=2e-6)


def test_half_maps_bytes_to_minus_one_to_one(labels):
    black_white = torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    black_white[1] = 255
    half = Normalizer.of((0.5,) * 3, (0.5,) * 3, SIDE)
    ((x, _),) = batches(black_white, labels[:2], 2, Epoch.in_order(2), half)
    assert (x[0] == -1).all()
    torch.testing.assert_close(x[1], torch.ones(3, SIDE, SIDE))


def test_every_image_comes_once_and_epochs_differ():
    chance = torch.Generator().manual_seed(0)
    first, second = (Epoch.draw(COUNT, chance, None).order for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(COUNT))
    assert not torch.equal(first, second)


def test_chance_reaches_every_flip_and_offset():
    chance = torch.Generator().manual_seed(0)
    epoch = Epoch.draw(5000, chance, chance)
    assert set(epoch.flips.tolist()) == {0, 1}
    assert set(epoch.rows.tolist()) == set(epoch.columns.tolist()) == set(range(2 * PAD + 1))
    assert abs(epoch.flips.double().mean() - 0.5) < 0.03


def test_the_order_does_not_depend_on_augmentation():
    assert torch.equal(draw(augment=True).order, draw(augment=False).order)


def test_the_images_are_not_changed(images, labels):
    before = images.clone()
    for x, _ in batches(images, labels, 50, draw(), Normalizer.of(MEAN, STD, SIDE)):
        x.zero_()
    assert torch.equal(images, before)


def test_nothing_waits_for_a_gpu():
    """Under fake tensors anything that reads a value from the device is an error."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.device("cuda"):
        images = torch.empty(COUNT, SIDE, SIDE, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        places = [torch.zeros(COUNT, dtype=torch.int64) for _ in range(4)]
        normalizer = Normalizer(torch.ones(3072), torch.ones(3072))
        made = list(batches(images, places[0], 32, Epoch(*places), normalizer))
    assert [x.shape[0] for x, _ in made] == [32] * 9 + [12]
    assert all(x.device.type == y.device.type == "cuda" for x, y in made)
