"""CIFAR-10 heals from the archive beside it, and never takes what is not official for it."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import tarfile
import urllib.request
import warnings

import numpy as np
import pytest

from gclip.errors import UsageError
from gclip.training import cifar, load_dataset

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]


@pytest.fixture
def raw(monkeypatch):
    """Files like the official ones, whose checksums torchvision is told."""
    from torchvision.datasets import CIFAR10

    random = np.random.RandomState(0)
    found = {
        name: pickle.dumps(
            {"data": random.randint(0, 256, (4, 3072)).astype(np.uint8), "labels": [0, 1, 2, 3]}
        )
        for name in NAMES[:-1]
    }
    found["batches.meta"] = pickle.dumps({"label_names": list("abcd")})
    sums = {name: hashlib.md5(content).hexdigest() for name, content in found.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in NAMES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)

    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    return found


@pytest.fixture
def archive(raw, cache, tmp_path):
    """The official archive in the cache folder, and nothing else."""
    from torchvision.datasets import CIFAR10

    cache.mkdir()
    path = cache / cifar.ARCHIVE
    with tarfile.open(path, "w:gz") as target:
        for name, content in raw.items():
            (tmp_path / "file").write_bytes(content)
            target.add(tmp_path / "file", f"{cifar.FOLDER}/{name}")
    CIFAR10.tgz_md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return path


@pytest.fixture(autouse=True)
def _checksum(monkeypatch):
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "tgz_md5", CIFAR10.tgz_md5)


def put(folder, raw, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(raw[name])


def whole(found, raw):
    expected = [pickle.loads(raw[name])["data"].reshape(-1, 3, 32, 32) for name in NAMES[:6]]
    return np.array_equal(found.train_images.numpy(), np.concatenate(expected[:5])) and (
        np.array_equal(found.test_images.numpy(), expected[5])
    )


@pytest.mark.parametrize("there", [[], NAMES[3:4], NAMES[:5], NAMES[1:], NAMES[:6]])
@pytest.mark.parametrize("download", [True, False])
def test_an_interrupted_extraction_goes_on(archive, cache, raw, there, download):
    folder = cache / cifar.FOLDER
    if there:
        put(folder, raw, there)
    assert whole(load_dataset("cifar10", download=download), raw)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == raw
    archive.unlink()
    assert whole(load_dataset("cifar10", download=False), raw)


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "flip"])
def test_damaged_files_in_the_cache_are_replaced(archive, cache, raw, damage):
    folder = cache / cifar.FOLDER
    put(folder, raw)
    good = raw["data_batch_2"]
    (folder / "data_batch_2").write_bytes(
        {
            "cut": good[:500],
            "empty": b"",
            "zeros": good[:500] + bytes(len(good) - 500),
            "flip": good[:500] + bytes([good[500] ^ 1]) + good[501:],
        }[damage]
    )
    assert whole(load_dataset("cifar10", download=False), raw)
    assert (folder / "data_batch_2").read_bytes() == good


def test_in_a_folder_of_the_users_other_content_is_theirs(archive, tmp_path, raw):
    data = tmp_path / "data"
    put(data / cifar.FOLDER, raw)
    os.rename(archive, data / cifar.ARCHIVE)
    file = data / cifar.FOLDER / "data_batch_2"
    file.write_bytes(file.read_bytes()[:700])
    assert whole(load_dataset("cifar10", data), raw)
    assert file.read_bytes() == raw["data_batch_2"]
    file.unlink()
    assert whole(load_dataset("cifar10", data / cifar.FOLDER), raw)
    theirs = raw["data_batch_2"][:-9] + b"different"
    file.write_bytes(theirs)
    with pytest.raises(UsageError, match=r"data_batch_2 is not the official .*; delete it, and it"):
        load_dataset("cifar10", data)
    assert file.read_bytes() == theirs


def test_the_archive_alone_is_enough(archive, tmp_path, raw):
    data = tmp_path / "downloads"
    data.mkdir()
    os.rename(archive, data / cifar.ARCHIVE)
    assert whole(load_dataset("cifar10", tmp_path), raw)


def test_a_torn_archive_gives_what_it_has(archive, cache, raw):
    folder = cache / cifar.FOLDER
    put(folder, raw, NAMES[2:])
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) - 2000])
    assert whole(load_dataset("cifar10", download=False), raw)
    (folder / "batches.meta").unlink()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UsageError, match=r"batches\.meta is missing .* archive .* is damaged; .* be downloaded"
    ):
        load_dataset("cifar10", download=False)
    with pytest.raises(UsageError, match=r"could not be downloaded .*repeat it with a network"):
        load_dataset("cifar10")


def test_a_damaged_file_without_the_archive_is_downloaded_again(archive, cache, raw, monkeypatch):
    from torchvision.datasets import utils

    put(cache / cifar.FOLDER, raw)
    (cache / cifar.FOLDER / "test_batch").write_bytes(b"")
    content = archive.read_bytes()
    archive.unlink()
    with pytest.raises(UsageError, match=r"test_batch is not the official .* is not there; bring"):
        load_dataset("cifar10", download=False)
    asked = []

    def arrives(url, root, filename, md5):
        asked.append((filename, md5))
        archive.write_bytes(content)

    monkeypatch.setattr(utils, "download_url", arrives)
    assert whole(load_dataset("cifar10"), raw)
    assert asked == [(cifar.ARCHIVE, hashlib.md5(content).hexdigest())]
    assert whole(load_dataset("cifar10"), raw)
    assert len(asked) == 1


def test_without_room_to_unpack_the_archive_is_read(archive, raw, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="batches are not kept, .* No space left on device"):
        assert whole(load_dataset("cifar10", download=False), raw)
    assert sorted(file.name for file in (archive.parent / cifar.FOLDER).iterdir()) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free 200 MB there, set GCLIP_CACHE"),
        (errno.EACCES, "set GCLIP_CACHE to a folder that you may write"),
        (errno.EROFS, "set GCLIP_CACHE to a folder that you may write"),
    ],
)
def test_where_nothing_can_be_written_it_is_said(raw, cache, monkeypatch, number, advice):
    from torchvision.datasets import utils

    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(utils, "download_url", fails)
    with pytest.raises(UsageError, match=rf"could not be downloaded to .*{advice}") as caught:
        load_dataset("cifar10")
    assert "\n" not in str(caught.value)


def test_pipes_are_not_waited_for(archive, cache, raw):
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no pipes in folders here")
    folder = cache / cifar.FOLDER
    put(folder, raw, NAMES[1:])
    os.mkfifo(folder / "data_batch_1")
    assert whole(load_dataset("cifar10", download=False), raw)


def test_what_may_not_be_read_is_said(cache, raw, monkeypatch):
    put(cache / cifar.FOLDER, raw)

    def locked(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", locked)
    with pytest.raises(UsageError, match=r"data_batch_1 cannot be read: Permission denied"):
        load_dataset("cifar10", download=False)


def test_nothing_is_said_when_all_is_well(archive, raw):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset("cifar10", download=False)
        load_dataset("cifar10", download=False)
