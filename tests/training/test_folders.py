"""All that lies in class folders is read, or counted in one warning, or refused by name."""

from __future__ import annotations

import os
import shutil
import unicodedata
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from gclip.errors import UsageError
from gclip.training import cache as cache_module
from gclip.training import folders, load_dataset


def load(folder, *, said=()):
    """The images, when the warnings that come are exactly one with all of `said`, or none."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        dataset = load_dataset("cifar10", folder)
    assert len(found) == bool(said), [str(each.message) for each in found]
    for part in (*said, *([str(folder)] if said else [])):
        assert part in str(found[0].message)
    return dataset


def refused(folder, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        load_dataset("cifar10", folder)
    assert "\n" not in str(caught.value)


def put(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (shade,) * 3).save(path)


@pytest.mark.parametrize(
    "suffix", [".tif", ".TIFF", ".PNG", ".JPeG", ".gif", ".webp", ".bmp", ".pgm", ".avif"]
)
def test_a_class_of_other_files_is_a_class(class_folders, suffix):
    for part in ("train", "test"):
        for file in (class_folders / part / "dog").iterdir():
            image = Image.open(file).convert("L" if suffix == ".pgm" else "RGB")
            file.unlink()
            try:
                image.save(file.with_suffix(suffix))
            except (KeyError, OSError):
                pytest.skip(f"this Pillow cannot write {suffix}")
    found = load(class_folders)
    assert found.classes == ("cat", "dog")
    assert found.train_labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_images_in_folders_below_a_class_belong_to_it(class_folders):
    put(class_folders / "train" / "cat" / "tabby" / "young" / "9.png", 200)
    found = load(class_folders)
    assert found.classes == ("cat", "dog")
    assert found.train_labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert (found.train_images[3] == 200).all()


def test_linked_classes_and_images_are_read(class_folders, tmp_path):
    put(tmp_path / "elsewhere" / "0.png", 100)
    for part in ("train", "test"):
        (class_folders / part / "emu").symlink_to(tmp_path / "elsewhere")
    (class_folders / "train" / "cat" / "9.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    found = load(class_folders)
    assert found.classes == ("cat", "dog", "emu")
    assert found.train_labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert (found.train_images[3] == 100).all()
    assert (found.train_images[-1] == 100).all()


def test_what_is_left_out_is_counted_in_one_warning(class_folders):
    cat = class_folders / "train" / "cat"
    (cat / "notes.txt").write_text("")
    (cat / "more").mkdir()
    (cat / "more" / "x.npy").write_text("")
    (class_folders / "test" / "dog" / "README").write_text("")
    put(cat / ".hidden.png")
    (cat / ".hidden").mkdir()
    (cat / ".DS_Store").write_text("")
    put(class_folders / "train" / "stray.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(cat / "pipe.png")
    said = [
        "without an image's suffix: 3 (.npy, .txt, none; the first is train/cat/more/x.npy)",
        "hidden: 2 (the first is train/cat/.hidden)",
        "beside the class folders: 1 (the first is train/stray.png)",
    ]
    if hasattr(os, "mkfifo"):
        said.append("pipes or devices: 1 (the first is train/cat/pipe.png)")
    found = load(class_folders, said=said)
    assert found.train_labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_what_is_not_in_the_bytes_is_said_from_the_cache_too(class_folders, cache):
    Image.new("RGBA", (32, 32), (1, 2, 3, 4)).save(class_folders / "train" / "cat" / "9.png")
    frames = [Image.new("L", (32, 32), shade) for shade in (1, 200)]
    for place in ("train/dog", "test/dog"):
        frames[0].save(class_folders / place / "9.gif", save_all=True, append_images=frames[1:])
    said = [
        "several frames, of which the first is read: 2",
        "partly transparent, whose colours are read and whose transparency is not: 1",
    ]
    first = load(class_folders, said=said)
    assert len(list((cache / "images").iterdir())) == 1
    assert load(class_folders, said=said).digest == first.digest


def test_a_class_never_vanishes(class_folders):
    emu = class_folders / "train" / "emu"
    emu.mkdir()
    refused(class_folders, r"train/emu has no images; put images in, or remove it")
    (emu / "0.npy").write_text("")
    refused(class_folders, r"train/emu has no images, but 1 files ending in \.npy")
    (class_folders / "train" / "yak").mkdir()
    refused(class_folders, r"train/emu has no images, .* \(nor have 1 more\)")
    shutil.rmtree(emu)
    (class_folders / "train" / "yak").rmdir()
    emu.symlink_to("/not/mounted")
    refused(class_folders, r"train/emu is a link to /not/mounted, which is not there")


def test_classes_that_differ_between_train_and_test(class_folders):
    put(class_folders / "train" / "emu" / "0.png")
    found = load(class_folders, said=["classes without test images (the first is emu): 1"])
    assert found.classes == ("cat", "dog", "emu")
    (class_folders / "test" / "emu").mkdir()
    load(class_folders, said=["classes without test images (the first is emu): 1"])
    (class_folders / "test" / "Dog").mkdir()
    refused(class_folders, r"test/Dog is a class that .*train lacks \(its classes: cat, dog, emu\)")


def test_names_that_differ_in_case_are_two_classes(class_folders, tmp_path):
    (tmp_path / "case").write_text("")
    if (tmp_path / "CASE").exists():
        pytest.skip("file names here do not tell upper from lower case")
    for part in ("train", "test"):
        put(class_folders / part / "Cat" / "0.png")
    assert load(class_folders).classes == ("Cat", "cat", "dog")


def test_a_name_in_two_unicode_forms_is_one_class(class_folders, tmp_path):
    composed, apart = (unicodedata.normalize(form, "émeu") for form in ("NFC", "NFD"))
    (tmp_path / composed).write_text("")
    if (tmp_path / apart).exists():
        pytest.skip("file names here have one Unicode form")
    put(class_folders / "train" / apart / "0.png")
    put(class_folders / "test" / composed / "0.png")
    found = load(class_folders)
    assert found.classes == ("cat", "dog", apart)
    assert found.test_labels.tolist() == [0, 0, 1, 1, 2]
    put(class_folders / "train" / composed / "0.png")
    refused(class_folders, r"train has two class folders that read émeu, .* Unicode forms")


def test_links_that_lead_nowhere_or_around_are_refused(class_folders):
    link = class_folders / "train" / "cat" / "9.png"
    link.symlink_to("/not/mounted/9.png")
    refused(class_folders, r"9\.png is a link to /not/mounted/9\.png, which is not there")
    link.unlink()
    link.symlink_to(link)
    refused(class_folders, r"9\.png is a link to .*9\.png, which is not there")
    link.unlink()
    around = class_folders / "train" / "cat" / "again"
    around.symlink_to(class_folders / "train")
    refused(class_folders, r"cat/again is a link to a folder that it lies in itself")


def test_what_may_not_be_read_is_refused(class_folders, monkeypatch):
    scan = os.scandir

    def locked(folder):
        if os.fspath(folder).endswith("dog"):
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", locked)
    refused(class_folders, r"train/dog cannot be read: Permission denied")
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(class_folders, r"the data folder .* cannot be read: permission denied")


def test_several_sets_of_images_are_not_chosen_from(class_folders):
    shutil.copytree(class_folders, class_folders.parent / "more" / "images")
    load(class_folders.parent)  # the nearest
    shutil.copytree(class_folders, class_folders.parent / "other")
    refused(class_folders.parent, r"has several sets of images \(.*images and .*other\); name one")


def test_another_folder_never_gets_these_pixels(class_folders, tmp_path):
    """Same names, sizes and times, other pixels."""
    other = tmp_path / "other"
    shutil.copytree(class_folders, other)
    for folder, shade in ((class_folders, 10), (other, 20)):
        file = folder / "train" / "cat" / "0.bmp"
        put(file, shade)
        os.utime(file, ns=(10**18, 10**18))
    assert (load(class_folders).train_images[0] == 10).all()
    assert (load(other).train_images[0] == 20).all()
    # The same for a folder that takes another's place, and for one that is linked.
    class_folders.rename(tmp_path / "away")
    other.rename(class_folders)
    assert (load(class_folders).train_images[0] == 20).all()
    (tmp_path / "link").symlink_to(tmp_path / "away")
    assert (load(tmp_path / "link").train_images[0] == 10).all()


def test_a_changed_file_is_noticed_though_its_time_was_restored(class_folders):
    file = class_folders / "train" / "cat" / "0.bmp"
    put(file, 10)
    facts = file.stat()
    assert (load(class_folders).train_images[0] == 10).all()
    content = file.read_bytes()
    file.write_bytes(content[:54] + bytes([20]) * (len(content) - 54))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        facts.st_size, facts.st_mtime_ns, facts.st_ino
    )  # fmt: skip
    assert (load(class_folders).train_images[0] == 20).all()


def test_images_that_change_while_they_are_read_are_not_kept(class_folders, cache, monkeypatch):
    decode = folders.images.decode

    def slow(paths, form):
        put(class_folders / "train" / "cat" / "late.png")
        return decode(paths, form)

    monkeypatch.setattr(folders.images, "decode", slow)
    load(class_folders)
    assert not (cache / "images").exists()


def test_the_same_image_in_two_classes_is_two_images(class_folders):
    shutil.copy(
        class_folders / "train" / "cat" / "0.png", class_folders / "train" / "dog" / "9.png"
    )
    found = load(class_folders)
    assert torch.equal(found.train_images[0], found.train_images[-1])
    assert found.train_labels[[0, -1]].tolist() == [0, 1]


def test_labels_follow_the_sorted_names_of_classes(tmp_path):
    names = ["b", "a b", "a", "10", "9", "Z", "é"]
    for shade, name in enumerate(names):
        for part in ("train", "test"):
            put(tmp_path / "set" / part / name / "0.png", shade)
    found = load(tmp_path / "set")
    assert found.classes == tuple(sorted(names))
    shades = found.train_images[:, 0, 0, 0].tolist()
    assert [found.classes[label] for label in found.train_labels] == [names[s] for s in shades]
    assert np.array_equal(found.test_images.numpy(), found.train_images.numpy())


def test_without_a_home_folder_the_cache_has_to_be_named(class_folders, monkeypatch):
    def homeless(_):
        raise RuntimeError("Could not determine home directory.")

    for name in ("GCLIP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.expanduser", homeless)
    monkeypatch.setattr("pathlib.Path.home", classmethod(homeless))
    for download in (False, True):
        with pytest.raises(UsageError, match="has no home folder; set GCLIP_CACHE to a folder"):
            load_dataset("cifar10", download=download)
    monkeypatch.undo()
    monkeypatch.delenv("GCLIP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", classmethod(homeless))
    with pytest.warns(UserWarning, match="not kept, .* set GCLIP_CACHE to a folder"):
        assert len(load_dataset("cifar10", class_folders).train_labels) == 6


def test_a_home_folder_that_is_not_there(monkeypatch):
    with pytest.raises(UsageError, match=r"the data folder is '~nobody-here/x', but there is no"):
        load_dataset("cifar10", "~nobody-here/x")
    monkeypatch.setenv("GCLIP_CACHE", "~nobody-here/x")
    with pytest.raises(UsageError, match=r"GCLIP_CACHE is '~nobody-here/x', but there is no"):
        cache_module.cache_folder()
