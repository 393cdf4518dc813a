"""The store keeps what it was given, notices what was altered, and refuses in one sentence."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gclip.errors import UsageError
from gclip.results import Store, StoreWarning
from gclip.results.reading import reading_once

Make = Callable[..., Any]
FILES = ("config.json", "environment.json", "result.json", "steps.npz")


def test_a_run_comes_back_as_it_was(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path / "deep" / "runs", create=True)
    result = make("norm", accuracy=float("nan"), status="diverged", stopped_at=7)
    folder = store.save(result)
    assert sorted(os.listdir(folder)) == sorted(FILES)
    assert store.keys() == (result.config.key,)
    stored = Store(store.path).read(result.config.key)
    assert stored is not None
    assert stored.config == result.config.values
    assert stored.environment == result.environment
    assert (stored.status, stored.result["stopped_at"]) == ("diverged", 7)
    assert np.isnan(stored.result["accuracy"])
    assert stored.result["curve"] == result.curve
    assert stored.length() == 6
    for name, values in result.steps.items():
        assert stored.steps()[name].dtype == values.dtype
        np.testing.assert_array_equal(stored.steps()[name], values)


def test_equal_results_are_equal_bytes(tmp_path: Path, make: Make) -> None:
    folders = [Store(tmp_path / name, create=True).save(make("norm")) for name in "ab"]
    for name in FILES:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_only_runs_with_an_outcome_need_no_repetition(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    outcomes = {"finished": True, "diverged": True, "pruned": False, "failed": False}
    for seed, (status, done) in enumerate(outcomes.items()):
        result = make("norm", seed, status=status)
        assert not store.has(result.config.key)
        store.save(result)
        assert store.has(result.config.key) is done
        assert store.status(result.config.key) == status
    assert store.status("0" * 64) is None
    with pytest.raises(UsageError, match="has no run '000"):
        store.load("0" * 64)


def test_numpy_numbers_in_a_result_are_kept_as_numbers(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    result = make(accuracy=np.float32(0.5), clipping={"skipped": np.int64(3)})
    store.save(result)
    stored = store.read(result.config.key)
    assert stored is not None
    assert stored.result["accuracy"] == 0.5
    assert stored.result["clipping"] == {"skipped": 3}


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        ("failed", "finished", "second"),
        ("failed", "failed", "second"),
        ("pruned", "diverged", "second"),
        ("finished", "failed", "first"),
        ("finished", "finished", "first"),
        ("pruned", "failed", "first"),
    ],
)
def test_who_stays(tmp_path: Path, make: Make, first: str, second: str, stays: str) -> None:
    store = Store(tmp_path, create=True)
    store.save(make(status=first, message="first"))
    folder = store.save(make(status=second, message="second"))
    stored = store.read(folder.name)
    assert stored is not None
    assert stored.result["message"] == stays
    assert not [path for path in (tmp_path / ".tmp").iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_set_aside_and_the_run_can_be_made_again(
    tmp_path: Path, make: Make, name: str
) -> None:
    store = Store(tmp_path, create=True)
    result, other = make("norm"), make("agc")
    folder = store.save(result)
    store.save(other)
    whole = (folder / name).read_bytes()
    positions = np.random.default_rng(0).integers(0, 8 * len(whole), 12)
    for count, bit in enumerate([0, 8 * len(whole) - 1, *positions]):
        altered = bytearray(whole)
        altered[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(altered)
        with pytest.warns(StoreWarning, match="was damaged .* counts as missing"):
            assert not store.has(result.config.key)
        aside = f"{result.config.key}.{count}" if count else result.config.key
        assert (tmp_path / ".damaged" / aside / name).read_bytes() == bytes(altered)
        assert store.keys() == (other.config.key,)
        store.save(result)
        assert store.has(result.config.key)
    assert store.has(other.config.key)


@pytest.mark.parametrize("name", FILES)
def test_missing_and_cut_files_are_damage(tmp_path: Path, make: Make, name: str) -> None:
    store = Store(tmp_path, create=True)
    result = make()
    folder = store.save(result)
    (folder / name).unlink()
    with pytest.warns(StoreWarning, match=f"{name} is missing"):
        assert store.read(result.config.key) is None
    store.save(result)
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.warns(StoreWarning, match=r"damaged"):
        assert store.read(result.config.key) is None


def test_a_damaged_run_gives_way_to_a_new_one(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    result = make()
    folder = store.save(result)
    (folder / "steps.npz").write_bytes(b"")
    with pytest.warns(StoreWarning, match="was damaged"):
        store.save(result)
    assert store.has(result.config.key)


def test_a_run_under_another_name_is_not_taken_for_it(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    folder = store.save(make("norm"))
    folder.rename(tmp_path / ("a" * 64))
    with pytest.warns(StoreWarning, match="another key"):
        assert store.read("a" * 64) is None


def test_files_of_others_are_no_runs(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "study.db").write_text("mine")
    folder = store.save(make())
    (folder / ".DS_Store").write_text("a desktop was here")
    assert store.keys() == (folder.name,)
    assert store.has(folder.name)


def test_the_sweep_takes_orphans_and_spares_the_living(tmp_path: Path, make: Make) -> None:
    store = Store(tmp_path, create=True)
    orphan = tmp_path / ".tmp" / "0123-orphan"
    orphan.mkdir()
    (orphan / "config.json").write_text("half a run")
    from gclip.results.lock import hold

    with hold(tmp_path / ".tmp" / "writers.lock", exclusive=False) as held:
        if held == "unsupported":
            pytest.skip("this file system has no locks")
        assert store.sweep() == 0  # somebody is writing: it could be theirs
        assert orphan.is_dir()
    assert store.sweep() == 1
    assert not orphan.exists()
    orphan.mkdir()
    Store(tmp_path, create=True)
    assert not orphan.exists()


def test_reading_creates_nothing(tmp_path: Path, make: Make) -> None:
    for path in (tmp_path / "no-such", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match=f"the store '{path}'.*--store runs"):
            Store(path)
    assert not (tmp_path / "no-such").exists()
    (tmp_path / "empty").mkdir()
    assert Store(tmp_path / "empty").keys() == ()
    assert os.listdir(tmp_path / "empty") == []


def test_a_place_that_cannot_be_a_store_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(UsageError, match="cannot keep runs in") as caught:
            Store(path, create=True)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_systems_own_refusal_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"cannot keep runs in '/proc/gclip': .+; choose a folder"):
        Store("/proc/gclip", create=True)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder_is_known_at_once_and_still_read(tmp_path: Path, make: Make) -> None:
    folder = Store(tmp_path / "runs", create=True).save(make())
    for path in (tmp_path / "runs" / ".tmp", tmp_path / "runs"):
        path.chmod(0o555)
    try:
        with pytest.raises(UsageError, match="Permission denied"):
            Store(tmp_path / "runs", create=True)
        assert Store(tmp_path / "runs").has(folder.name)
    finally:
        for path in (tmp_path / "runs", tmp_path / "runs" / ".tmp"):
            path.chmod(0o755)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_a_refusal_while_saving_loses_nothing(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    store = Store(tmp_path, create=True)
    kept, lost = make("norm"), make("agc")
    store.save(kept)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(UsageError) as caught:
            store.save(lost)
    message = str(caught.value)
    assert f"cannot store run {lost.config.key[:12]} in '{tmp_path}'" in message
    assert os.strerror(number) in message
    assert "\n" not in message
    assert store.has(kept.config.key)
    assert not store.has(lost.config.key)
    assert store.sweep() == 0  # it cleaned up after itself
    store.save(lost)
    assert store.has(lost.config.key)


def test_a_damaged_run_in_a_store_that_is_only_readable(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, create=True)
    folder = store.save(make())
    (folder / "config.json").write_text("{}")

    opened = os.open

    def refuse(path: str, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.warns(StoreWarning, match=r"is damaged \(config.json does not match"):
        assert store.read(folder.name) is None
    assert folder.is_dir()


def test_within_a_command_a_run_is_verified_once_and_what_may_be_replaced_anew(
    tmp_path: Path, make: Make
) -> None:
    store = Store(tmp_path, create=True)
    final, lost = make("norm"), make("agc", status="failed")
    folder = store.save(final)
    store.save(lost)
    with reading_once():
        assert store.has(final.config.key)
        (folder / "config.json").write_text("{}")
        with reading_once():  # the outer one goes on
            again = Store(tmp_path).read(final.config.key)
        assert again is not None
        assert again.config == final.config.values
        assert store.status(lost.config.key) == "failed"
        store.save(make("agc"))
        assert store.status(lost.config.key) == "finished"
    with pytest.warns(StoreWarning, match="was damaged"):
        assert not store.has(final.config.key)
