"""A checkpoint is whole, verified, or refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from gclip.errors import UsageError
from gclip.training import checkpoint


@pytest.fixture
def state():
    return {"weights": torch.arange(5.0), "step": 3, "names": ["a", "b"], "none": None}


def test_round_trip(tmp_path, state):
    path = tmp_path / "new" / "run.ckpt"
    checkpoint.save(path, state)
    found = checkpoint.load(path)
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state
    assert [each.name for each in path.parent.iterdir()] == ["run.ckpt"]


def test_any_flipped_bit_is_noticed(tmp_path, state):
    path = tmp_path / "run.ckpt"
    checkpoint.save(path, state)
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        broken = bytearray(whole)
        broken[place] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(UsageError, match="is damaged|is not a checkpoint"):
            checkpoint.load(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(UsageError, match="is damaged; delete it"):
        checkpoint.load(path)


def test_a_failed_save_leaves_the_old_one(tmp_path, state, monkeypatch):
    path = tmp_path / "run.ckpt"
    checkpoint.save(path, state)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(UsageError, match=r"cannot be written: .*No space left"):
        checkpoint.save(path, state | {"step": 4})
    assert checkpoint.load(path)["step"] == 3
    assert [each.name for each in tmp_path.iterdir() if each.name != "cache"] == ["run.ckpt"]


def test_what_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UsageError, match="is not a checkpoint of gclip"):
        checkpoint.load(tmp_path / "text")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="cannot be read: it is a pipe, not a file"):
        checkpoint.load(tmp_path / "pipe")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        checkpoint.load(tmp_path)


def left_by(folder, pid, name="run.ckpt", host=None):
    """What a killed process leaves; its path."""
    path = folder / f".{name}.{checkpoint._host() if host is None else host}-{pid}-abcd_123"
    path.write_bytes(b"half")
    return path


@pytest.mark.skipif(os.name == "nt", reason="nobody can be asked there whether they live")
@pytest.mark.parametrize("how", ["save", "load"])
def test_what_a_killed_process_left_is_swept(tmp_path, state, how):
    """And nothing else: what a living one writes, another machine, another checkpoint."""
    path = tmp_path / "run.ckpt"
    checkpoint.save(path, state)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = left_by(tmp_path, dead.pid)
    kept = [
        left_by(tmp_path, os.getpid()),
        left_by(tmp_path, dead.pid, host="0" * 8),
        left_by(tmp_path, dead.pid, name="run"),
        left_by(tmp_path, dead.pid, name="run.ckpt.2"),
        tmp_path / ".run.ckpt.notes",
        tmp_path / ".run.ckpt.abcd_123",  # as earlier versions named them
    ]
    for each in kept[-2:]:
        each.write_text("mine")
    checkpoint.save(path, state) if how == "save" else checkpoint.load(path)
    assert not gone.exists()
    assert all(each.exists() for each in kept)

    for each in kept:
        os.utime(each, (1e9, 1e9))
    checkpoint.load(path)
    assert [each.exists() for each in kept] == [False, False, True, True, True, False]


def test_a_killed_save_is_swept_by_the_next(tmp_path, state):
    path = tmp_path / "run.ckpt"
    code = (
        "import os, sys; from gclip.training import checkpoint; "
        "checkpoint.os.fsync = lambda _: os.kill(os.getpid(), 9); "
        f"checkpoint.save({str(path)!r}, {{'step': 1}})"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(list(tmp_path.glob(".run.ckpt.*"))) == 1
    checkpoint.save(path, state)
    assert [each.name for each in tmp_path.iterdir() if each.name != "cache"] == ["run.ckpt"]
