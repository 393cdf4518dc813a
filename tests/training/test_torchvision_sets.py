"""Torchvision's sets, read from files in their own formats; no test has a network."""

from __future__ import annotations

import bz2
import os
import urllib.request
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from gclip.errors import UsageError
from gclip.training import load_dataset, torchvision_sets

FASHION = "torchvision:FashionMNIST"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def unreachable(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


def mnist(root, name="FashionMNIST", counts=(20, 10), side=28):
    """The set's files, with pixels at random; returns what is in them."""
    chance, made = np.random.RandomState(0), []
    folder = root / name / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in zip(("train", "t10k"), counts, strict=True):
        pixels = chance.randint(0, 256, (count, side, side), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            sizes = np.array(values.shape, ">i4").tobytes()
            content = bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(content)
        made.append((pixels, labels))
    return made


def test_the_images_are_what_the_files_hold(tmp_path):
    (train, train_labels), (test, test_labels) = mnist(tmp_path)
    found = load_dataset(FASHION, tmp_path)
    assert found.name == FASHION
    assert found.inputs == (1, 28, 28)
    assert found.classes == tuple(datasets.FashionMNIST.classes)
    assert np.array_equal(found.train_images[:, 0].numpy(), train)
    assert np.array_equal(found.test_images[:, 0].numpy(), test)
    assert found.train_labels.tolist() == train_labels.tolist()
    assert found.test_labels.tolist() == test_labels.tolist()
    assert found.train_labels.dtype == torch.int64
    assert found.mean == pytest.approx([train.mean() / 255])


def test_size_and_channels_are_as_asked_and_make_other_data(tmp_path):
    (train, _), _ = mnist(tmp_path)
    grey = load_dataset(FASHION, tmp_path)
    colour = load_dataset(FASHION, tmp_path, channels=3)
    large = load_dataset(FASHION, tmp_path, size=32)
    assert (colour.inputs, large.inputs) == ((3, 28, 28), (1, 32, 32))
    assert torch.equal(colour.train_images, grey.train_images.expand(-1, 3, -1, -1))
    expected = Image.fromarray(train[3]).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(large.train_images[3, 0].numpy(), np.asarray(expected))
    assert len({each.identity for each in (grey, colour, large)}) == 3
    assert load_dataset(FASHION, tmp_path, size=28, channels=1).digest == grey.digest


def test_they_are_decoded_once_until_a_file_changes(tmp_path, cache, monkeypatch):
    mnist(tmp_path / "data")
    first = load_dataset(FASHION, tmp_path / "data")
    opened = torchvision_sets._opened

    def never(*args, **kwargs):
        raise AssertionError("decoded again")

    monkeypatch.setattr(torchvision_sets, "_opened", never)
    again = load_dataset(FASHION, tmp_path / "data")
    assert again.digest == first.digest
    assert torch.equal(again.train_images, first.train_images)
    with pytest.raises(AssertionError, match="decoded again"):
        load_dataset(FASHION, tmp_path / "data", size=32)
    monkeypatch.setattr(torchvision_sets, "_opened", opened)
    mnist(tmp_path / "data", counts=(30, 10))
    assert len(load_dataset(FASHION, tmp_path / "data").train_labels) == 30
    assert len(list((cache / "images").iterdir())) == 1  # the copy of before is gone
    assert len(load_dataset(FASHION, tmp_path / "data").train_labels) == 30


def test_where_links_hide_changes_nothing_is_kept(tmp_path, cache):
    mnist(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "FashionMNIST").symlink_to(tmp_path / "elsewhere" / "FashionMNIST")
    load_dataset(FASHION, tmp_path / "data")
    mnist(tmp_path / "elsewhere", counts=(30, 10))
    assert len(load_dataset(FASHION, tmp_path / "data").train_labels) == 30
    assert not (cache / "images").exists()


def test_what_is_in_the_cache_folder_needs_no_network(cache):
    mnist(cache / "torchvision" / "FashionMNIST")
    for download in (True, False):
        assert len(load_dataset(FASHION, download=download).train_labels) == 20


def test_a_download_is_torchvisions_and_goes_to_the_cache(cache, monkeypatch):
    def download(self):
        if not self._check_exists():
            mnist(cache / "torchvision" / "KMNIST", "KMNIST")

    monkeypatch.setattr(datasets.KMNIST, "download", download)
    assert load_dataset("torchvision:KMNIST").classes == tuple(datasets.KMNIST.classes)
    monkeypatch.setattr(torchvision_sets, "_opened", None)  # it was kept, decoded, too
    assert len(load_dataset("torchvision:KMNIST").train_labels) == 20


def refused(sentence, *args, **more):
    with pytest.raises(UsageError, match=sentence) as caught:
        load_dataset(*args, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_network_one_sentence_says_what_to_do(tmp_path, cache):
    place = cache / "torchvision" / "FashionMNIST"
    said = refused("FashionMNIST was not read from .* could not be downloaded", FASHION)
    for part in (str(place), "no network", "--data", "torchvision.datasets.FashionMNIST"):
        assert part in said
    for args in ((FASHION, None, False), (FASHION, tmp_path)):
        said = refused(r"was not read from [^ ]+ \(Dataset not found\); bring it", *args)
        assert str(args[1] or place) in said
    assert list(tmp_path.glob("FashionMNIST")) == []  # nothing is written where data was named
    refused("is not there|does not exist", FASHION, tmp_path / "nowhere")


def test_a_damaged_file_is_one_sentence(tmp_path):
    mnist(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    refused("FashionMNIST was not read from .*", FASHION, tmp_path)
    mnist(tmp_path)
    labels = tmp_path / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:7] + bytes([15]) + content[8:-5])  # fewer than images
    refused("image 1[5-9] of torchvision's FashionMNIST does not read", FASHION, tmp_path)
    labels.write_bytes(content[:-1] + bytes([10]))
    refused("has 10 classes, but labels from 0 to 10", FASHION, tmp_path)


def test_names_sizes_and_channels_are_checked(tmp_path):
    refused("did you mean 'torchvision:FashionMNIST'", "torchvision:FashonMNIST", tmp_path)
    refused("did you mean 'torchvision:SVHN'", "torchvision:SVNH")
    refused("size must be a whole number ≥ 1, in pixels, but got 0", FASHION, size=0)
    refused("size must be .* but got True", FASHION, size=True)
    refused("size must be .* but got 28.0", FASHION, size=28.0)
    refused(r"channels must be 3 \(RGB\) or 1 \(grey\), but got 4", FASHION, channels=4)
    refused(
        "task digits has images of 32×32 with 3 .* got size 28 and channels 3", "digits", size=28
    )
    refused("task cifar10 .* channels 1", "cifar10", tmp_path, channels=1)
    assert load_dataset("digits", size=32, channels=3).embedded


def usps(root):
    """A set without names of classes, whose labels are from 1 in the file: 16×16."""
    chance = np.random.RandomState(0)
    for file, count in (("usps.bz2", 12), ("usps.t.bz2", 5)):
        lines = []
        for number in range(count):
            values = " ".join(f"{i + 1}:{v:.3f}" for i, v in enumerate(chance.rand(256) * 2 - 1))
            lines.append(f"{number % 4 + 1} {values}")
        (root / file).write_bytes(bz2.compress("\n".join(lines).encode()))


def test_labels_stand_for_classes_without_names(tmp_path):
    usps(tmp_path)
    found = load_dataset("torchvision:USPS", tmp_path)
    assert (found.inputs, found.classes) == ((1, 16, 16), ("0", "1", "2", "3"))
    assert found.test_labels.tolist() == [0, 1, 2, 3, 0]


def food(root, images):
    """A set of files: of other sizes and modes each."""
    (root / "food-101" / "meta").mkdir(parents=True)
    for part in ("train", "test"):
        (root / "food-101" / "images" / "pie").mkdir(parents=True, exist_ok=True)
        listed = []
        for number, image in enumerate(images):
            image.save(root / "food-101" / "images" / "pie" / f"{part}{number}.jpg", quality=95)
            listed.append(f"pie/{part}{number}")
        quoted = ", ".join(f'"{each}"' for each in listed)
        (root / "food-101" / "meta" / f"{part}.json").write_text(f'{{"pie": [{quoted}]}}')


def test_images_of_different_sizes_need_a_size(tmp_path):
    food(tmp_path, [Image.new("RGB", (64, 48), "red"), Image.new("RGB", (40, 40), "blue")])
    refused(
        "different sizes .64×48 and 40×40 pixels.; say what size", "torchvision:Food101", tmp_path
    )
    found = load_dataset("torchvision:Food101", tmp_path, size=24)
    assert (found.inputs, found.classes) == ((3, 24, 24), ("pie",))
    assert found.train_images[:, :, 12, 12].argmax(1).tolist() == [0, 2]


def test_images_of_one_size_need_none_also_where_they_are_no_squares(tmp_path):
    food(tmp_path, [Image.new("RGB", (64, 48), "red")])
    assert load_dataset("torchvision:Food101", tmp_path).inputs == (3, 48, 64)
    assert load_dataset("torchvision:Food101", tmp_path, channels=1).inputs == (1, 48, 64)


def test_images_of_different_colours_need_a_number_of_channels(tmp_path, monkeypatch):
    mnist(tmp_path)
    one = datasets.FashionMNIST.__getitem__

    def mixed(self, index):
        image, label = one(self, index)
        return (image.convert("RGB") if index == 3 else image), label

    monkeypatch.setattr(datasets.FashionMNIST, "__getitem__", mixed)
    refused("modes L and RGB; say how many channels", FASHION, tmp_path)
    assert load_dataset(FASHION, tmp_path, channels=1).inputs == (1, 28, 28)


def test_every_set_is_torchvisions_and_takes_what_it_is_asked():
    import inspect

    for name in torchvision_sets.names():
        known = inspect.signature(getattr(datasets, name)).parameters
        kinds = {each.kind for each in known.values()}
        for asked in torchvision_sets._SETS[name]:
            assert set(asked) <= set(known) or inspect.Parameter.VAR_KEYWORD in kinds, name
        train, test = torchvision_sets._SETS[name]
        assert train != test
        assert "download" in known or inspect.Parameter.VAR_KEYWORD in kinds


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_cache_that_may_not_be_written_is_said(cache):
    cache.mkdir()
    cache.chmod(0o500)
    refused("could not be downloaded .*[Pp]ermission", FASHION)
