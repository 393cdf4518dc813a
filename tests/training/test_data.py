"""Images come whole and verified, the same bytes from wherever they come."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gclip.errors import UsageError
from gclip.training import digits as digits_module
from gclip.training import images, load_dataset
from gclip.training.dataset import Dataset

DIGITS = "9f022b88211ef2dc61f43ca922bd33d208d5b6033461450ee73c03a7109d4801"


def test_digits_are_the_same_bytes_everywhere(digits):
    assert digits.digest == DIGITS
    assert digits.train_images.shape == (1442, 3, 32, 32)
    assert digits.test_images.shape == (355, 3, 32, 32)
    assert digits.train_images.dtype == torch.uint8
    assert digits.classes == tuple("0123456789")
    assert digits.identity == ""
    shares = torch.bincount(digits.test_labels) / torch.bincount(
        torch.cat([digits.train_labels, digits.test_labels])
    )
    assert ((shares > 0.19) & (shares <= 0.2)).all()


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    raw = load_digits()
    table = digits_module.table()
    assert np.array_equal(table[:, :-1], raw.data)
    assert np.array_equal(table[:, -1], raw.target)


def test_enlarging_is_bilinear():
    small = torch.randint(0, 17, (20, 8, 8), generator=torch.Generator().manual_seed(0))
    peer = F.interpolate(
        small[:, None].double() * 255 / 16, scale_factor=4, mode="bilinear", align_corners=False
    )
    ours = digits_module.enlarge(small)
    assert ours.shape == (20, 3, 32, 32)
    assert (ours.double() - peer).abs().max() <= 0.5 + 1e-9


def test_mean_and_deviation(digits):
    exact = digits.train_images.double() / 255
    assert digits.mean == pytest.approx(exact.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert digits.std == pytest.approx(exact.std((0, 2, 3), correction=0).tolist(), rel=1e-9)


def test_a_channel_that_never_varies_does_not_divide_by_zero():
    flat = torch.full((4, 3, 32, 32), 9, dtype=torch.uint8)
    labels = torch.zeros(4, dtype=torch.int64)
    made = Dataset(
        name="cifar10", classes=("a",), train_images=flat, train_labels=labels, test_images=flat,
        test_labels=labels,
    )  # fmt: skip
    assert made.std == (1.0, 1.0, 1.0)
    assert made.mean == pytest.approx((9 / 255,) * 3)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 48), (4, 5, 3)])
def test_mean_and_deviation_of_images_of_any_shape(shape):
    images = torch.randint(
        256, (1100, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.arange(1100) % 2
    found = Dataset.from_tensors(images, labels, images[:1], labels[:1], name="cifar10")
    exact = images.double() / 255
    assert found.mean == pytest.approx(exact.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert found.std == pytest.approx(exact.std((0, 2, 3), correction=0).tolist(), rel=1e-9)
    assert found.train_images.is_contiguous(memory_format=torch.channels_last)


def test_class_folders(class_folders, pixels):
    found = load_dataset("cifar10", class_folders)
    assert found.classes == ("cat", "dog")
    assert found.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.test_labels.tolist() == [0, 0, 1, 1]
    expected = [pixels[f"train/{c}/{i}.png"] for c in ("cat", "dog") for i in range(3)]
    assert np.array_equal(found.train_images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert found.identity == found.digest[:16]


def test_class_folders_are_decoded_once(class_folders, monkeypatch):
    first = load_dataset("cifar10", class_folders)

    def never(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(images, "decode", never)
    again = load_dataset("cifar10", class_folders.parent)  # found one folder below, too
    assert again.digest == first.digest
    assert torch.equal(again.train_images, first.train_images)
    assert torch.equal(again.test_labels, first.test_labels)
    assert (again.mean, again.std) == (first.mean, first.std)
    image = class_folders / "train" / "cat" / "0.png"
    os.utime(image, ns=(1, 1))
    with pytest.raises(AssertionError, match="decoded again"):
        load_dataset("cifar10", class_folders)


@pytest.mark.parametrize("damage", ["flip", "truncate", "facts"])
def test_a_damaged_cache_is_made_anew(class_folders, cache, damage):
    first = load_dataset("cifar10", class_folders)
    (kept,) = (cache / "images").iterdir()
    if damage == "facts":
        (kept / "facts.json").write_text("{")
    else:
        content = bytearray((kept / "train_images.npy").read_bytes())
        content[-1] ^= 1
        (kept / "train_images.npy").write_bytes(content[:-5] if damage == "truncate" else content)
    assert torch.equal(load_dataset("cifar10", class_folders).train_images, first.train_images)
    assert load_dataset("cifar10", class_folders).digest == first.digest
    assert [path.name for path in (cache / "images").iterdir()] == [kept.name]


def test_without_a_cache_folder_it_works_and_warns(class_folders, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("GCLIP_CACHE", str(blocked))
    with pytest.warns(UserWarning, match="the decoded images are not kept"):
        assert len(load_dataset("cifar10", class_folders).train_labels) == 6


def test_other_sizes_and_grey_images_are_fitted(class_folders):
    from PIL import Image

    Image.new("L", (50, 40), 77).save(class_folders / "train" / "cat" / "9.png")
    found = load_dataset("cifar10", class_folders)
    assert (found.train_images[3] == 77).all()


def official(folder, monkeypatch):
    """Batches like the official ones, and torchvision's checksums changed to theirs."""
    from torchvision.datasets import CIFAR10

    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    parts = {}

    def write(name, content):
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        return hashlib.md5(raw).hexdigest()

    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    sums = {}
    for name in names:
        data = random.randint(0, 256, (4, 3072)).astype(np.uint8)
        parts[name] = data.reshape(4, 3, 32, 32)
        sums[name] = write(name, {"data": data, "labels": [0, 1, 2, 3]})
    classes = ["a", "b", "c", "d"]
    meta = {"filename": "batches.meta", "key": "label_names"}
    meta["md5"] = write("batches.meta", {"label_names": classes})
    monkeypatch.setattr(CIFAR10, "train_list", [[n, sums[n]] for n in names[:-1]])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[-1], sums[names[-1]]]])
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return parts


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py", "downloads/cifar-10-batches-py"])
def test_official_batches_at_or_below_the_folder(tmp_path, monkeypatch, below):
    parts = official(tmp_path / "data" / below, monkeypatch)
    found = load_dataset("cifar10", tmp_path / "data")
    assert found.classes == ("a", "b", "c", "d")
    assert found.train_images.shape == (20, 3, 32, 32)
    assert np.array_equal(found.train_images[4:8].numpy(), parts["data_batch_2"])
    assert np.array_equal(found.test_images.numpy(), parts["test_batch"])
    assert found.train_labels.tolist() == [0, 1, 2, 3] * 5


def test_official_batches_in_the_cache_need_no_network(cache, monkeypatch):
    official(cache / "cifar-10-batches-py", monkeypatch)
    assert len(load_dataset("cifar10", download=False).train_labels) == 20


def test_batches_that_are_not_official_are_refused_unread(tmp_path, monkeypatch):
    official(tmp_path / "data", monkeypatch)
    file = tmp_path / "data" / "data_batch_3"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(UsageError, match=r"data_batch_3 is not the official CIFAR-10 file"):
        load_dataset("cifar10", tmp_path / "data")
    file.unlink()
    with pytest.raises(UsageError, match=r"CIFAR-10's data_batch_3 is missing"):
        load_dataset("cifar10", tmp_path / "data")


def test_without_network_one_sentence_says_what_to_do(monkeypatch):
    import urllib.request

    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(UsageError, match=r"could not be downloaded .*give --data a folder") as said:
        load_dataset("cifar10")
    assert "\n" not in str(said.value)


def test_what_cannot_be_used_is_said(tmp_path, class_folders):
    def refused(sentence, *args, **kwargs):
        with pytest.raises(UsageError, match=sentence):
            load_dataset(*args, **kwargs)

    refused("unknown task 'cifar'; did you mean 'cifar10'", "cifar")
    refused("takes no data", "digits", tmp_path)
    refused("does not exist", "cifar10", tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    refused("is a file, not a folder", "cifar10", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    refused("no images were found in .* cifar-10-batches-py", "cifar10", tmp_path / "empty")
    refused("not in the cache folder", "cifar10", download=False)
    (class_folders / "train" / "cat" / "bad.png").write_text("not an image")
    refused(r"bad\.png does not read", "cifar10", class_folders)
    (class_folders / "train" / "cat" / "bad.png").unlink()
    (class_folders / "test" / "cow").mkdir()
    (class_folders / "test" / "cow" / "0.png").write_text("")
    refused("cow is a class that .*train lacks", "cifar10", class_folders)


def test_a_folder_without_images_is_said(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="has no images in class folders"):
        load_dataset("cifar10", tmp_path)


@pytest.fixture
def odd_folders(tmp_path):
    """Class folders with images of 64×48, 30×90, a grey one, and one of 40×40."""
    from PIL import Image

    chance = np.random.RandomState(0)
    made = [
        Image.fromarray(chance.randint(0, 256, (48, 64, 3), dtype=np.uint8)),
        Image.fromarray(chance.randint(0, 256, (90, 30, 3), dtype=np.uint8)),
        Image.fromarray(chance.randint(0, 256, (48, 64), dtype=np.uint8)),
        Image.fromarray(chance.randint(0, 256, (40, 40, 3), dtype=np.uint8)),
    ]
    for part in ("train", "test"):
        (tmp_path / "odd" / part / "cat").mkdir(parents=True)
        for number, image in enumerate(made):
            image.save(tmp_path / "odd" / part / "cat" / f"{number}.png")
    return tmp_path / "odd", made


def test_images_are_resized_and_their_middle_is_taken(odd_folders):
    from PIL import Image

    folder, made = odd_folders
    found = load_dataset("images", folder, size=24)
    assert (found.name, found.inputs) == ("images", (3, 24, 24))
    middles = [(8, 0, 56, 48), (0, 30, 30, 60), (8, 0, 56, 48), (0, 0, 40, 40)]
    for image, middle, ours in zip(made, middles, found.train_images, strict=True):
        resized = image.convert("RGB").resize((24, 24), Image.Resampling.BILINEAR, box=middle)
        assert np.array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(resized))
    usual = load_dataset("images", folder)
    assert usual.inputs == (3, 32, 32)
    stretched = load_dataset("cifar10", folder)
    assert torch.equal(usual.train_images[3], stretched.train_images[3])
    assert not torch.equal(usual.train_images[0], stretched.train_images[0])


def test_grey_images_have_one_channel_where_one_is_asked_for(odd_folders):
    from PIL import Image

    folder, made = odd_folders
    grey = load_dataset("images", folder, size=48, channels=1)
    colour = load_dataset("images", folder, size=48)
    assert grey.inputs == (1, 48, 48)
    assert np.array_equal(grey.train_images[2, 0].numpy(), np.asarray(made[2])[:, 8:56])
    assert torch.equal(colour.train_images[2], grey.train_images[2].expand(3, -1, -1))
    rgb = colour.train_images[0].permute(1, 2, 0).contiguous().numpy()
    assert np.array_equal(
        grey.train_images[0, 0].numpy(), np.asarray(Image.fromarray(rgb).convert("L"))
    )


def test_every_size_is_another_data_set_and_cached_by_itself(odd_folders, cache, monkeypatch):
    folder, _ = odd_folders
    forms = [{}, {"size": 24}, {"size": 24, "channels": 1}]
    first = [load_dataset("images", folder, **form).identity for form in forms]
    first.append(load_dataset("cifar10", folder).identity)
    assert len(set(first)) == 4
    assert len(list((cache / "images").iterdir())) == 4
    monkeypatch.setattr(images, "decode", None)
    again = [load_dataset("images", folder, **form).identity for form in forms]
    assert [*again, load_dataset("cifar10", folder).identity] == first


def test_the_usual_images_are_the_same_data_in_both_tasks(class_folders):
    one, other = (load_dataset(task, class_folders) for task in ("cifar10", "images"))
    assert one.digest == other.digest
    assert (one.name, other.name) == ("cifar10", "images")
    below = load_dataset("images", class_folders.parent)  # found one folder below, too
    assert below.digest == one.digest


def test_images_need_class_folders(tmp_path):
    with pytest.raises(UsageError, match="task images needs --data: a folder with train/<class>"):
        load_dataset("images")
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"")
    with pytest.raises(UsageError, match="no images were found in .*: it must have train/<class>"):
        load_dataset("images", tmp_path)


def test_images_of_another_shape_are_refused(digits):
    with pytest.raises(UsageError, match="train_images and test_images must be alike"):
        Dataset(
            name="cifar10", classes=("a",), train_images=torch.zeros(2, 3, 28, 28),
            train_labels=torch.zeros(2), test_images=digits.test_images,
            test_labels=digits.test_labels,
        )  # fmt: skip


@pytest.mark.skipif(
    "GCLIP_CIFAR10" not in os.environ,
    reason="GCLIP_CIFAR10 does not name a folder with the CIFAR-10 images",
)
def test_the_real_images():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_dataset("cifar10", os.environ["GCLIP_CIFAR10"])
    assert found.train_images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(found.train_labels).tolist() == [5000] * 10
    assert torch.bincount(found.test_labels).tolist() == [1000] * 10
    assert found.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-3)
