"""A checkpoint is whole, verified, or refused."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys

import pytest
import torch

from gclip.errors import UsageError
from gclip.training import RunConfig, checkpoint, train
from gclip.training.tasks import load_data


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


# -- from another hand ----------------------------------------------------------------------------


def sealed(path, value):
    """A checkpoint with a right seal, of whatever `value` is."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    content = buffer.getvalue()
    seal = f"{checkpoint._WITHOUT_HEAD} {hashlib.sha256(content).hexdigest()}\n"
    path.write_bytes(seal.encode() + content)


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_sealed_payload_is_not_run(tmp_path):
    sealed(tmp_path / "run.ckpt", {"config": "{}", "run": Payload(tmp_path / "mark")})
    with pytest.raises(UsageError, match="run.ckpt is refused: it holds something else than"):
        checkpoint.load(tmp_path / "run.ckpt")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("value", [[1], torch.ones(2), "text", None])
def test_a_sealed_file_of_something_else(tmp_path, value):
    sealed(tmp_path / "run.ckpt", value)
    with pytest.raises(UsageError, match="run.ckpt is not a checkpoint of gclip"):
        checkpoint.load(tmp_path / "run.ckpt")


@pytest.mark.parametrize(
    ("task", "values"), [("digits", ["text"]), ("linear", [None, [torch.ones(2)], {"a": 1}, 7])]
)
def test_a_sealed_state_that_does_not_fit_its_run(tmp_path, task, values):
    """Each of its parts in turn is missing, or is something else."""
    config = RunConfig(task=task, epochs=2, fraction=0.1, strategy="zclip")
    path = tmp_path / "run.ckpt"
    data = load_data(config.task)
    config = config.with_data(data)
    train(config, dataset=data, device="cpu", checkpoint=path, on_progress=lambda p: p.epoch < 1)
    whole = checkpoint.load(path)
    assert whole["run"]["epoch"] == 1
    for wrong in (dict(whole, run=None), dict(whole, seconds="long"), dict(whole, run=[])):
        refused(config, data, path, wrong)
    for name in whole["run"]:
        for value in values:
            changed = {**whole["run"], name: value}
            if name not in OPTIONAL:
                refused(config, data, path, dict(whole, run=changed))
    sealed(path, {"config": "{}"})
    with pytest.raises(UsageError, match="belongs to another config"):
        train(config, dataset=data, device="cpu", checkpoint=path)


OPTIONAL = ("chance_cuda", "layers", "problem", "strategy", "broken")
"""What a run may go on without, or with numbers that nobody can prove wrong."""


def refused(config, data, path, value):
    sealed(path, value)
    with pytest.raises(UsageError, match="the checkpoint .* does not fit its run"):
        train(config, dataset=data, device="cpu", checkpoint=path, on_progress=lambda p: False)
